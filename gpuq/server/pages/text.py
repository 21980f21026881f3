"""What pages do with text and times before they show them; what makes text safe is `gpuq.domain.visible_text`."""

from __future__ import annotations

from datetime import UTC, datetime


def cut(text: str, most: int) -> str:
    """At most `most` characters, the last of which says that there were more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def moment(text: str | None) -> datetime | None:
    """A time of the API's JSON."""
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)

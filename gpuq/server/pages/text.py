"""Text of strangers for people to read: names, commands, output. Nothing of it may steer what is shown."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# What turns the direction of text round, or is not seen, is shown as what it is.
_HIDDEN = {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)}
_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if code not in {0x09, 0x0A}} | {0x7F: "␡"}
_TABLE = _HIDDEN | _CONTROLS | dict.fromkeys(range(0x80, 0xA0), "�")
_SURROGATE = re.compile("[\ud800-\udfff]")


def shown(text: str) -> str:
    """`text` with what cannot be seen made visible; line breaks and tabs stay."""
    return _SURROGATE.sub("�", text.translate(_TABLE))


def cut(text: str, most: int) -> str:
    """At most `most` characters, the last of which says that there were more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def moment(text: str | None) -> datetime | None:
    """A time of the API's JSON."""
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)

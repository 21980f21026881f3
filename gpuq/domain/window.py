"""A planned drain: from when to when a machine, or some of its GPUs, takes no new jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# 2100-01-01T00:00:00Z.
LATEST = 4_102_444_800.0


@dataclass(frozen=True, slots=True)
class Window:
    """Times in epoch seconds. `until` None: until somebody says so. `gpus`: UUIDs; None: the whole machine, and jobs
    without GPUs too."""

    at: float
    until: float | None
    gpus: tuple[str, ...] | None
    by: str
    reason: str | None = None

    def over(self, now: float) -> bool:
        return self.until is not None and now >= self.until

    def began(self, now: float) -> bool:
        return self.at <= now and not self.over(now)

    def covers(self, uuid: str) -> bool:
        return self.gpus is None or uuid in self.gpus

    def blocks(self, start: float, seconds: float) -> bool:
        """Whether a job may not start then that may take so long."""
        return start + seconds > self.at and not self.over(start)

    def held_up(self, before: float, then: float, now: float) -> bool:
        """Whether what runs now would hold it up by ending `then` instead of `before`. What lasts for the whole of it
        anyhow does so no longer."""
        return then > max(self.at, before) and not self.over(now) and (self.until is None or before < self.until)

    def next_moment(self, now: float) -> float | None:
        """When something changes next without anybody doing anything."""
        return next((moment for moment in (self.at, self.until) if moment is not None and moment > now), None)

    def to_stored(self) -> dict[str, Any]:
        """As the database keeps it; see `stored`."""
        gpus = None if self.gpus is None else list(self.gpus)
        return {"at": self.at, "until": self.until, "gpus": gpus, "by": self.by, "reason": self.reason}

    @classmethod
    def stored(cls, value: Mapping[str, Any]) -> Window:
        """From what the database keeps."""
        gpus = value.get("gpus")
        return cls(
            float(value["at"]),
            value.get("until"),
            None if gpus is None else tuple(gpus),
            str(value["by"]),
            value.get("reason"),
        )

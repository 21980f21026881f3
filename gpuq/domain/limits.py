"""Limits that an administrator sets of users and groups while the queue runs, as they are stored and looked up.

A user's own limit counts before that of `default`, and both before the setting; a group has its own alone. What is
`UNLIMITED` lifts what would count otherwise; what is None is not set there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

UNLIMITED = -1
# The longest window of GPU-hours, and the shortest: they are counted by the hour.
MAX_WINDOW_S = 366 * 86400.0
MIN_WINDOW_S = 3600.0

Kind = Literal["user", "group", "default"]
# Of one job, its longest time limit; the others are sums over what one user or group has.
WHAT = ("gpus", "running", "waiting", "gpu_hours", "time_s")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one user, one group, or of every user. `gpus` and `running`: at once; `gpu_hours`: of the last `window_s`
    seconds; `time_s`: the longest time limit of a job. `by`: who set them last."""

    gpus: int | None = None
    running: int | None = None
    waiting: int | None = None
    gpu_hours: float | None = None
    window_s: float | None = None
    time_s: float | None = None
    by: str = ""
    at: str = ""

    @property
    def empty(self) -> bool:
        return all(getattr(self, what) is None for what in WHAT)

    @classmethod
    def stored(cls, value: Mapping[str, Any]) -> Limits:
        """From what is kept; what a later release keeps beside it is left alone."""
        return cls(**{name: value[name] for name in cls.__slots__ if name in value})


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit that counts. `most`: as in `Limits`. `of`: `user alice`, `default`, `group nightly`, as the command
    that changes it says."""

    most: float
    of: str
    by: str
    window_s: float = 0.0

    @property
    def told(self) -> str:
        """Whose command changes it, for people."""
        return f"(`gpuq limit {self.of}`{f', set by {self.by}' if self.by else ''})"


_NONE = Limits()


@dataclass(frozen=True, slots=True)
class LimitBook:
    """Every limit that is set in the database."""

    users: Mapping[str, Limits] = field(default_factory=dict)
    groups: Mapping[str, Limits] = field(default_factory=dict)
    default: Limits = _NONE

    def of_user(self, name: str, what: str) -> Bound | None:
        """The user's limit; None: whatever the setting says. One that is lifted has a `most` of UNLIMITED."""
        own = self.users.get(name)
        if own is not None and (found := _bound(own, what, f"user {name}")) is not None:
            return found
        return _bound(self.default, what, "default")

    def of_group(self, name: str | None, what: str) -> Bound | None:
        """The group's limit; None: there is none."""
        own = None if name is None else self.groups.get(name)
        return None if own is None else _bound(own, what, f"group {name}")

    @property
    def everybody(self) -> bool:
        """Whether there is a limit for users that are not named, on what they run."""
        return self.default.gpus is not None or self.default.running is not None

    @property
    def windows(self) -> frozenset[float]:
        """The windows of GPU-hours, in seconds, that somebody's limit counts."""
        several = (self.default, *self.users.values(), *self.groups.values())
        return frozenset(
            one.window_s for one in several if one.window_s is not None and one.gpu_hours not in {None, UNLIMITED}
        )


def _bound(limits: Limits, what: str, of: str) -> Bound | None:
    most = getattr(limits, what)
    return None if most is None else Bound(most, of, limits.by, limits.window_s or 0.0)

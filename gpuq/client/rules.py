"""What administrators have set for the whole queue, as values: limits, and a planned drain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

from gpuq.client.values import Read, Value, moment


@dataclass(frozen=True, kw_only=True)
class Limit(Value):
    """A limit of a `user`, a `group`, or `default`. `limit`: GPUs, jobs, GPU-hours or seconds (None: lifted); `used`:
    the same now. `source`: `sql` or `setting`; `set_for`: whose limit it is, or which setting, `set_by`: who set it."""

    kind: str
    what: str
    name: str = ""
    limit: float | None = None
    window_s: float | None = None
    used: float | None = None
    source: str = ""
    set_for: str = ""
    set_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedDrain(Value):
    """From when to when (None: until it is cancelled) the machine, or GPUs by index, take no new jobs; `begun`: now."""

    at: datetime | None = None
    until: datetime | None = None
    gpus: tuple[int, ...] | None = None
    reason: str | None = None
    by: str = ""
    begun: bool = False

    _read: ClassVar[Mapping[str, Read]] = {"at": moment, "until": moment, "gpus": tuple}

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self | None:
        """None where none is planned."""
        return None if answer["drain"] is None else cls.from_json(answer["drain"])

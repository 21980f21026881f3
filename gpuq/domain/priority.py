"""Priority and the one static score that orders the queue."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from gpuq.domain import quantities
from gpuq.errors import UsageError


class Priority(IntEnum):
    """Lower runs first: strictly, unless ageing is on (see `Ranking`)."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3

    @property
    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str | int) -> Priority:
        """From a name or a number 0 to 3; raises UsageError otherwise."""
        if isinstance(text, str) and text.upper() in cls.__members__:
            return cls[text.upper()]
        if str(text) in {"0", "1", "2", "3"}:
            return cls(int(text))
        raise UsageError(f"unknown priority {text!r}", hint="use critical, high, normal or low (or 0 to 3)")


# Seconds between two priorities. Larger than any submission time plus AGED_FACTOR times MAX_TIME_LIMIT_S,
# so priorities never mix; small enough that a float64 keeps milliseconds (4e11 has a step of 6e-5).
PRIORITY_STEP = 1e11
AGED_FACTOR = 10.0
UNDECLARED_S = 8 * 3600.0
# (Defined where the command line can read it without this module's imports.)
MAX_TIME_LIMIT_S = quantities.MAX_TIME_LIMIT_S


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rule that gives each job its place in line.

    `order="aged"`: submitted + 10 x declared limit, a job that declares none counting as 8 h: a short
    declared job passes longer ones, at most ten times its own limit earlier. `order="fifo"`: submission.

    `aging_s` is how many seconds of waiting are worth a step of priority; None: no waiting is, priorities are
    strict. Everybody ages alike, so the distance between two jobs never changes and the score can stay as it is.

    `spacing_s` is by how much a job stands later for each job of its user that waits already: one user's flood leaves
    room for others' first jobs, in a score that is still static.
    """

    order: str = "aged"
    aging_s: float | None = None
    spacing_s: float = 0.0

    @property
    def step_s(self) -> float:
        """Seconds between two priorities."""
        return PRIORITY_STEP if self.aging_s is None else self.aging_s

    @property
    def factor(self) -> float:
        """Seconds for each second of declared time."""
        return 0.0 if self.order == "fifo" else AGED_FACTOR

    def score(self, priority: Priority, submitted_at: float, time_limit_s: float | None, ahead: int = 0) -> float:
        """The place in line; lower runs first. Static while the job waits; equal scores go by id. `ahead`: jobs of the
        same user that wait already."""
        declared = UNDECLARED_S if time_limit_s is None else time_limit_s
        return priority * self.step_s + submitted_at + self.factor * declared + self.spacing_s * ahead


def score(
    priority: Priority,
    submitted_at: float,
    time_limit_s: float | None,
    *,
    order: str = "aged",
    aging_s: float | None = None,
) -> float:
    """By the rule of those settings; see `Ranking`."""
    return Ranking(order, aging_s).score(priority, submitted_at, time_limit_s)

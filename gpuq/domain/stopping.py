"""The one arithmetic of a stop: how long its notice and its grace are, and so when SIGTERM and SIGKILL are due.

    request -> notice (the job's `--signal`) -> SIGTERM -> grace -> SIGKILL

The supervisor's ladder and `stop_deadline` in SQL are both computed here, so that nobody kills a job to which somebody
else has promised more time. Pure, on whatever clock the caller counts. Every supervisor loads this file, so it imports
nothing: a dataclass alone would cost each of them a dozen modules.
"""

from __future__ import annotations

# The stops that `--signal` announces. A time limit is announced before it is reached, a cancel never.
ANNOUNCED = frozenset({"preempt", "drain"})

# How much longer than its grace a supervisor may take to end its job and every descendant, in seconds.
MARGIN_S = 5.0

# Of a `--signal` that does not say how many seconds before.
_NOTICE_BEFORE_S = 60.0


class StopTimes:
    """When SIGTERM is sent to every process of the job, and when SIGKILL."""

    __slots__ = ("kill_at", "term_at")

    def __init__(self, term_at: float, kill_at: float) -> None:
        self.term_at = term_at
        self.kill_at = kill_at

    @classmethod
    def of(cls, reason: str, now: float, grace_s: float, notice_before_s: float = 0.0) -> StopTimes:
        """Of a stop that is asked for at `now`. `grace_s`: seconds from SIGTERM to SIGKILL; `notice_before_s`: of the
        job's `--signal`, 0 without one."""
        term_at = now + lead_s(reason, grace_s, notice_before_s)
        return cls(term_at, term_at + grace_s)


def effective_grace_s(own_s: float | None, default_s: float) -> float:
    """The grace that was asked for (a job's `--kill-grace`, a cancel's `--grace`), else the next more general one."""
    return default_s if own_s is None else own_s


def notice_of(signal: str | None) -> tuple[str | None, float]:
    """The name and the seconds before of a job's `--signal` (`USR1@60`); (None, 0) without one."""
    if signal is None:
        return None, 0.0
    name, _, before = signal.partition("@")
    return name, float(before) if before else _NOTICE_BEFORE_S


def lead_s(reason: str, grace_s: float, notice_before_s: float) -> float:
    """Seconds from the `--signal` to SIGTERM: what the job asked for, but never longer than its grace, so that a stop
    takes at most twice that."""
    return min(notice_before_s, grace_s) if reason in ANNOUNCED else 0.0


def sooner(before: float | None, asked: float) -> float:
    """A stop that is asked for again may bring an end nearer, never put it off. `before` None: there was none."""
    return asked if before is None else min(before, asked)


def grace_left_s(reason: str, now: float, kill_at: float, notice_before_s: float = 0.0) -> float:
    """The grace with which a stop that is asked for again at `now` ends at the same moment as before: the inverse of
    `StopTimes.of`. 0 when that moment is over."""
    left = max(0.0, kill_at - now)
    # From left = grace + min(notice, grace).
    return max(left - notice_before_s, left / 2) if reason in ANNOUNCED else left


def is_overdue(kill_at: float, now: float) -> bool:
    """Whether a supervisor that has read the stop request would have ended the job by now (epoch seconds)."""
    return now > kill_at + MARGIN_S

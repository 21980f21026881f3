"""How many jobs may wait in all, and of each priority: whoever comes when they do is told when to come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gpuq.domain.states import WAITING
from gpuq.engine.context import IntakeContext
from gpuq.errors import QueueFull
from gpuq.ports.records import JobFilter, NewJob, Reader


def check_line(ctx: IntakeContext, tx: Reader, new: Sequence[NewJob]) -> None:
    """Raises QueueFull when with these more jobs would wait than `GPUQ_MAX_WAITING` and its priorities allow."""
    settings = ctx.settings
    limits = {
        "critical": settings.max_waiting_critical,
        "high": settings.max_waiting_high,
        "normal": settings.max_waiting_normal,
        "low": settings.max_waiting_low,
    }
    if settings.max_waiting and new:
        _require(tx.count(JobFilter(states=WAITING)), len(new), settings.max_waiting, "")
    if not any(limits.values()):
        return
    for priority, extra in Counter(job.spec.priority for job in new).items():
        if limit := limits[priority.label]:
            waiting = tx.count(JobFilter(states=WAITING, priority=priority))
            _require(waiting, extra, limit, f" of priority {priority.label}")


def _require(waiting: int, extra: int, limit: int, which: str) -> None:
    if waiting + extra <= limit:
        return
    if waiting < limit:
        raise QueueFull(
            f"{extra} more jobs are too many: at most {limit}{which} may wait, and the queue holds {waiting} waiting",
            hint="wait until some have started, or cancel some" if waiting else f"submit at most {limit} at a time",
        )
    raise QueueFull(
        f"the queue is full: the queue holds as many waiting jobs{which} as it may ({limit})",
        hint="wait until some have started, or cancel some",
    )

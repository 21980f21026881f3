"""Looking past the jobs that a limit keeps back, so that they hide nobody who stands behind them.

The hot queue is read by its heads. A user, group or array at its limit, or a user without an account, may fill all of
them with jobs that cannot start whatever is free, or, over the GPU-hours, that come behind all others; those behind are
then found in SQL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from gpuq.engine.snapshot.candidates import candidate
from gpuq.ports.records import Reader, Waiting
from gpuq.scheduler.limits import Usage


def past_limits(
    tx: Reader, line: Sequence[Waiting], usage: Usage, *, enough: int, gpus: int | None = None
) -> list[Waiting]:
    """Queued jobs with that many GPUs (None: any number) that are not in `line`, in no order, until `enough` of all of
    them together are not kept back by a limit."""
    users: set[str] = set()
    groups: set[str] = set()
    arrays: set[int] = set()
    accounts: set[tuple[str, int | None]] = set()
    known = {job.id for job in line}
    found: list[Waiting] = []
    look, free = line, 0
    while look:
        kept = [limit for job in look if (limit := usage.behind(candidate(job))) is not None]
        free += len(look) - len(kept)
        if free >= enough or not kept:
            break
        users |= {str(limit.name) for limit in kept if limit.kind == "user"}
        groups |= {str(limit.name) for limit in kept if limit.kind == "group"}
        arrays |= {int(limit.name) for limit in kept if limit.kind == "array" and isinstance(limit.name, int)}
        accounts |= {limit.name for limit in kept if isinstance(limit.name, tuple)}
        ids = tx.line_past(gpus, users=users, groups=groups, arrays=arrays, accounts=accounts, limit=enough)
        look = list(tx.waiting([job_id for job_id in ids if job_id not in known]).values())
        known |= {job.id for job in look}
        found += look
    return found


def more_behind(waiting: Sequence[Waiting], started: Collection[int], usage: Usage, heads: int) -> bool:
    """Whether of some size, of which at least `heads` were looked at, every job has started or is kept back by a limit,
    so that there may be others behind them that can start."""
    seen = Counter(job.gpus for job in waiting)
    return any(
        not any(job.gpus == gpus and job.id not in started and usage.behind(candidate(job)) is None for job in waiting)
        for gpus, count in seen.items()
        if count >= heads
    )

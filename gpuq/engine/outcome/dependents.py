"""When a job ends, those that wait for it are looked at in the same transaction."""

from __future__ import annotations

from gpuq.domain.caller import ACTOR
from gpuq.domain.eligibility import begin_time, waiting_state
from gpuq.domain.states import JobState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.records import Move, Reader, Writer


def still_open(tx: Reader, job_id: int) -> bool:
    """Whether some dependency is not satisfied yet (or never will be)."""
    return bool(tx.open_dependencies(job_id))


def wake_dependents(tx: Writer, ended_id: int, now: float) -> list[QueueEntry]:
    """Moves every blocked dependent with nothing left open; returns those that are now queued."""
    freed: list[QueueEntry] = []
    for job in tx.ready_dependents(ended_id):
        begin = begin_time(job.begin)
        target = waiting_state(False, begin, now)
        tx.move(
            Move(
                job.id,
                target,
                frozenset({JobState.BLOCKED}),
                ACTOR,
                now,
                detail=f"job {ended_id} ended; nothing left to wait for",
                set={"eligible_at": begin} if target is JobState.DELAYED else {},
                seen=(JobState.BLOCKED, job.attempt, job.token),
            )
        )
        if target is JobState.QUEUED:
            freed.append(QueueEntry(job.id, job.gpus, job.score))
    return freed

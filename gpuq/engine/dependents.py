"""When a job ends, those that wait for it are looked at in the same transaction."""

from __future__ import annotations

from gpuq.domain.states import FINAL, JobState
from gpuq.engine.submit import begin_time, waiting_state
from gpuq.ports.hot_queue import Member
from gpuq.ports.records import Move, Reader, Writer


def still_open(tx: Reader, job_id: int) -> bool:
    """Whether some dependency is not satisfied yet (or never will be)."""
    return bool(tx.open_dependencies(job_id))


def never_satisfied(tx: Reader, job_id: int) -> list[int]:
    """Dependencies that had to succeed and ended otherwise; only a retry of them can help."""
    return [on_id for on_id, kind, state in tx.open_dependencies(job_id) if kind == "success" and state in FINAL]


def wake_dependents(tx: Writer, ended_id: int, now: float) -> list[Member]:
    """Moves every blocked dependent with nothing left open; returns those that are now queued."""
    freed: list[Member] = []
    for job_id in tx.dependents(ended_id):
        job = tx.job(job_id)
        if job.state is not JobState.BLOCKED or still_open(tx, job_id):
            continue
        spec, _, _ = tx.spec(job_id)
        begin = begin_time(spec.begin)
        target = waiting_state(False, begin, now)
        tx.move(
            Move(
                job_id,
                target,
                frozenset({JobState.BLOCKED}),
                "gpuq",
                now,
                detail=f"job {ended_id} ended; nothing left to wait for",
                set={"eligible_at": begin} if target is JobState.DELAYED else {},
            )
        )
        if target is JobState.QUEUED:
            freed.append(Member(job_id, job.gpus, job.score))
    return freed

"""`starting → running`, with the facts of the process."""

from __future__ import annotations

from gpuq.domain.caller import ACTOR
from gpuq.domain.job import Job, Launched
from gpuq.domain.states import JobState
from gpuq.ports.records import Move, Writer


def record_running(tx: Writer, job: Job, number: int, token: str, launched: Launched) -> JobState:
    """The state that the job (as read in this transaction) has now: one that was told to stop meanwhile keeps its
    state and gets the facts. Raises LeaseLost when the attempt is not the live one any more."""
    tx.launched(job.id, number, token, launched)
    if job.state is not JobState.STARTING:
        return job.state
    move = Move(
        job.id,
        JobState.RUNNING,
        frozenset({JobState.STARTING}),
        ACTOR,
        launched.started_at,
        detail=f"pid {launched.pid}",
        attempt=number,
        token=token,
        set={"started_at": launched.started_at},
        seen=(job.state, job.attempt, job.token),
    )
    tx.move(move)
    return JobState.RUNNING

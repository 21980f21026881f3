"""`starting → running`, with the facts of the process."""

from __future__ import annotations

from gpuq.domain.job import Launched
from gpuq.domain.states import JobState
from gpuq.ports.records import Move, Writer


def note_running(tx: Writer, job_id: int, number: int, token: str, launched: Launched) -> None:
    """An attempt that was told to stop meanwhile keeps its state and gets the facts. Raises LeaseLost when it is
    not the live one any more."""
    tx.launched(job_id, number, token, launched)
    move = Move(
        job_id,
        JobState.RUNNING,
        frozenset({JobState.STARTING}),
        "gpuq",
        launched.started_at,
        detail=f"pid {launched.pid}",
        attempt=number,
        token=token,
        set={"started_at": launched.started_at},
    )
    if tx.job(job_id).state is JobState.STARTING:
        tx.move(move)

"""Small writes about live attempts, each guarded."""

from __future__ import annotations

from collections.abc import Sequence

from gpuq.domain import faults
from gpuq.domain.states import JobState
from gpuq.engine.context import Context
from gpuq.engine.live import Live
from gpuq.engine.running import note_running
from gpuq.errors import LeaseLost
from gpuq.ports.records import Move


def note_started(ctx: Context, lives: Sequence[Live]) -> None:
    """`starting → running` with the process's facts, one transaction for all."""
    with ctx.records.write() as tx:
        for live in lives:
            assert live.launched is not None
            try:
                note_running(tx, tx.job(live.job.id), live.number, live.token, live.launched)
            except LeaseLost:
                continue
    faults.point("start.committed")
    for live in lives:
        live.noted = True
    ctx.notifier.publish("events")


def note_limit_reached(ctx: Context, live: Live) -> None:
    """`running → stopping`: the supervisor stops a job at its limit by itself, this only shows it."""
    now = ctx.clock.now()
    grace = ctx.settings.kill_grace
    try:
        with ctx.records.write() as tx:
            tx.move(
                Move(
                    live.job.id,
                    JobState.STOPPING,
                    frozenset({JobState.RUNNING}),
                    "gpuq",
                    now,
                    detail="time limit reached",
                    attempt=live.number,
                    token=live.token,
                    set={"stop_reason": "time_limit", "stop_deadline": now + grace},
                )
            )
    except LeaseLost:
        # It ended or was cancelled first; that is written by whoever saw it.
        return
    ctx.notifier.publish("events")

"""Small writes about live attempts, each guarded."""

from __future__ import annotations

from collections.abc import Sequence

from gpuq.domain import faults
from gpuq.domain.states import JobState
from gpuq.engine.context import Context
from gpuq.engine.live import Live
from gpuq.errors import LeaseLost
from gpuq.ports.records import Move


def note_started(ctx: Context, lives: Sequence[Live]) -> None:
    """`starting → running` with the process's facts, one transaction for all. An attempt that was told to stop
    meanwhile keeps its state and gets the facts."""
    with ctx.records.write() as tx:
        for live in lives:
            launched = live.launched
            assert launched is not None
            try:
                tx.launched(live.job.id, live.number, live.token, launched)
                tx.move(
                    Move(
                        live.job.id,
                        JobState.RUNNING,
                        frozenset({JobState.STARTING}),
                        "gpuq",
                        launched.started_at,
                        detail=f"pid {launched.pid}",
                        attempt=live.number,
                        token=live.token,
                        set={"started_at": launched.started_at},
                    )
                )
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

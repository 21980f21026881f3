"""Small writes about live attempts, each guarded."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from gpuq.domain import failpoints
from gpuq.domain.states import JobState
from gpuq.domain.stopping import StopTimes, effective_grace_s
from gpuq.engine.attempt.running import note_running
from gpuq.engine.attempt.tracked import Live
from gpuq.engine.context import Context
from gpuq.errors import LeaseLost
from gpuq.ports.notify import Topic
from gpuq.ports.records import Move

log = logging.getLogger(__name__)

GROWN = 1.1


def note_started(ctx: Context, lives: Sequence[Live]) -> None:
    """`starting → running` with the process's facts, one transaction for all."""
    with ctx.records.write() as tx:
        for live in lives:
            assert live.launched is not None
            try:
                note_running(tx, tx.job(live.job.id), live.number, live.token, live.launched)
            except LeaseLost:
                continue
    failpoints.point("start.committed")
    for live in lives:
        live.noted = True
    ctx.notifier.publish(Topic.EVENTS)


def note_outgrown(ctx: Context, lives: Collection[Live]) -> None:
    """Says, once and again when it has grown by a tenth, that a job uses more GPU memory than it asked for. The peak is
    written with it, so that whoever looks, and an agent that is started anew, reserves that much."""
    grown = [live for live in lives if (peak := _outgrown_mb(live)) and peak > GROWN * live.flagged_mb]
    if not grown:
        return
    with ctx.records.write() as tx:
        for live in grown:
            peak, job = _outgrown_mb(live), tx.job(live.job.id)
            if job.token != live.token or not tx.note_peak(job.id, live.number, live.token, peak):
                continue
            told = f"uses {peak} MiB of a GPU and asked for {live.mem_mb}; {peak} are reserved for it from now on"
            tx.add_event(job.id, job.state, "gpuq", ctx.clock.now(), told, live.number)
    for live in grown:
        live.flagged_mb = _outgrown_mb(live)
        log.warning("job %d uses %d MiB of a GPU and asked for %d", live.job.id, live.flagged_mb, live.mem_mb)
    ctx.notifier.publish(Topic.EVENTS)


def _outgrown_mb(live: Live) -> int:
    """The peak of a job that shares GPUs, if it is more than was asked for; else 0."""
    peak = max(live.peak_mb.values(), default=0)
    return peak if live.mem_mb is not None and peak > live.mem_mb else 0


def note_limit_reached(ctx: Context, live: Live) -> None:
    """`running → stopping`: the supervisor stops a job at its limit by itself, this only shows it."""
    now = ctx.clock.now()
    try:
        with ctx.records.write() as tx:
            spec, _, _ = tx.spec(live.job.id)
            grace = effective_grace_s(spec.kill_grace_s, ctx.settings.kill_grace)
            times = StopTimes.of("time_limit", now, grace)
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
                    set={"stop_reason": "time_limit", "stop_deadline": times.kill_at},
                )
            )
    except LeaseLost:
        # It ended or was cancelled first; that is written by whoever saw it.
        return
    ctx.notifier.publish(Topic.EVENTS)

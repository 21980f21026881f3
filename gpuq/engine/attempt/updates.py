"""Small writes about live attempts, each guarded."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from gpuq.domain import failpoints
from gpuq.domain.caller import ACTOR
from gpuq.domain.states import JobState
from gpuq.domain.stopping import StopTimes, effective_grace_s, notice_of
from gpuq.engine.attempt import families
from gpuq.engine.attempt.mishaps import alone
from gpuq.engine.attempt.running import record_running
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.errors import GpuqError, LeaseLost
from gpuq.ports.notify import Topic
from gpuq.ports.records import Move

log = logging.getLogger(__name__)

GROWN = 1.1


def record_started(ctx: Context, tracked_attempts: Sequence[TrackedAttempt]) -> None:
    """`starting → running` with the process's facts, one transaction for all; each by itself where something goes
    wrong with one of them."""
    try:
        _write_started(ctx, tracked_attempts)
    except GpuqError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, it is not the others'
        for tracked in tracked_attempts:
            with alone(ctx, tracked):
                _write_started(ctx, [tracked])
    ctx.notifier.publish(Topic.EVENTS)


def _write_started(ctx: Context, tracked_attempts: Sequence[TrackedAttempt]) -> None:
    with ctx.records.write() as tx:
        for tracked in tracked_attempts:
            assert tracked.launched is not None
            try:
                record_running(tx, tx.job(tracked.job.id), tracked.number, tracked.token, tracked.launched)
            except LeaseLost:
                continue
            families.note_at_start(ctx, tx, tracked)
    failpoints.point("start.committed")
    for tracked in tracked_attempts:
        tracked.start_recorded = True


def record_outgrown(ctx: Context, tracked_attempts: Collection[TrackedAttempt]) -> None:
    """Says, once and again when it has grown by a tenth, that a job uses more GPU memory than it asked for. The peak is
    written with it, so that whoever looks, and an agent that is started anew, reserves that much."""
    grown = [
        tracked for tracked in tracked_attempts if (peak := _outgrown_mb(tracked)) and peak > GROWN * tracked.flagged_mb
    ]
    if not grown:
        return
    with ctx.records.write() as tx:
        for tracked in grown:
            peak, job = _outgrown_mb(tracked), tx.job(tracked.job.id)
            if job.token != tracked.token or not tx.note_peak(job.id, tracked.number, tracked.token, peak):
                continue
            told = f"uses {peak} MiB of a GPU and asked for {tracked.mem_mb}; {peak} are reserved for it from now on"
            tx.add_event(job.id, job.state, ACTOR, ctx.clock.now(), told, tracked.number)
    for tracked in grown:
        tracked.flagged_mb = _outgrown_mb(tracked)
        log.warning("job %d uses %d MiB of a GPU and asked for %d", tracked.job.id, tracked.flagged_mb, tracked.mem_mb)
    ctx.notifier.publish(Topic.EVENTS)


def _outgrown_mb(tracked: TrackedAttempt) -> int:
    """The peak of a job that shares GPUs, if it is more than was asked for; else 0."""
    peak = max(tracked.peak_mb.values(), default=0)
    return peak if tracked.mem_mb is not None and peak > tracked.mem_mb else 0


def record_limits_reached(ctx: Context, tracked_attempts: Collection[TrackedAttempt]) -> None:
    """`running → stopping`: the supervisor stops a job at its limit by itself, this only shows it."""
    now = ctx.clock.now()
    for tracked in tracked_attempts:
        if (limit := tracked.unrecorded_limit) is not None and now >= limit:
            tracked.stopping = True
            with alone(ctx, tracked):
                _record_limit_reached(ctx, tracked, now)


def _limit_reached(signal: str | None) -> str:
    """With the `--signal` that its supervisor had to send before."""
    name, before_s = notice_of(signal)
    return "time limit reached" + (f"; {name} was due {before_s:g} s before" if name else "")


def _record_limit_reached(ctx: Context, tracked: TrackedAttempt, now: float) -> None:
    try:
        with ctx.records.write() as tx:
            job = tx.job(tracked.job.id)
            if job.token == tracked.token and job.time_limit_s != tracked.job.time_limit_s:
                # It was changed, and that has not been heard yet.
                tracked.take_changes(job)
                tracked.stopping = False
                return
            spec, _, _ = tx.spec(tracked.job.id)
            grace = effective_grace_s(spec.kill_grace_s, ctx.settings.kill_grace)
            times = StopTimes.of("time_limit", now, grace)
            tx.move(
                Move(
                    tracked.job.id,
                    JobState.STOPPING,
                    frozenset({JobState.RUNNING}),
                    ACTOR,
                    now,
                    detail=_limit_reached(spec.signal),
                    attempt=tracked.number,
                    token=tracked.token,
                    set={"stop_reason": "time_limit", "stop_deadline": times.kill_at},
                )
            )
    except LeaseLost:
        # It ended or was cancelled first; that is written by whoever saw it.
        return
    ctx.notifier.publish(Topic.STOPS)
    ctx.notifier.publish(Topic.EVENTS)

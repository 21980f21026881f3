"""Attempts that hold GPUs and do not use them: said once when it has lasted, and again only after they did something.

Nothing is stopped here. A job that shares a GPU is as busy as the GPU; where the driver does not say how busy a GPU is,
nobody is called idle.
"""

from __future__ import annotations

from collections.abc import Collection

from gpuq.domain.caller import ACTOR
from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.quantities import duration_text
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.attempt.updates import record_outgrown
from gpuq.engine.context import Context
from gpuq.ports.notify import Topic

# Seconds from its start in which a job may prepare its data.
FIRST_S = 600.0


def record_usage(ctx: Context, tracked_attempts: Collection[TrackedAttempt]) -> None:
    """What was sampled just now, as far as people are to hear of it. Raises DatabaseUnavailable."""
    record_outgrown(ctx, tracked_attempts)
    record_idle(ctx, tracked_attempts)


def record_idle(ctx: Context, tracked_attempts: Collection[TrackedAttempt]) -> None:
    """Writes who has become idle for as long as `GPUQ_IDLE_WARN` says, and who is busy again. Raises
    DatabaseUnavailable."""
    warn_s = ctx.settings.idle_warn
    if warn_s is None:
        return
    now = ctx.clock.now()
    looked_at = [one for one in tracked_attempts if one.launched is not None and one.gpu_uuids and one.result is None]
    _remember(ctx, [one for one in looked_at if one.idle_told is None])
    fresh = [one for one in looked_at if not one.idle_told and now - idle_since(one, now) >= warn_s]
    busy = [one for one in looked_at if one.idle_told and now - idle_since(one, now) < warn_s]
    if not fresh and not busy:
        return
    with ctx.records.write() as tx:
        for one in busy:
            tx.set_value(_key(ctx, one), None, now)
        for one in fresh:
            job = tx.job(one.job.id)
            if job.token == one.token:
                since = idle_since(one, now)
                told = f"its GPUs have not been used for {duration_text((now - since) // 60 * 60)}"
                tx.add_event(job.id, job.state, ACTOR, now, told, one.number)
                tx.set_value(_key(ctx, one), {"attempt": one.number, "since": since}, now)
    for one in (*busy, *fresh):
        one.idle_told = one in fresh
    ctx.notifier.publish(Topic.EVENTS)


def idle_since(tracked: TrackedAttempt, now: float) -> float:
    """Epoch seconds: since when its GPUs stand still, as far as that was seen; `now` when they do not."""
    started = tracked.launched.started_at if tracked.launched is not None else now
    return now if tracked.busy_at is None else max(tracked.busy_at, started + FIRST_S)


def _remember(ctx: Context, adopted: Collection[TrackedAttempt]) -> None:
    """What an agent before this one saw goes on, for attempts that are met for the first time."""
    if not adopted:
        return
    with ctx.records.read() as tx:
        for one in adopted:
            value = tx.value(_key(ctx, one))
            one.idle_told = value is not None and value["attempt"] == one.number
            if one.idle_told and value is not None:
                one.busy_at = min(one.busy_at or value["since"], value["since"])


def _key(ctx: Context, tracked: TrackedAttempt) -> str:
    return InstallationKey.IDLE.of(ctx.node, str(tracked.job.id))

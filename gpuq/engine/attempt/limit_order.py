"""Passing new limits on to an attempt's supervisor, which alone ends the job at its time limit.

SQL has them first. Whoever changed them tells the supervisor then, and the agent of the node sees to it that it was
told: when it hears of the change, when it takes the attempt over after a restart, and again as long as that fails.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context, LimitContext
from gpuq.ports.notify import Topic
from gpuq.ports.records import Reader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LimitOrder:
    """What the supervisor of an attempt is to go by; see `gpuq.ports.launcher.Launcher.change_limits`."""

    job_id: int
    run_dir: str
    token: str
    time_limit_s: float | None
    kill_grace_s: float | None


def try_limits(ctx: LimitContext, order: LimitOrder) -> bool:
    """Whether the limits are where a supervisor hears of them; else a line in the log."""
    try:
        ctx.launcher.change_limits(
            order.run_dir, order.token, time_limit_s=order.time_limit_s, kill_grace_s=order.kill_grace_s
        )
    except OSError as error:
        log.warning("job %d: its new limits are not in the attempt's folder yet: %s", order.job_id, error)
        return False
    finally:
        # The agent looks whether it was told, and goes by the new limits itself.
        ctx.notifier.publish(Topic.LIVE)
    return True


def see_told(ctx: Context, tx: Reader, tracked: TrackedAttempt) -> None:
    """Whether the supervisor of a live attempt goes by what SQL says; if not, it is told, and on failure that is to be
    tried again (`limits_untold`)."""
    if tracked.result is None and not tracked.stopping:
        tracked.limits_untold = not _is_told(ctx, tx, tracked)


def _is_told(ctx: Context, tx: Reader, tracked: TrackedAttempt) -> bool:
    limit_s = tracked.job.time_limit_s
    try:
        known = ctx.launcher.limits(tracked.run_dir, tracked.token)
        if known is None or not known.heard:
            # It is not launched yet, or cannot be told: then nobody has promised anything.
            return True
        # None: the supervisor keeps what it has.
        grace_s = tx.spec(tracked.job.id)[0].kill_grace_s
        if known.time_limit_s == limit_s and grace_s in {None, known.kill_grace_s}:
            return True
        ctx.launcher.change_limits(tracked.run_dir, tracked.token, time_limit_s=limit_s, kill_grace_s=grace_s)
    except OSError as error:
        log.warning("job %d: its supervisor is not told its limits yet: %s", tracked.job.id, error)
        return False
    log.info("job %d: its supervisor was told its limits again", tracked.job.id)
    return True

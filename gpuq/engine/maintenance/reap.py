"""The reaper: finds attempts whose end nobody wrote, proves them dead, and writes it.

The agent normally hears an end at once. The reaper is for what it cannot hear: an agent that was killed between
claim and launch, a machine that was suspended, an end that could not be written.
"""

from __future__ import annotations

import logging

from gpuq.domain import failpoints
from gpuq.domain.job import Attempt, Job
from gpuq.domain.states import JobState
from gpuq.domain.stopping import is_overdue
from gpuq.engine.attempt.adopt import ask_again, end_of, holds_lock, same_boot
from gpuq.engine.attempt.mishaps import alone
from gpuq.engine.attempt.tracked import TrackedAttempt, recorded
from gpuq.engine.claim.claim import write_turn
from gpuq.engine.context import Context
from gpuq.errors import HotStoreUnavailable

log = logging.getLogger(__name__)

# Younger attempts are the agent's own: it may be between claim and launch.
SUSPECT_AFTER_S = 20.0


def reap(ctx: Context, *, suspect_after_s: float = SUSPECT_AFTER_S) -> list[int]:
    """Ids of jobs whose attempt was found dead and finished."""
    with ctx.records.read() as tx:
        found = tx.live_attempts(ctx.node)
    now = ctx.clock.now()
    dead: list[int] = []
    for job, attempt in found:
        if now - attempt.claimed_at < suspect_after_s and same_boot(ctx, attempt):
            continue
        tracked = TrackedAttempt.of_record(job, attempt, recorded(attempt))
        with alone(ctx, tracked):
            if _reap_one(ctx, tracked, attempt, now):
                dead.append(job.id)
    return dead


def _reap_one(ctx: Context, tracked: TrackedAttempt, attempt: Attempt, now: float) -> bool:
    """Whether it was dead, and its end is written now."""
    here, job = same_boot(ctx, attempt), tracked.job
    if here and holds_lock(ctx, tracked):
        _press(ctx, job, attempt, now)
        return False
    if tracked.launched is None:
        tracked.launched = ctx.launcher.launched(attempt.run_dir, attempt.token)
    tracked.result = end_of(ctx, tracked, rebooted=not here)
    failpoints.point("reap.proved")
    if tracked.result is None:
        return False
    if job.id not in write_turn(ctx, [tracked]).states:
        return False
    log.warning("job %d attempt %d was dead: %s", job.id, attempt.number, tracked.result.outcome)
    _release(ctx, attempt)
    return True


def _press(ctx: Context, job: Job, attempt: Attempt, now: float) -> None:
    """A stop whose time is over is asked for once more, with no grace left."""
    if job.state is JobState.STOPPING and job.stop_deadline is not None and is_overdue(job.stop_deadline, now):
        ask_again(ctx, job, attempt.run_dir)


def _release(ctx: Context, attempt: Attempt) -> None:
    try:
        ctx.leases.release(attempt.node, attempt.token, attempt.gpu_uuids)
    except HotStoreUnavailable as error:
        log.info("leases of attempt %d/%d expire by themselves: %s", attempt.job_id, attempt.number, error.message)

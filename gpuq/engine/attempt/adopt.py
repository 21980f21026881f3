"""After a restart: which attempts live is asked of their locks, never of a PID."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from gpuq.domain.job import Attempt, Job
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.proof_of_death import Verdict, doubt, is_forsaken, judge
from gpuq.domain.states import JobState
from gpuq.domain.stopping import grace_left_s, notice_of
from gpuq.engine.attempt import families
from gpuq.engine.attempt.limit_order import see_told
from gpuq.engine.attempt.mishaps import alone
from gpuq.engine.attempt.stop_request import try_stop
from gpuq.engine.attempt.tracked import TrackedAttempt, recorded
from gpuq.engine.context import Context

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adopted:
    """`attempts`: all that SQL says are active on this node; `tracked_attempts`: those of them that were not known
    before."""

    attempts: list[Attempt]
    tracked_attempts: list[TrackedAttempt]


def adopt(ctx: Context, *, known: Collection[str] = ()) -> Adopted:
    """Every active attempt of this node, apart from the tokens that are `known`. `result` is set for those that are
    not alive any more.

    A stop that was asked for, and a new limit, that may not have reached the supervisor are told again.
    """
    with ctx.records.read() as tx:
        found = tx.live_attempts(ctx.node)
    tracked_attempts = []
    for job, attempt in found:
        if attempt.token in known:
            continue
        tracked = TrackedAttempt.of_record(job, attempt, recorded(attempt))
        with alone(ctx, tracked):
            _adopt_one(ctx, tracked, attempt)
        tracked_attempts.append(tracked)
    adopted = sum(tracked.result is None for tracked in tracked_attempts)
    for stray in () if ctx.strays is None else ctx.strays.living():
        log.warning("%s runs, keeps its GPUs and is not in the database; see `gpuq doctor`", stray.text)
    if tracked_attempts:
        log.info("adopted %d running jobs; %d had ended meanwhile", adopted, len(tracked_attempts) - adopted)
    return Adopted([attempt for _, attempt in found], tracked_attempts)


def _adopt_one(ctx: Context, tracked: TrackedAttempt, attempt: Attempt) -> None:
    """SQL's word on its processes comes first: the records may be gone, and where they are the daemon's own user's, a
    job may write into them."""
    here = same_boot(ctx, attempt)
    if here and tracked.launched is None:
        tracked.launched = ctx.launcher.launched(tracked.run_dir, tracked.token)
    if not here or not holds_lock(ctx, tracked):
        tracked.result = end_of(ctx, tracked, rebooted=not here)
    # Also where only its folder is gone: a supervisor that hears of it obeys.
    if tracked.result is None and tracked.job.state is JobState.STOPPING:
        ask_again(ctx, tracked.job, tracked.run_dir)
    elif tracked.result is None:
        tracked.limits_changed = True
        with ctx.records.read() as tx:
            see_told(ctx, tx, tracked)


def holds_lock(ctx: Context, tracked: TrackedAttempt) -> bool:
    """Whether its lock is held. One that cannot be asked is none: then everything else is looked at as well."""
    try:
        return ctx.launcher.alive(tracked.run_dir)
    except OSError as error:
        log.warning("job %d: its lock cannot be asked: %s", tracked.job.id, error)
        return False


def same_boot(ctx: Context, attempt: Attempt) -> bool:
    return attempt.boot_id == ctx.boot_id


def ask_again(ctx: Context, job: Job, run_dir: str) -> None:
    """Repeats a stop request with what is left of its time: it still ends when SQL says."""
    reason = job.stop_reason or "cancel"
    # Its own time limit the supervisor knows by itself.
    if reason == "time_limit":
        return
    with ctx.records.read() as tx:
        spec, _, _ = tx.spec(job.id)
    _, before_s = notice_of(spec.signal)
    left = grace_left_s(reason, ctx.clock.now(), job.stop_deadline or 0.0, before_s)
    try_stop(ctx, job.id, run_dir, reason=reason, grace_s=left)


def end_of(ctx: Context, tracked: TrackedAttempt, *, rebooted: bool = False) -> Result | None:
    """The end of an attempt whose lock is free: its exit record; without one, what is left of it is killed and it
    is `lost`. None while it is not proved dead, which `doubt` tells: its GPUs are not free then, and it is asked
    again."""
    result = ctx.launcher.outcome(tracked.run_dir, tracked.token)
    if result is not None and (result.swept or rebooted):
        return result
    if rebooted:
        return Result(Outcome.LOST, error="the machine was restarted", finished_at=ctx.clock.now())
    if result is None and _folders_are_away(ctx, tracked):
        return None
    family = families.known(ctx, tracked)
    if family is None or not _is_forsaken(ctx, tracked, family):
        return None
    if result is None and tracked.launched is None and not _never_starts(ctx, tracked):
        return None
    session, begun = (tracked.launched.pid, tracked.launched.pid_start) if tracked.launched else (None, None)
    try:
        swept = ctx.launcher.sweep(tracked.token, session, begun, tracked.job.uid, family)
    except TimeoutError as error:
        log.warning("job %d attempt %d is not over: %s", tracked.job.id, tracked.number, error)
        tracked.doubt = str(error)
        return None
    if not _is_dead(ctx, tracked, family):
        return None
    # Now that nobody can write one any more: its supervisor may have done so since it was looked for.
    result = ctx.launcher.outcome(tracked.run_dir, tracked.token) or result
    if result is not None and result.outcome is not Outcome.LOST:
        return result
    if not swept and _never_lived(ctx, tracked):
        why = (result and result.error) or "no supervisor came to life for it"
        return Result(Outcome.LOST, error=why, finished_at=ctx.clock.now(), machine_fault=True)
    if result is not None:
        return result
    what = "its supervisor died" if tracked.launched else "it was never seen to run"
    more = f"; {swept} processes left of it were ended" if swept else ""
    return Result(Outcome.LOST, error=what + more, finished_at=ctx.clock.now())


def _is_forsaken(ctx: Context, tracked: TrackedAttempt, family: Collection[tuple[int, int]]) -> bool:
    """Whether nobody supervises it any more, so that what is left of it may be ended."""
    seen = ctx.launcher.evidence(tracked.run_dir, tracked.token, tracked.launched, tracked.job.uid, family)
    if is_forsaken(seen):
        return True
    tracked.doubt = f"its lock is free, but {doubt(seen)}; its GPUs stay held"
    return False


def _is_dead(ctx: Context, tracked: TrackedAttempt, family: Collection[tuple[int, int]]) -> bool:
    """After a sweep."""
    seen = ctx.launcher.evidence(tracked.run_dir, tracked.token, tracked.launched, tracked.job.uid, family)
    if judge(seen) is Verdict.DEAD:
        tracked.doubt = None
        return True
    tracked.doubt = f"its supervisor is gone, but {doubt(seen)}; its GPUs stay held"
    log.warning("job %d attempt %d is not over: %s", tracked.job.id, tracked.number, tracked.doubt)
    return False


def _folders_are_away(ctx: Context, tracked: TrackedAttempt) -> bool:
    """Whether the home is away, with its disk perhaps: then nobody knows what stands there of the attempt's end, or is
    still to be written."""
    known_to_have_run = tracked.launched is not None or tracked.start_recorded
    return not (ctx.home / "jobs").is_dir() and (known_to_have_run or not ctx.home.is_dir())


def _never_lived(ctx: Context, tracked: TrackedAttempt) -> bool:
    """Whether it is proved that the job's program has never existed. A job that had a chance to kill its supervisor is
    counted as lost, or it might do so for ever."""
    return tracked.launched is None and not tracked.start_recorded and not ctx.launcher.begun(tracked.run_dir)


def _never_starts(ctx: Context, tracked: TrackedAttempt) -> bool:
    """Another agent may have been suspended between claim and launch, and go on at any moment: a stop request in the
    records keeps that launch from ever running the job. If the lock is free after it, nothing can start any more."""
    if not try_stop(ctx, tracked.job.id, tracked.run_dir, reason="shutdown", grace_s=0.0):
        return False
    return not ctx.launcher.alive(tracked.run_dir)

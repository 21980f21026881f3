"""Cancel: a waiting job at once; a running one by its supervisor, within the grace."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from gpuq.domain import failpoints
from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.domain.stopping import StopTimes, effective_grace_s, grace_left_s, sooner
from gpuq.engine.access import require_owner
from gpuq.engine.actions.bulk import ActionResult, ActionTransaction, BulkAction, Stop, run_many, run_one
from gpuq.engine.attempt.stop_request import try_stop
from gpuq.engine.context import ActionContext
from gpuq.engine.outcome.dependents import settle_dependents_of
from gpuq.errors import DatabaseUnavailable, GpuqError, WrongState
from gpuq.ports.records import Change, Move

log = logging.getLogger(__name__)


def cancel(
    ctx: ActionContext,
    job_id: int,
    caller: Caller,
    *,
    force: bool = False,
    grace_s: float | None = None,
    reason: str | None = None,
) -> Job:
    """`grace_s`: seconds between SIGTERM and SIGKILL; `force`, or a second cancel, kills at once.

    Raises NotFound, Forbidden, WrongState (already final). On return a waiting job is cancelled; of an active one
    the request is durable in SQL and in the attempt's records, so it holds whoever dies next. When the database takes
    no writes, its disk is full for instance, the supervisor of an active job is told all the same, and SQL hears of the
    end when there is room; of a waiting one it raises DatabaseUnavailable.
    """
    try:
        return run_one(ctx, job_id, caller, cancelling(force=force, grace_s=grace_s, reason=reason))
    except DatabaseUnavailable as error:
        return _stop_unrecorded(ctx, job_id, caller, 0.0 if force else grace_s, error)


def cancel_many(
    ctx: ActionContext,
    ids: Sequence[int],
    caller: Caller,
    *,
    force: bool = False,
    grace_s: float | None = None,
    reason: str | None = None,
) -> list[ActionResult]:
    """As `cancel` for each, the waiting ones and the requests to the active ones in one step: none of these is started
    in the place of another. Raises DatabaseUnavailable when nothing could be done for any."""
    verb = cancelling(force=force, grace_s=grace_s, reason=reason)
    try:
        return run_many(ctx, ids, caller, verb)
    except DatabaseUnavailable as unwritten:
        done: list[ActionResult] = []
        for job_id in dict.fromkeys(ids):
            try:
                job = _stop_unrecorded(ctx, job_id, caller, 0.0 if force else grace_s, unwritten)
                done.append(ActionResult(job_id, state=job.state))
            except GpuqError as error:
                done.append(ActionResult(job_id, error=error))
        if all(one.state is None for one in done):
            raise
        return done


def cancelling(*, force: bool, grace_s: float | None, reason: str | None) -> BulkAction:
    """`cancel` as a verb for many jobs."""
    verb = _Cancel(force, grace_s, reason)
    return BulkAction(verb.act, committed=_committed, prepare=verb.read, written=_settle, at_once=True)


class _Cancel:
    """The words of one cancel, for one transaction at a time."""

    def __init__(self, force: bool, grace_s: float | None, reason: str | None) -> None:
        self._force = force
        self._grace_s = grace_s
        self._reason = reason
        self._specs: dict[int, JobSpec] = {}

    def read(self, step: ActionTransaction, jobs: Sequence[Job]) -> None:
        """The grace that active jobs ask for stands in their submissions."""
        self._specs = step.tx.specs([job.id for job in jobs if job.state in ACTIVE])

    def act(self, step: ActionTransaction, job: Job) -> JobState:
        """Raises Forbidden, WrongState."""
        require_owner(job, step.caller, "cancel")
        if job.state in FINAL:
            raise WrongState(f"job {job.id} is already {job.state}", hint=f"`gpuq show {job.id}` tells how it ended")
        if job.state in WAITING:
            step.move(_end_waiting(job, step.caller, step.now, self._reason))
            if job.state is JobState.QUEUED:
                step.gone.append((job.id, job.gpus))
            return JobState.CANCELLED
        own = effective_grace_s(self._specs[job.id].kill_grace_s, step.ctx.settings.kill_grace)
        again = self._force or job.stop_reason == "cancel"
        grace = _ask_to_stop(step, job, 0.0 if again else effective_grace_s(self._grace_s, own), self._reason)
        run_dir = job.run_dir or step.ctx.run_dir(job.id, job.attempt)
        step.stops.append(Stop(job.id, run_dir, grace))
        return JobState.STOPPING


def _settle(step: ActionTransaction) -> None:
    """Whoever waited for one of these, and was not cancelled with it."""
    ended = [move.job_id for move in step.moves if move.to is JobState.CANCELLED]
    step.ready.extend(settle_dependents_of(step.tx, ended, step.now))


def _committed() -> None:
    failpoints.point("cancel.committed")


def _stop_unrecorded(
    ctx: ActionContext, job_id: int, caller: Caller, grace_s: float | None, error: DatabaseUnavailable
) -> Job:
    """The job as it will be. Raises `error` when there is nobody to tell, or nothing can be read either."""
    with ctx.records.read() as reader:
        job = reader.job(job_id)
        spec, _, _ = reader.spec(job_id)
    require_owner(job, caller, "cancel")
    if job.state not in ACTIVE:
        raise error
    own = effective_grace_s(spec.kill_grace_s, ctx.settings.kill_grace)
    grace = 0.0 if job.stop_reason == "cancel" else effective_grace_s(grace_s, own)
    run_dir = job.run_dir or ctx.run_dir(job.id, job.attempt)
    if not try_stop(ctx, job_id, run_dir, reason="cancel", grace_s=grace):
        raise error
    log.warning("job %d is stopped for %s; SQL hears of it later: %s", job_id, caller.user, error.message)
    kill_at = sooner(job.stop_deadline, StopTimes.of("cancel", ctx.clock.now(), grace).kill_at)
    return replace(job, state=JobState.STOPPING, stop_reason="cancel", stop_deadline=kill_at)


def _end_waiting(job: Job, caller: Caller, now: float, reason: str | None) -> Move:
    return Move(
        job.id,
        JobState.CANCELLED,
        frozenset({job.state}),
        caller.user,
        now,
        detail=reason or "cancelled while waiting",
        set={"outcome": Outcome.CANCELLED, "finished_at": now, "error": reason},
        seen=(job.state, job.attempt, job.token),
    )


def _ask_to_stop(step: ActionTransaction, job: Job, grace: float, reason: str | None) -> float:
    """The seconds of grace that the job gets: of one that stops already, not more than it has left."""
    now, user = step.now, step.caller.user
    kill_at = sooner(job.stop_deadline, StopTimes.of("cancel", now, grace).kill_at)
    grace = min(grace, grace_left_s("cancel", now, kill_at))
    detail = f"cancel{f': {reason}' if reason else ''}; SIGKILL after {grace:g} s"
    stop = {"stop_reason": "cancel", "stop_deadline": kill_at}
    if job.state is JobState.STOPPING:
        step.changes.append(Change(job.id, job.state, user, now, detail, attempt=job.attempt, set=stop))
        return grace
    step.move(
        Move(
            job.id,
            JobState.STOPPING,
            frozenset({job.state}),
            user,
            now,
            detail=detail,
            attempt=job.attempt,
            token=job.token,
            set=stop,
            seen=(job.state, job.attempt, job.token),
        )
    )
    return grace

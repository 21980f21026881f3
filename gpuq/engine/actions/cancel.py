"""Cancel: a waiting job at once; a running one by its supervisor, within the grace."""

from __future__ import annotations

import logging
from dataclasses import replace

from gpuq.domain import failpoints
from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.domain.stopping import StopTimes, effective_grace_s, grace_left_s, sooner
from gpuq.engine.access import require_owner
from gpuq.engine.attempt.stop_request import try_stop
from gpuq.engine.context import ActionContext
from gpuq.engine.hot.queue_hints import publish_jobs, unpublish_jobs
from gpuq.engine.outcome.dependents import wake_dependents
from gpuq.errors import DatabaseUnavailable, WrongState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import Move, Writer

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
        return _cancel(ctx, job_id, caller, force=force, grace_s=grace_s, reason=reason)
    except DatabaseUnavailable as error:
        return _stop_unrecorded(ctx, job_id, caller, 0.0 if force else grace_s, error)


def _cancel(
    ctx: ActionContext, job_id: int, caller: Caller, *, force: bool, grace_s: float | None, reason: str | None
) -> Job:
    now = ctx.clock.now()
    freed: list[QueueEntry] = []
    with ctx.records.write() as tx:
        job = tx.job(job_id)
        require_owner(job, caller, "cancel")
        if job.state in FINAL:
            raise WrongState(f"job {job_id} is already {job.state}", hint=f"`gpuq show {job_id}` tells how it ended")
        if job.state in WAITING:
            _cancel_waiting(tx, job, caller, now, reason)
            freed = wake_dependents(tx, job_id, now)
        else:
            spec, _, _ = tx.spec(job_id)
            own = effective_grace_s(spec.kill_grace_s, ctx.settings.kill_grace)
            grace = 0.0 if force or job.stop_reason == "cancel" else effective_grace_s(grace_s, own)
            grace = _ask_to_stop(tx, job, caller, now, grace, reason)
    failpoints.point("cancel.committed")
    if job.state in ACTIVE:
        # After the commit: the records' request must never say more than SQL does.
        run_dir = job.run_dir or ctx.run_dir(job.id, job.attempt)
        try_stop(ctx, job_id, run_dir, reason="cancel", grace_s=grace)
    elif job.state is JobState.QUEUED:
        unpublish_jobs(ctx, [(job.id, job.gpus)])
    publish_jobs(ctx, freed)
    ctx.notifier.publish(Topic.EVENTS)
    with ctx.records.read() as reader:
        return reader.job(job_id)


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


def _cancel_waiting(tx: Writer, job: Job, caller: Caller, now: float, reason: str | None) -> None:
    tx.move(
        Move(
            job.id,
            JobState.CANCELLED,
            frozenset({job.state}),
            caller.user,
            now,
            detail=reason or "cancelled while waiting",
            set={"outcome": Outcome.CANCELLED, "finished_at": now, "error": reason},
        )
    )


def _ask_to_stop(tx: Writer, job: Job, caller: Caller, now: float, grace: float, reason: str | None) -> float:
    """The seconds of grace that the job gets: of one that stops already, not more than it has left."""
    kill_at = sooner(job.stop_deadline, StopTimes.of("cancel", now, grace).kill_at)
    grace = min(grace, grace_left_s("cancel", now, kill_at))
    detail = f"cancel{f': {reason}' if reason else ''}; SIGKILL after {grace:g} s"
    if job.state is JobState.STOPPING:
        tx.update_job(
            job.id,
            {"stop_reason": "cancel", "stop_deadline": kill_at},
            expect=frozenset({JobState.STOPPING}),
        )
        tx.add_event(job.id, JobState.STOPPING, caller.user, now, detail, attempt=job.attempt)
        return grace
    tx.move(
        Move(
            job.id,
            JobState.STOPPING,
            frozenset({job.state}),
            caller.user,
            now,
            detail=detail,
            attempt=job.attempt,
            token=job.token,
            set={"stop_reason": "cancel", "stop_deadline": kill_at},
        )
    )
    return grace

"""Retry by hand: a failed or cancelled job goes back in line, same id, attempt numbers going on."""

from __future__ import annotations

from gpuq.domain import failpoints
from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.states import JobState
from gpuq.engine.access import require_owner
from gpuq.engine.actions.bulk import ActionTransaction, BulkAction, run_one
from gpuq.engine.context import ActionContext
from gpuq.engine.hot.ranking import ahead, ranking
from gpuq.engine.outcome.dependents import still_open
from gpuq.errors import Refused, WrongState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.records import Move


def retry(ctx: ActionContext, job_id: int, caller: Caller) -> Job:
    """Retries are counted anew and the job stands where one submitted now would stand. Leaves the dead-letter
    queue. Raises NotFound, Forbidden, WrongState, Refused (its `--key` has meanwhile been taken)."""
    return run_one(ctx, job_id, caller, RETRY)


def _retry(step: ActionTransaction, job: Job) -> JobState:
    tx = step.tx
    require_owner(job, step.caller, "retry")
    if job.state not in {JobState.FAILED, JobState.CANCELLED}:
        raise WrongState(f"job {job.id} is {job.state}; only a failed or cancelled job can be retried")
    if step.ctx.strays is not None:
        step.ctx.strays.refuse(job.id)
    if job.key is not None and (other := tx.job_with_key(job.user, job.key)) is not None:
        raise Refused(f"job {other} carries the key {job.key!r} now", hint=f"`gpuq show {other}`")
    target = JobState.BLOCKED if still_open(tx, job.id) else JobState.QUEUED
    rule = ranking(step.ctx, tx)
    place = rule.score(job.priority, step.now, job.time_limit_s, ahead(tx, rule, job.user))
    tx.move(
        Move(
            job.id,
            target,
            frozenset({job.state}),
            step.caller.user,
            step.now,
            detail=f"retried by {step.caller.user}",
            set={"score": place, "retries_used": 0, "lost_count": 0},
            seen=(job.state, job.attempt, job.token),
        )
    )
    tx.remove_dead_letter(job.id)
    if target is JobState.QUEUED:
        step.ready.append(QueueEntry(job.id, job.gpus, place))
    return target


def _committed() -> None:
    failpoints.point("retry.committed")


RETRY = BulkAction(_retry, committed=_committed)

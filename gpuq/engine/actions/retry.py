"""Retry by hand: a failed or cancelled job goes back in line, same id, attempt numbers going on."""

from __future__ import annotations

from collections.abc import Sequence

from gpuq.domain import failpoints
from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.priority import Ranking
from gpuq.domain.states import JobState
from gpuq.engine.access import require_owner
from gpuq.engine.actions.bulk import ActionTransaction, BulkAction, run_one
from gpuq.engine.context import ActionContext
from gpuq.engine.hot.ranking import ahead, ranking
from gpuq.engine.outcome.dependents import is_open
from gpuq.errors import Refused, WrongState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.records import Move


def retry(ctx: ActionContext, job_id: int, caller: Caller) -> Job:
    """Retries are counted anew and the job stands where one submitted now would stand. Leaves the dead-letter
    queue. Raises NotFound, Forbidden, WrongState, Refused (its `--key` has meanwhile been taken; its secrets are
    gone)."""
    return run_one(ctx, job_id, caller, RETRY)


def _retry(step: ActionTransaction, job: Job) -> JobState:
    tx = step.tx
    require_owner(job, step.caller, "retry")
    if job.state not in {JobState.FAILED, JobState.CANCELLED}:
        raise WrongState(
            f"job {job.id} is {job.state}; only a failed or cancelled job can be retried",
            hint=f"`gpuq submit --like {job.id}` queues it once more" if job.state is JobState.COMPLETED else None,
        )
    if step.ctx.strays is not None:
        step.ctx.strays.refuse(job.id)
    if job.id in step.without_secrets:
        raise Refused(
            f"the secrets of job {job.id} were deleted with its end, so it cannot run as it did",
            hint=f"`gpuq submit --like {job.id}` queues it anew, with the secrets of your environment now",
        )
    if job.key is not None:
        other = step.keys.get((job.user, job.key)) or tx.job_with_key(job.user, job.key)
        if other is not None:
            raise Refused(f"job {other} carries the key {job.key!r} now", hint=f"`gpuq show {other}`")
        step.keys[job.user, job.key] = job.id
    # One that it waited for may have been retried before it, in this very step.
    waits = any(is_open(one, step.states) for one in step.waits_for.get(job.id, ()))
    target = JobState.BLOCKED if waits else JobState.QUEUED
    rule, waiting = _line(step, job.user)
    place = rule.score(job.priority, step.now, job.time_limit_s, waiting)
    step.move(
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
    if target is JobState.QUEUED:
        step.ready.append(QueueEntry(job.id, job.gpus, place))
    return target


def _line(step: ActionTransaction, user: str) -> tuple[Ranking, int]:
    """The rule of the line, and how many jobs of that user wait, those that this step has brought back included."""
    if user not in step.lines:
        rule = ranking(step.ctx, step.tx)
        step.lines[user] = rule, ahead(step.tx, rule, user)
    rule, before = step.lines[user]
    step.lines[user] = rule, before + 1 if rule.spacing_s else 0
    return rule, before


def _read(step: ActionTransaction, jobs: Sequence[Job]) -> None:
    step.without_secrets = step.tx.without_secrets([job.id for job in jobs])
    step.waits_for = step.tx.dependencies_of([job.id for job in jobs])


def _written(step: ActionTransaction) -> None:
    step.tx.remove_dead_letters([move.job_id for move in step.moves])


def _committed() -> None:
    failpoints.point("retry.committed")


RETRY = BulkAction(_retry, committed=_committed, prepare=_read, written=_written)

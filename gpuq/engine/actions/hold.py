"""Hold and release: taking a waiting job out of line and putting it back at its own place."""

from __future__ import annotations

from collections.abc import Sequence

from gpuq.domain.caller import Caller
from gpuq.domain.eligibility import begin_time, waiting_state
from gpuq.domain.job import Job
from gpuq.domain.states import WAITING, JobState
from gpuq.engine.access import require_owner
from gpuq.engine.actions.bulk import ActionTransaction, BulkAction, run_one
from gpuq.engine.context import ActionContext
from gpuq.engine.outcome.dependents import is_open
from gpuq.errors import Forbidden, WrongState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import Move


def hold(ctx: ActionContext, job_id: int, caller: Caller) -> Job:
    """Holding a held job again does nothing. Raises NotFound, Forbidden, WrongState."""
    return run_one(ctx, job_id, caller, HOLD)


def release(ctx: ActionContext, job_id: int, caller: Caller) -> Job:
    """Raises NotFound, Forbidden (also when an administrator holds it), WrongState."""
    return run_one(ctx, job_id, caller, RELEASE)


def _hold(step: ActionTransaction, job: Job) -> JobState:
    caller = step.caller
    require_owner(job, caller, "hold")
    if job.state not in WAITING:
        raise WrongState(f"job {job.id} is {job.state}; only a waiting job can be held")
    if job.state is JobState.HELD:
        return job.state
    by = "user" if caller.user == job.user else "admin"
    step.move(
        Move(
            job.id,
            JobState.HELD,
            frozenset({job.state}),
            caller.user,
            step.now,
            detail=f"held by {caller.user}",
            set={"held_by": by},
            seen=(job.state, job.attempt, job.token),
        )
    )
    if job.state is JobState.QUEUED:
        step.gone.append((job.id, job.gpus))
    return JobState.HELD


def _release(step: ActionTransaction, job: Job) -> JobState:
    caller = step.caller
    require_owner(job, caller, "release")
    if job.state is not JobState.HELD:
        raise WrongState(f"job {job.id} is {job.state}, not held")
    if step.ctx.strays is not None:
        step.ctx.strays.refuse(job.id)
    if job.held_by == "admin" and not caller.admin:
        raise Forbidden(f"job {job.id} is held by an administrator", hint="ask whoever looks after this machine")
    begin = begin_time(step.begins.get(job.id))
    waits = any(is_open(one, {}) for one in step.waits_for.get(job.id, ()))
    target = waiting_state(waits, begin, step.now)
    step.move(
        Move(
            job.id,
            target,
            frozenset({JobState.HELD}),
            caller.user,
            step.now,
            detail=f"released by {caller.user}",
            set={"eligible_at": begin} if target is JobState.DELAYED else {},
            seen=(job.state, job.attempt, job.token),
        )
    )
    if target is JobState.QUEUED:
        step.ready.append(QueueEntry(job.id, job.gpus, job.score))
    elif target is JobState.DELAYED:
        step.topics.add(Topic.DELAYED)
    return target


def _read(step: ActionTransaction, jobs: Sequence[Job]) -> None:
    held = [job.id for job in jobs if job.state is JobState.HELD]
    step.begins = step.tx.begins(held)
    step.waits_for = step.tx.dependencies_of(held)


HOLD = BulkAction(_hold, at_once=True)
RELEASE = BulkAction(_release, prepare=_read)

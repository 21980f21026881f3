"""Changing waiting jobs: update and top."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.spec import JobSpec, usage_error
from gpuq.domain.states import WAITING, JobState
from gpuq.engine.access import require_owner, require_priority
from gpuq.engine.actions.bulk import ActionTransaction, BulkAction, run_one
from gpuq.engine.context import ActionContext
from gpuq.engine.hot.queue_hints import publish_jobs, unpublish_jobs
from gpuq.engine.hot.ranking import ranking
from gpuq.engine.intake.constraints import check_fits, require_honest_limit
from gpuq.engine.intake.request_size import check_lengths
from gpuq.errors import UsageError, WrongState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic

# Seconds before the user's own first job: more than a float's step at the size of a score, and so little that there is
# room for thousands of moves before the job of somebody else who came a second earlier.
_STEP_S = 2.0**-12

# Fields of a submission that may change while a job waits.
CHANGEABLE = (
    "priority",
    "time_limit_s",
    "name",
    "group",
    "max_retries",
    "gpus",
    "gpu_mem_mb",
    "gpu_model",
    "gpu_ids",
    "preemptible",
    "signal",
    "kill_grace_s",
)


def update(ctx: ActionContext, job_id: int, caller: Caller, changes: Mapping[str, Any]) -> Job:
    """`changes` has field names of a submission. A new priority or time limit gives the job the place that it
    would have had with it from the start. Raises UsageError, TooLarge, Constraint, NotFound, Forbidden, WrongState."""
    unknown = [name for name in changes if name not in CHANGEABLE]
    if unknown:
        raise UsageError(f"cannot change {unknown[0]!r} of a job", hint="can be changed: " + ", ".join(CHANGEABLE))
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        job = tx.job(job_id)
        require_owner(job, caller, "change")
        if job.state not in WAITING:
            raise WrongState(f"job {job_id} is {job.state}; only a waiting job can be changed")
        old, _, _ = tx.spec(job_id)
        try:
            spec = JobSpec.model_validate({**old.model_dump(), **changes})
        except ValidationError as error:
            raise usage_error(error) from None
        _require_rights(ctx, caller, old, spec)
        check_lengths(spec)
        check_fits(ctx, [spec])
        values: dict[str, Any] = {name: getattr(spec, name) for name in changes}
        values["spec"] = spec
        if "max_retries" in changes and spec.max_retries is None:
            values["max_retries"] = ctx.settings.default_max_retries
        if "name" in changes and spec.name is None:
            raise UsageError("name: a job cannot lose its name")
        place = job.score
        if {"priority", "time_limit_s"} & set(changes):
            rule = ranking(ctx, tx)
            place = rule.score(spec.priority, job.submitted_at, spec.time_limit_s)
            # One that was spaced behind others of its user stays so.
            place += max(0.0, job.score - rule.score(job.priority, job.submitted_at, job.time_limit_s))
            values["score"] = place
        tx.update_job(job_id, values, expect=frozenset({job.state}))
        told = ", ".join(f"{name} = {value}" for name, value in changes.items())
        tx.add_event(job_id, job.state, caller.user, now, f"changed: {told}")
    _move_in_line(ctx, job, QueueEntry(job_id, spec.gpus, place))
    with ctx.records.read() as reader:
        return reader.job(job_id)


def _require_rights(ctx: ActionContext, caller: Caller, old: JobSpec, new: JobSpec) -> None:
    """Of what an administrator may have given the job, the owner keeps what he does not change."""
    if new.priority is not old.priority:
        require_priority(ctx.settings.user_priority, caller, new.priority)
    if (new.time_limit_s, new.kill_grace_s) != (old.time_limit_s, old.kill_grace_s):
        require_honest_limit(ctx, caller, new)


def top(ctx: ActionContext, job_id: int, caller: Caller) -> Job:
    """An administrator moves a job to the front of its priority, its owner before his own other jobs of that priority
    and past nobody else's. Raises NotFound, Forbidden, WrongState."""
    return run_one(ctx, job_id, caller, TOP)


def _top(step: ActionTransaction, job: Job) -> JobState:
    tx, caller = step.tx, step.caller
    require_owner(job, caller, "move")
    if job.state not in WAITING:
        raise WrongState(f"job {job.id} is {job.state}; only a waiting job can be moved")
    user = None if caller.admin else job.user
    # Looked for once a transaction: to find the first of a long line takes milliseconds.
    front = step.fronts.get((job.priority, user)) or tx.front(job.priority, user=user)
    if front is None or front[1] == job.id:
        return job.state
    if user is None:
        # One second earlier than the first: far more than a float's step at this size, so never a tie.
        place, told = front[0] - 1.0, "moved to the front of its priority"
    else:
        place, told = _before_own(tx.before(*front, user), front, job), f"moved before the other jobs of {user}"
        if (place, job.id) >= (job.score, job.id):
            return job.state
    tx.update_job(job.id, {"score": place}, expect=frozenset({job.state}))
    step.fronts[job.priority, user] = min(front, (place, job.id))
    tx.add_event(job.id, job.state, caller.user, step.now, told)
    if job.state is JobState.QUEUED:
        step.topics.add(Topic.CHANGED)
        step.ready.append(QueueEntry(job.id, job.gpus, place))
    return job.state


def _before_own(others: tuple[float, int] | None, front: tuple[float, int], job: Job) -> float:
    """A score between the last job of `others` before the user's own first one, and that `front`; both as (score, id).

    Where there is no number between the two (they came at the same moment) the job comes as far forward as it can
    without passing one of the others.
    """
    if others is None:
        return front[0] - _STEP_S
    place = max(front[0] - _STEP_S, (others[0] + front[0]) / 2)
    if others[0] < place < front[0]:
        return place
    return others[0] if job.id > others[1] else math.nextafter(others[0], math.inf)


TOP = BulkAction(_top)


def _move_in_line(ctx: ActionContext, before: Job, after: QueueEntry) -> None:
    if before.state is JobState.QUEUED:
        if before.gpus != after.gpus:
            unpublish_jobs(ctx, [(before.id, before.gpus)])
        # What the agent remembers of the job is out of date before the member shows up again.
        ctx.notifier.publish(Topic.CHANGED)
        publish_jobs(ctx, [after])
    ctx.notifier.publish(Topic.EVENTS)

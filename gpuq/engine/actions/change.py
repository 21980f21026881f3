"""Changing waiting jobs: update and top."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.limits import LimitBook
from gpuq.domain.priority import Ranking
from gpuq.domain.spec import JobSpec, usage_error
from gpuq.domain.states import WAITING, JobState
from gpuq.engine.access import require_owner, require_priority
from gpuq.engine.actions.bulk import ActionTransaction, BulkAction, run_one
from gpuq.engine.context import ActionContext
from gpuq.engine.hot.ranking import ranking
from gpuq.engine.intake.constraints import check_fits, require_honest_limit
from gpuq.engine.intake.limits import require_allowed_time
from gpuq.engine.intake.request_size import check_lengths
from gpuq.engine.limit_values import read_limits
from gpuq.errors import GpuqError, UsageError, WrongState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import Change

# Seconds before the user's own first job: more than a float's step at the size of a score, and so little that there is
# room for thousands of moves before the job of somebody else who came a second earlier.
_STEP_S = 2.0**-12

# Made once: `json.dumps` with arguments builds an encoder for every call.
json_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

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
    return run_one(ctx, job_id, caller, updating(changes))


def updating(changes: Mapping[str, Any]) -> BulkAction:
    """`update` as a verb for many jobs. Raises UsageError for a field that cannot be changed."""
    unknown = [name for name in changes if name not in CHANGEABLE]
    if unknown:
        raise UsageError(f"cannot change {unknown[0]!r} of a job", hint="can be changed: " + ", ".join(CHANGEABLE))
    change = _Update(changes)
    return BulkAction(change.act, prepare=change.read)


class _Update:
    """One set of changes, for one transaction at a time. Jobs with the same submission (the elements of an array) are
    judged once."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        self._changes = changes
        self._told = "changed: " + ", ".join(f"{name} = {value}" for name, value in changes.items())
        self._stored: dict[int, str] = {}
        self._judged: dict[str, tuple[JobSpec, str] | GpuqError] = {}
        self._rule: Ranking | None = None
        self._book: LimitBook | None = None

    def read(self, step: ActionTransaction, jobs: Sequence[Job]) -> None:
        """What the jobs asked for, for all of them at once."""
        self._judged.clear()
        self._stored = step.tx.stored_specs([job.id for job in jobs if job.state in WAITING])
        self._rule = ranking(step.ctx, step.tx) if {"priority", "time_limit_s"} & set(self._changes) else None
        self._book = read_limits(step.tx, {}) if "time_limit_s" in self._changes and not step.caller.admin else None

    def act(self, step: ActionTransaction, job: Job) -> JobState:
        """Raises what `update` raises."""
        require_owner(job, step.caller, "change")
        if job.state not in WAITING:
            raise WrongState(f"job {job.id} is {job.state}; only a waiting job can be changed")
        spec, text = self._spec(step, self._stored[job.id])
        if self._book is not None:
            require_allowed_time(self._book, job.user, spec)
        values: dict[str, Any] = {
            name: getattr(spec, name) for name in self._changes if name not in {"signal", "kill_grace_s"}
        }
        if "max_retries" in self._changes and spec.max_retries is None:
            values["max_retries"] = step.ctx.settings.default_max_retries
        place = job.score
        if (rule := self._rule) is not None:
            place = rule.score(spec.priority, job.submitted_at, spec.time_limit_s)
            # One that was spaced behind others of its user stays so.
            place += max(0.0, job.score - rule.score(job.priority, job.submitted_at, job.time_limit_s))
            values["score"] = place
        step.changes.append(Change(job.id, job.state, step.caller.user, step.now, self._told, set=values, spec=text))
        if job.state is JobState.QUEUED:
            if job.gpus != spec.gpus:
                step.gone.append((job.id, job.gpus))
            step.topics.add(Topic.CHANGED)
            step.ready.append(QueueEntry(job.id, spec.gpus, place))
        return job.state

    def _spec(self, step: ActionTransaction, stored: str) -> tuple[JobSpec, str]:
        """The submission as it is from now on, and its text."""
        judged = self._judged.get(stored)
        if judged is None:
            try:
                judged = self._judge(step, stored)
            except GpuqError as error:
                judged = error
            self._judged[stored] = judged
        if isinstance(judged, GpuqError):
            raise judged
        return judged

    def _judge(self, step: ActionTransaction, stored: str) -> tuple[JobSpec, str]:
        ctx = step.ctx
        # The stored text is changed field by field, so that what another release wrote there stays.
        kept = json.loads(stored)
        old = JobSpec.from_stored(kept)
        try:
            spec = JobSpec.model_validate({**old.__dict__, **self._changes})
        except ValidationError as error:
            raise usage_error(error) from None
        _require_rights(ctx, step.caller, old, spec)
        check_lengths(spec)
        check_fits(ctx, [spec])
        if "name" in self._changes and spec.name is None:
            raise UsageError("name: a job cannot lose its name")
        kept |= {name: getattr(spec, name) for name in self._changes}
        if "priority" in self._changes:
            kept["priority"] = int(spec.priority)
        return spec, json_text(kept)


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
    line = job.priority, user
    # Looked for once a transaction: to find the first of a long line takes milliseconds.
    if line not in step.fronts and (first := tx.front(job.priority, user=user)) is not None:
        step.fronts[line] = first
    front = step.fronts.get(line)
    if front is None or front[1] == job.id:
        return job.state
    if user is None:
        # One second earlier than the first: far more than a float's step at this size, so never a tie.
        place, told = front[0] - 1.0, "moved to the front of its priority"
    else:
        if line not in step.before:
            # Nobody else's job comes between it and the front: whatever this step moves is the user's own.
            step.before[line] = tx.before(*front, user)
        place, told = _before_own(step.before[line], front, job), f"moved before the other jobs of {user}"
        if (place, job.id) >= (job.score, job.id):
            return job.state
    step.changes.append(Change(job.id, job.state, caller.user, step.now, told, set={"score": place}))
    step.fronts[line] = min(front, (place, job.id))
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

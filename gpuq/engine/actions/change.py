"""Changing waiting jobs: update and top. Of a job that runs, what may be changed is in `change_running`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from gpuq.domain import failpoints
from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.limits import LimitBook
from gpuq.domain.priority import Ranking
from gpuq.domain.spec import JobSpec, usage_error
from gpuq.domain.states import WAITING, JobState
from gpuq.engine.access import require_owner, require_priority
from gpuq.engine.actions.bulk import ActionResult, ActionTransaction, BulkAction, run_many, run_one
from gpuq.engine.actions.change_running import (
    CHANGEABLE_RUNNING,
    CHANGEABLE_STATES,
    Delays,
    Longer,
    change_running,
    may_be_longer,
)
from gpuq.engine.actions.new_limit import TIME_ADD, check_time_add, resolved
from gpuq.engine.context import ActionContext
from gpuq.engine.hot.ranking import ranking
from gpuq.engine.intake.constraints import check_fits, require_honest_limit, require_room_in_limits
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


def update(
    ctx: ActionContext, job_id: int, caller: Caller, changes: Mapping[str, Any], delays: Delays = lambda limits: None
) -> Job:
    """`changes` has field names of a submission, or `time_add_s`. A new priority or time limit gives the job the place
    that it would have had with it from the start; a running one has it the next time. `delays`: whom running jobs that
    take longer would move back, as the forecast says. Raises UsageError, TooLarge, Constraint, NotFound, Forbidden,
    WrongState, Refused. On return the supervisor of a running job was told, unless its records are out of order."""
    longer = may_be_longer(ctx, [job_id], caller, _checked(changes), delays)
    return run_one(ctx, job_id, caller, updating(changes, longer))


def update_many(
    ctx: ActionContext, ids: Sequence[int], caller: Caller, changes: Mapping[str, Any], delays: Delays
) -> list[ActionResult]:
    """As `update` for each. Raises UsageError, Unavailable."""
    longer = may_be_longer(ctx, ids, caller, _checked(changes), delays)
    return run_many(ctx, ids, caller, updating(changes, longer))


def updating(changes: Mapping[str, Any], longer: Mapping[int, Longer] | None = None) -> BulkAction:
    """`update` as a verb for many jobs. `longer`: what was found of the running ones that are to run longer, by id.
    Raises UsageError for a field that cannot be changed."""
    change = _Update(_checked(changes), longer or {})
    return BulkAction(change.act, prepare=change.read, committed=_committed)


def _checked(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    unknown = [name for name in changes if name not in CHANGEABLE and name != TIME_ADD]
    if unknown:
        known = ", ".join((*CHANGEABLE, TIME_ADD))
        raise UsageError(f"cannot change {unknown[0]!r} of a job", hint=f"can be changed: {known}")
    check_time_add(changes)
    return changes


def _committed() -> None:
    failpoints.point("update.committed")


_NO_LIMITS = LimitBook()


class _Update:
    """One set of changes, for one transaction at a time. Jobs with the same submission (the elements of an array) are
    judged once."""

    def __init__(self, changes: Mapping[str, Any], longer: Mapping[int, Longer]) -> None:
        self._changes = changes
        self._longer = longer
        # As fields of a submission.
        self._names = [
            *(name for name in changes if name != TIME_ADD),
            *(["time_limit_s"] if TIME_ADD in changes else []),
        ]
        self._stored: dict[int, str] = {}
        self._judged: dict[str, tuple[JobSpec, JobSpec, str] | GpuqError] = {}
        self._rule: Ranking | None = None
        self._book = _NO_LIMITS

    def read(self, step: ActionTransaction, jobs: Sequence[Job]) -> None:
        """What the jobs asked for, for all of them at once."""
        self._judged.clear()
        states = WAITING | CHANGEABLE_STATES
        self._stored = step.tx.stored_specs([job.id for job in jobs if job.state in states])
        self._rule = ranking(step.ctx, step.tx) if {"priority", "time_limit_s"} & set(self._names) else None
        self._book = read_limits(step.tx, {}) if {"gpus", "time_limit_s"} & set(self._names) else _NO_LIMITS

    def act(self, step: ActionTransaction, job: Job) -> JobState:
        """Raises what `update` raises."""
        require_owner(job, step.caller, "change")
        self._require_changeable(job)
        old, spec, text = self._spec(step, self._stored[job.id])
        place = self._place(job, spec)
        if job.state in CHANGEABLE_STATES:
            change_running(step, job, self._names, (old, spec, text), place, self._longer.get(job.id))
            return job.state
        self._require_within_limits(step, job, old, spec)
        values: dict[str, Any] = {
            name: getattr(spec, name) for name in self._names if name not in {"signal", "kill_grace_s"}
        }
        if "max_retries" in self._names and spec.max_retries is None:
            values["max_retries"] = step.ctx.settings.default_max_retries
        if self._rule is not None:
            values["score"] = place
        told = "changed: " + ", ".join(f"{name} = {self._shown(spec, name)}" for name in self._names)
        step.changes.append(Change(job.id, job.state, step.caller.user, step.now, told, set=values, spec=text))
        if job.state is JobState.QUEUED:
            if job.gpus != spec.gpus:
                step.gone.append((job.id, job.gpus))
            step.topics.add(Topic.CHANGED)
            step.ready.append(QueueEntry(job.id, spec.gpus, place))
        return job.state

    def _require_changeable(self, job: Job) -> None:
        if job.state in WAITING:
            return
        if job.state not in CHANGEABLE_STATES:
            raise WrongState(f"job {job.id} is {job.state}; only a job that waits or runs can be changed")
        fixed = [name for name in self._changes if name not in CHANGEABLE_RUNNING]
        if fixed:
            known = ", ".join(CHANGEABLE_RUNNING)
            raise WrongState(
                f"job {job.id} is {job.state}; its {fixed[0]} can be changed only while it waits",
                hint=f"while it runs: {known}",
            )

    def _require_within_limits(self, step: ActionTransaction, job: Job, old: JobSpec, new: JobSpec) -> None:
        """Of a waiting job; of a running one that is to run longer, `may_be_longer` has asked."""
        if new.gpus != old.gpus:
            require_room_in_limits(step.ctx, self._book, job.user, new)
        if "time_limit_s" in self._names and not step.caller.admin:
            require_allowed_time(self._book, job.user, new.group, new.time_limit_s)

    def _shown(self, spec: JobSpec, name: str) -> Any:
        return self._changes[name] if name in self._changes else getattr(spec, name)

    def _place(self, job: Job, spec: JobSpec) -> float:
        rule = self._rule
        if rule is None:
            return job.score
        place = rule.score(spec.priority, job.submitted_at, spec.time_limit_s)
        # One that was spaced behind others of its user stays so.
        return place + max(0.0, job.score - rule.score(job.priority, job.submitted_at, job.time_limit_s))

    def _spec(self, step: ActionTransaction, stored: str) -> tuple[JobSpec, JobSpec, str]:
        """The submission as it was, as it is from now on, and the text of that."""
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

    def _judge(self, step: ActionTransaction, stored: str) -> tuple[JobSpec, JobSpec, str]:
        ctx = step.ctx
        # The stored text is changed field by field, so that what another release wrote there stays.
        kept = json.loads(stored)
        old = JobSpec.from_stored(kept)
        try:
            spec = JobSpec.model_validate({**old.__dict__, **resolved(self._changes, old.time_limit_s)})
        except ValidationError as error:
            raise usage_error(error) from None
        _require_rights(ctx, step.caller, old, spec)
        check_lengths(spec)
        check_fits(ctx, [spec])
        if "name" in self._changes and spec.name is None:
            raise UsageError("name: a job cannot lose its name")
        kept |= {name: getattr(spec, name) for name in self._names}
        if "priority" in self._changes:
            kept["priority"] = int(spec.priority)
        return old, spec, json_text(kept)


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

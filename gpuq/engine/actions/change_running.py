"""What may be changed of a job that starts or runs: its limits, its name and group, and its priority for the next time.

Its supervisor ends it at its time limit, so it is told after the commit. A shorter limit is its owner's to ask for. A
longer one takes from those who wait: it is an administrator's, and its owner's while the forecast moves nobody back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.quantities import duration_text
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.domain.stopping import effective_grace_s
from gpuq.engine.access import may_act_on
from gpuq.engine.actions.bulk import ActionTransaction
from gpuq.engine.actions.longer_limits import Bounds
from gpuq.engine.actions.new_limit import LIMIT_FIELDS, new_limit_s
from gpuq.engine.attempt.limit_order import LimitOrder
from gpuq.engine.context import ActionContext
from gpuq.errors import GpuqError, Refused, WrongState
from gpuq.ports.notify import Topic
from gpuq.ports.records import Change, JobFilter
from gpuq.scheduler.longer import Delay

CHANGEABLE_RUNNING = ("priority", "time_limit_s", "time_add_s", "name", "group", "kill_grace_s")
CHANGEABLE_STATES = frozenset({JobState.STARTING, JobState.RUNNING})
# Running jobs of one request that are made longer, each of which takes a forecast.
MOST_LONGER = 50
# A supervisor needs so long to hear of a limit that it is about to reach.
_TOO_LATE_S = 1.0

# By job id, the limits that running jobs have, and would have: whom that moves back first.
Delays = Callable[[Mapping[int, tuple[float | None, float | None]]], Delay | None]


@dataclass(frozen=True, slots=True)
class Longer:
    """What was found of one attempt that is to run longer, before the transaction: its limits (before, then), and what
    speaks against it."""

    attempt: int
    limits: tuple[float | None, float | None]
    error: GpuqError | None


def is_longer(before_s: float | None, then_s: float | None) -> bool:
    """None: no limit."""
    return before_s is not None and (then_s is None or then_s > before_s)


def may_be_longer(
    ctx: ActionContext, ids: Collection[int], caller: Caller, changes: Mapping[str, Any], delays: Delays
) -> dict[int, Longer]:
    """For each running job of the caller's that is to run longer, whether it may: one after the other, each with those
    before it. Administrators need not be asked. Forecasts take their time, so this is done before the transaction."""
    found: dict[int, Longer] = {}
    if caller.admin or not LIMIT_FIELDS & set(changes):
        return found
    with ctx.records.read() as tx:
        jobs = tx.jobs(JobFilter(ids=tuple(ids), states=CHANGEABLE_STATES))
        bounds = Bounds(ctx, tx, jobs)
    granted: dict[int, tuple[float | None, float | None]] = {}
    for job in jobs:
        try:
            limits = job.time_limit_s, new_limit_s(changes, job.time_limit_s)
        except GpuqError:
            # It is told in its turn.
            continue
        if not is_longer(*limits) or not may_act_on(job.user, job.uid, caller):
            continue
        if len(found) >= MOST_LONGER:
            error: GpuqError | None = Refused(
                f"at most {MOST_LONGER} running jobs can be made longer at once", hint="ask for the others afterwards"
            )
        else:
            error = bounds.refusal(job, changes.get("group", job.group), limits)
            error = error or _refusal(job, delays({**granted, job.id: limits}))
        if error is None:
            granted[job.id] = limits
        found[job.id] = Longer(job.attempt, limits, error)
    return found


def _refusal(job: Job, delay: Delay | None) -> Refused | None:
    if delay is None:
        return None
    later = "could not be told when it starts any more"
    if delay.start_then is not None:
        later = f"would start {duration_text(delay.start_then - delay.start_now)} later"
    return Refused(
        f"job {job.id} cannot run longer at the cost of those who wait: job {delay.job_id} {later}",
        hint="ask for less, or ask an administrator of this queue",
    )


def change_running(
    step: ActionTransaction,
    job: Job,
    names: Collection[str],
    spec: tuple[JobSpec, JobSpec, str],
    score: float,
    longer: Longer | None,
) -> None:
    """Decides it, in the transaction. `names`: fields of a submission; `spec`: the submission as it was, as it is to
    be, and the text of that; `longer`: what `may_be_longer` found. Raises WrongState, Refused."""
    old, new, text = spec
    limits_change = (old.time_limit_s, old.kill_grace_s) != (new.time_limit_s, new.kill_grace_s)
    if limits_change:
        _require_hearing(step, job)
    if is_longer(old.time_limit_s, new.time_limit_s):
        _require_time_left(step, job)
        if not step.caller.admin:
            _require_granted(job, (old.time_limit_s, new.time_limit_s), longer)
    told = "changed while it runs: " + ", ".join(
        f"{name} from {_shown(getattr(old, name))} to {_shown(getattr(new, name))}" for name in names
    )
    values = {name: getattr(new, name) for name in names if name != "kill_grace_s"} | {"score": score}
    step.changes.append(
        Change(job.id, job.state, step.caller.user, step.now, told, attempt=job.attempt, set=values, spec=text)
    )
    if limits_change:
        grace_s = new.kill_grace_s
        if "kill_grace_s" in names:
            grace_s = effective_grace_s(grace_s, step.ctx.settings.kill_grace)
        step.limits.append(LimitOrder(job.id, _run_dir(step, job), job.token or "", new.time_limit_s, grace_s))
    step.topics.add(Topic.LIVE)


def _require_hearing(step: ActionTransaction, job: Job) -> None:
    try:
        known = step.ctx.launcher.limits(_run_dir(step, job), job.token or "")
    except OSError as error:
        raise Refused(
            f"the records of job {job.id} cannot be read: {error.strerror or error}", hint="`gpuq doctor` looks into it"
        ) from None
    if known is not None and not known.heard:
        raise WrongState(
            f"job {job.id} was started by an earlier release of gpuq, and its limits cannot be changed while it runs",
            hint=f"`gpuq requeue {job.id}` puts it back in line; a new attempt can be changed",
        )


def _require_time_left(step: ActionTransaction, job: Job) -> None:
    if job.time_limit_s is not None and job.started_at is not None:
        left_s = job.started_at + job.time_limit_s - step.now
        if left_s < _TOO_LATE_S:
            raise WrongState(f"job {job.id} has reached its time limit", hint=f"`gpuq show {job.id}` tells its end")


def _require_granted(job: Job, limits: tuple[float | None, float | None], longer: Longer | None) -> None:
    if longer is None or (longer.attempt, longer.limits) != (job.attempt, limits):
        raise WrongState(
            f"job {job.id} changed in the same moment", hint="ask again: `gpuq status` shows how it stands now"
        )
    if longer.error is not None:
        raise longer.error


def _run_dir(step: ActionTransaction, job: Job) -> str:
    return job.run_dir or step.ctx.run_dir(job.id, job.attempt)


def _shown(value: object) -> str:
    label = getattr(value, "label", None)
    if label is not None:
        return str(label)
    return "none" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)

"""Requeue by hand: a running job is stopped, as if it were preempted, and goes back in line; no retry is used."""

from __future__ import annotations

from collections.abc import Sequence

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.states import ACTIVE, FINAL, JobState
from gpuq.domain.stopping import StopTimes, effective_grace_s, notice_of
from gpuq.engine.access import require_owner
from gpuq.engine.actions.bulk import ActionTransaction, BulkAction, Stop, run_one
from gpuq.engine.context import ActionContext
from gpuq.errors import WrongState
from gpuq.ports.records import Move


def requeue(ctx: ActionContext, job_id: int, caller: Caller) -> Job:
    """The job is given its `--signal` and its grace first. On return the request is durable. Raises NotFound,
    Forbidden, WrongState."""
    return run_one(ctx, job_id, caller, requeueing())


def requeueing() -> BulkAction:
    """`requeue` as a verb for many jobs."""
    verb = _Requeue()
    return BulkAction(verb.act, prepare=verb.read)


class _Requeue:
    """For one transaction at a time: the signal and the grace of a job stand in its submission."""

    def read(self, step: ActionTransaction, jobs: Sequence[Job]) -> None:
        self._specs = step.tx.specs([job.id for job in jobs if job.state in ACTIVE])

    def act(self, step: ActionTransaction, job: Job) -> JobState:
        """Raises Forbidden, WrongState."""
        require_owner(job, step.caller, "requeue")
        if job.state is not JobState.RUNNING:
            hint = f"`gpuq retry {job.id}` queues it again" if job.state in FINAL else f"see `gpuq why {job.id}`"
            raise WrongState(f"job {job.id} is {job.state}; only a running job can be put back in line", hint=hint)
        spec = self._specs[job.id]
        grace = effective_grace_s(spec.kill_grace_s, step.ctx.settings.kill_grace)
        signal, before_s = notice_of(spec.signal)
        times = StopTimes.of("preempt", step.now, grace, before_s)
        step.move(
            Move(
                job.id,
                JobState.STOPPING,
                frozenset({JobState.RUNNING}),
                step.caller.user,
                step.now,
                detail=f"requeued by {step.caller.user}",
                attempt=job.attempt,
                token=job.token,
                set={"stop_reason": "preempt", "stop_deadline": times.kill_at},
                seen=(job.state, job.attempt, job.token),
            )
        )
        run_dir = job.run_dir or step.ctx.run_dir(job.id, job.attempt)
        step.stops.append(Stop(job.id, run_dir, grace, "preempt", signal))
        return JobState.STOPPING

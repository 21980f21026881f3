"""Hold and release: taking a waiting job out of line and putting it back at its own place."""

from __future__ import annotations

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.states import WAITING, JobState
from gpuq.engine.access import require_owner
from gpuq.engine.context import Context
from gpuq.engine.dependents import still_open
from gpuq.engine.hints import offer, withdraw
from gpuq.engine.submit import begin_time, waiting_state
from gpuq.errors import Forbidden, WrongState
from gpuq.ports.hot_queue import Member
from gpuq.ports.records import Move


def hold(ctx: Context, job_id: int, caller: Caller) -> Job:
    """Holding a held job again does nothing. Raises NotFound, Forbidden, WrongState."""
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        job = tx.job(job_id)
        require_owner(job, caller, "hold")
        if job.state not in WAITING:
            raise WrongState(f"job {job_id} is {job.state}; only a waiting job can be held")
        if job.state is JobState.HELD:
            return job
        by = "user" if caller.user == job.user else "admin"
        tx.move(
            Move(
                job_id,
                JobState.HELD,
                frozenset({job.state}),
                caller.user,
                now,
                detail=f"held by {caller.user}",
                set={"held_by": by},
            )
        )
    if job.state is JobState.QUEUED:
        withdraw(ctx, [(job_id, job.gpus)])
    ctx.notifier.publish("events")
    with ctx.records.read() as reader:
        return reader.job(job_id)


def release(ctx: Context, job_id: int, caller: Caller) -> Job:
    """Raises NotFound, Forbidden (also when an administrator holds it), WrongState."""
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        job = tx.job(job_id)
        require_owner(job, caller, "release")
        if job.state is not JobState.HELD:
            raise WrongState(f"job {job_id} is {job.state}, not held")
        if job.held_by == "admin" and not caller.admin:
            raise Forbidden(f"job {job_id} is held by an administrator", hint="ask whoever looks after this machine")
        spec, _, _ = tx.spec(job_id)
        begin = begin_time(spec.begin)
        target = waiting_state(still_open(tx, job_id), begin, now)
        tx.move(
            Move(
                job_id,
                target,
                frozenset({JobState.HELD}),
                caller.user,
                now,
                detail=f"released by {caller.user}",
                set={"eligible_at": begin} if target is JobState.DELAYED else {},
            )
        )
    if target is JobState.QUEUED:
        offer(ctx, [Member(job_id, job.gpus, job.score)])
    elif target is JobState.DELAYED:
        ctx.notifier.publish("delayed")
    ctx.notifier.publish("events")
    with ctx.records.read() as reader:
        return reader.job(job_id)

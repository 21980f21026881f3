"""Retry by hand: a failed or cancelled job goes back in line, same id, attempt numbers going on."""

from __future__ import annotations

from gpuq.domain import faults
from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.states import JobState
from gpuq.engine.access import require_owner
from gpuq.engine.context import Context
from gpuq.engine.dependents import still_open
from gpuq.engine.hints import offer
from gpuq.engine.ranking import ahead, ranking
from gpuq.errors import Refused, WrongState
from gpuq.ports.hot_queue import Member
from gpuq.ports.records import Move


def retry(ctx: Context, job_id: int, caller: Caller) -> Job:
    """Retries are counted anew and the job stands where one submitted now would stand. Leaves the dead-letter
    queue. Raises NotFound, Forbidden, WrongState, Refused (its `--key` has meanwhile been taken)."""
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        job = tx.job(job_id)
        require_owner(job, caller, "retry")
        if job.state not in {JobState.FAILED, JobState.CANCELLED}:
            raise WrongState(f"job {job_id} is {job.state}; only a failed or cancelled job can be retried")
        if job.key is not None and (other := tx.job_with_key(job.user, job.key)) is not None:
            raise Refused(f"job {other} carries the key {job.key!r} now", hint=f"`gpuq show {other}`")
        target = JobState.BLOCKED if still_open(tx, job_id) else JobState.QUEUED
        rule = ranking(ctx, tx)
        place = rule.score(job.priority, now, job.time_limit_s, ahead(tx, rule, job.user))
        tx.move(
            Move(
                job_id,
                target,
                frozenset({job.state}),
                caller.user,
                now,
                detail=f"retried by {caller.user}",
                set={"score": place, "retries_used": 0, "lost_count": 0},
            )
        )
        tx.remove_dead_letter(job_id)
    faults.point("retry.committed")
    if target is JobState.QUEUED:
        offer(ctx, [Member(job_id, job.gpus, place)])
    ctx.notifier.publish("events")
    with ctx.records.read() as reader:
        return reader.job(job_id)

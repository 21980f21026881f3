"""Asking a preemptible job to make room."""

from __future__ import annotations

from gpuq.domain import failpoints
from gpuq.domain.caller import ACTOR
from gpuq.domain.states import JobState
from gpuq.domain.stopping import StopTimes, effective_grace_s, notice_of
from gpuq.engine.attempt.stop_request import try_stop
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.errors import LeaseLost
from gpuq.ports.notify import Topic
from gpuq.ports.records import Move


def preempt(ctx: Context, tracked: TrackedAttempt, beneficiary: int) -> None:
    """`running → stopping` and the request to its supervisor: signal, grace, then back to the queue with the same id
    and checkpoint folder, no retry used."""
    make_yield(ctx, tracked, f"preempted for job {beneficiary}")


def make_yield(ctx: Context, tracked: TrackedAttempt, why: str) -> None:
    """The same for another reason than a job's. Does nothing where it is being stopped, or not running."""
    if tracked.stopping:
        return
    now = ctx.clock.now()
    with ctx.records.read() as reader:
        spec, _, _ = reader.spec(tracked.job.id)
    grace = effective_grace_s(spec.kill_grace_s, ctx.settings.kill_grace)
    signal, before_s = notice_of(spec.signal)
    times = StopTimes.of("preempt", now, grace, before_s)
    try:
        with ctx.records.write() as tx:
            tx.move(
                Move(
                    tracked.job.id,
                    JobState.STOPPING,
                    frozenset({JobState.RUNNING}),
                    ACTOR,
                    now,
                    detail=why,
                    attempt=tracked.number,
                    token=tracked.token,
                    set={"stop_reason": "preempt", "stop_deadline": times.kill_at},
                )
            )
    except LeaseLost:
        return
    failpoints.point("preempt.committed")
    tracked.stopping = True
    try_stop(ctx, tracked.job.id, tracked.run_dir, reason="preempt", grace_s=grace, signal=signal)
    ctx.notifier.publish(Topic.EVENTS)

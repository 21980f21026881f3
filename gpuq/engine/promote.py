"""`delayed → queued` when the time has come."""

from __future__ import annotations

from gpuq.domain import faults
from gpuq.domain.states import JobState
from gpuq.engine.context import Context
from gpuq.engine.hints import offer
from gpuq.errors import WrongState
from gpuq.ports.hot_queue import Member
from gpuq.ports.records import Move

BATCH = 1000


def promote(ctx: Context) -> float | None:
    """Moves all that are due; returns when the next one is (epoch seconds), or None."""
    while True:
        now = ctx.clock.now()
        members: list[Member] = []
        with ctx.records.write() as tx:
            due = tx.due(now, BATCH)
            for job_id in due:
                job = tx.job(job_id)
                try:
                    tx.move(
                        Move(
                            job_id,
                            JobState.QUEUED,
                            frozenset({JobState.DELAYED}),
                            "gpuq",
                            now,
                            detail="its time has come",
                        )
                    )
                except WrongState:
                    continue
                members.append(Member(job_id, job.gpus, job.score))
            following = tx.delayed_until()
        faults.point("promote.committed")
        if members:
            offer(ctx, members)
            ctx.notifier.publish("events")
        if len(due) < BATCH:
            return following

"""`delayed → queued` when the time has come."""

from __future__ import annotations

from gpuq.domain import failpoints
from gpuq.domain.caller import ACTOR
from gpuq.domain.retry import backoff_s
from gpuq.domain.states import JobState
from gpuq.engine.context import MaintenanceContext
from gpuq.engine.hot.queue_hints import publish_jobs
from gpuq.errors import WrongState
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import JobFilter, Move

BATCH = 1000


def promote(ctx: MaintenanceContext) -> float | None:
    """Moves all that are due; returns when the next one is (epoch seconds), or None."""
    while True:
        now = ctx.clock.now()
        entries: list[QueueEntry] = []
        with ctx.records.write() as tx:
            due = tx.due(now, BATCH)
            # Read together: one question for a batch while nobody else can write.
            jobs = {job.id: job for job in tx.jobs(JobFilter(ids=tuple(due)))}
            for job in (jobs[job_id] for job_id in due):
                try:
                    tx.move(
                        Move(
                            job.id,
                            JobState.QUEUED,
                            frozenset({JobState.DELAYED}),
                            ACTOR,
                            now,
                            detail="its time has come",
                            seen=(job.state, job.attempt, job.token),
                        )
                    )
                except WrongState:
                    continue
                entries.append(QueueEntry(job.id, job.gpus, job.score))
            following = tx.delayed_until()
        failpoints.point("promote.committed")
        if entries:
            publish_jobs(ctx, entries)
            ctx.notifier.publish(Topic.EVENTS)
        if len(due) < BATCH:
            return following


def shorten_backoffs(ctx: MaintenanceContext) -> int:
    """After the wall clock was set back: no retry waits longer than its backoff from now. Returns how many were moved.
    `--begin` is a time of day and stays."""
    now = ctx.clock.now()
    delayed = frozenset({JobState.DELAYED})
    with ctx.records.read() as tx:
        waiting = tx.jobs(JobFilter(states=delayed))
    moved = 0
    for job in waiting:
        latest = round(now + backoff_s(max(job.retries_used, job.lost_count, 1), ctx.settings.retry_base, 1.0), 3)
        if not job.attempt or (job.eligible_at or 0.0) <= latest:
            continue
        try:
            with ctx.records.write() as tx:
                tx.update_job(job.id, {"eligible_at": latest}, expect=delayed)
        except WrongState:
            continue
        moved += 1
    return moved

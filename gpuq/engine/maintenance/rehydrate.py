"""Rebuilding the hot store from SQL, and checking now and then that the two agree.

While it is being rebuilt the store is cold: every script answers so, and nothing is scheduled. Order of steps:
note the last event → fill the queue and set leases of live attempts → open → add what became queued meanwhile
(their hints met a cold store). Whoever commits after `open` gives the hint itself, so no job can be missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from gpuq.domain import failpoints
from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.states import JobState
from gpuq.engine.claim.lease_renewal import hold_again
from gpuq.engine.context import Context
from gpuq.engine.hot.cold_store import is_cold
from gpuq.engine.hot.owner import enroll
from gpuq.engine.hot.ranking import enforce
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import JobFilter

log = logging.getLogger(__name__)


def rehydrate(ctx: Context) -> int:
    """Returns how many jobs wait. Raises DatabaseUnavailable or HotStoreUnavailable; the store stays cold then. Raises
    NamespaceTaken when it holds another installation's queue, which stays there."""
    epoch = ctx.new_token()[:12]
    begun = ctx.clock.monotonic()
    with ctx.records.write() as tx:
        tx.set_value(InstallationKey.EPOCH, epoch, ctx.clock.now())
        enforce(ctx, tx)
        owner = enroll(ctx, tx, ctx.new_token())
        last_event = tx.last_event_id()
    ctx.epoch.set(epoch)
    failpoints.point("rehydrate.begun")
    with ctx.records.read() as tx:
        count = ctx.queue.rebuild(_members(tx.queued()), epoch=epoch, owner=owner)
        alive = tx.live_attempts()
    for _, attempt in alive:
        if attempt.gpu_uuids:
            hold_again(ctx, attempt.token, attempt.gpu_uuids, attempt.gpu_mem_mb, attempt.node)
    failpoints.point("rehydrate.rebuilt")
    ctx.queue.open(epoch)
    failpoints.point("rehydrate.opened")
    count += _catch_up(ctx, last_event)
    took = ctx.clock.monotonic() - begun
    log.info("hot store rebuilt in %.2f s: %d jobs wait, %d attempts live", took, count, len(alive))
    ctx.notifier.publish(Topic.QUEUE)
    return count


def _members(rows: Iterator[tuple[int, int, float]]) -> Iterator[QueueEntry]:
    return (QueueEntry(job_id, gpus, score) for job_id, gpus, score in rows)


def _catch_up(ctx: Context, last_event: int) -> int:
    with ctx.records.read() as tx:
        events = tx.events(after_id=last_event)
        ids = sorted({event.job_id for event in events if event.to_state is JobState.QUEUED})
        waiting = tx.waiting(ids)
    ctx.queue.add([QueueEntry(job.id, job.gpus, job.score) for job in waiting.values()])
    return len(waiting)


class Reconciler:
    """Compares how many wait here and there; when they differ twice running, adds what is missing."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._differed = False

    @property
    def in_doubt(self) -> bool:
        """Whether the last run found a difference. It may be a change under way, so only the next run acts on it."""
        return self._differed

    def run(self) -> None:
        """Rebuilds a cold hot queue, and fills one up whose number of jobs has differed from SQL's twice in a row.
        Once may be a job on its way between the two."""
        ctx = self._ctx
        if is_cold(ctx):
            rehydrate(ctx)
            return
        with ctx.records.read() as tx:
            in_sql = tx.count(JobFilter(states=frozenset({JobState.QUEUED})))
        in_redis = sum(ctx.queue.sizes().values())
        if in_sql == in_redis:
            self._differed = False
        elif self._differed:
            log.warning("%d jobs are queued, the hot queue has %d: filling it up", in_sql, in_redis)
            self.fill_up()
            self._differed = False
        else:
            self._differed = True

    def fill_up(self) -> None:
        """Adds every queued job; those that stand there stay where they are. Raises HotStoreUnavailable."""
        batch: list[QueueEntry] = []
        with self._ctx.records.read() as tx:
            for entry in _members(tx.queued()):
                batch.append(entry)
                if len(batch) == 5000:
                    self._ctx.queue.add(batch)
                    batch = []
        self._ctx.queue.add(batch)
        self._ctx.notifier.publish(Topic.QUEUE)

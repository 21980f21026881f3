"""Maintenance on APScheduler: rehydration, reconcile, reaper, promotion, retention, safeguard, clean. No cron needed.

Every task notes in SQL when it last started, succeeded and failed; `gpuq doctor` and `/readyz` show it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobExecutionEvent,
    JobSubmissionEvent,
)
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from gpuq.engine.context import Context
from gpuq.engine.file_lock import FileLock
from gpuq.engine.hot.cold_store import is_cold
from gpuq.engine.maintenance.clean import Cleaner
from gpuq.engine.maintenance.promote import promote, shorten_backoffs
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.maintenance.rehydrate import Reconciler, rehydrate
from gpuq.engine.maintenance.retain import retain
from gpuq.engine.maintenance.rotate import rotate
from gpuq.engine.maintenance.safeguard import safeguard
from gpuq.errors import GpuqError, HotStoreUnavailable
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)

RECONCILE_S = 60
# After a look that found a difference: long enough for what was under way, short for a job whose hint was lost.
RECONCILE_AGAIN_S = 2
REAP_S = 20
RETAIN_S = 3600
PROMOTE_S = 30
SAFEGUARD_S = 60
CLEAN_S = 60
# While there is more to remove than one run may.
CLEAN_AGAIN_S = 5
COLD_CHECK_S = 5
BUSY_AGAIN_S = 0.5
# Diary entries of frequent tasks are written this often at most: an idle daemon should not write to disk.
DIARY_S = 300.0
# APScheduler counts on the wall clock: set back by an hour, it would do nothing for an hour. How often, and from how
# many seconds on, a jump is seen.
CLOCK_LOOK_S = 5.0
JUMP_S = 2.0
TASKS = ("rehydrate", "reconcile", "reap", "retain", "promote", "safeguard", "clean")


class Maintenance:
    """A Service. `lock` keeps a second one off this home."""

    name = "maintenance"

    def __init__(self, ctx: Context, lock: FileLock) -> None:
        self._ctx = ctx
        self._lock = lock
        self._reconciler = Reconciler(ctx)
        self._noted: dict[str, float] = {}
        self._failed: set[str] = set()
        # Some hint did not arrive, so a job may wait unseen.
        self._missed = False
        self._unsubscribe: Callable[[], None] | None = None
        self._stopped = False
        self._rebuilding = threading.Lock()
        self._over = threading.Event()
        self._cleaner = Cleaner(ctx, self._over)
        self._offset = ctx.clock.now() - ctx.clock.monotonic()
        self._clock_watch = threading.Thread(target=self._watch_clock, name="gpuq-clock", daemon=True)
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(2)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        self._scheduler.add_listener(_missed, EVENT_JOB_ERROR | EVENT_JOB_MISSED)
        self._scheduler.add_listener(self._busy, EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Rehydrates before it returns, if Redis is there; raises AlreadyRunning when this home has one."""
        self._lock.acquire()
        self._unsubscribe = self._ctx.notifier.subscribe(self._heard)
        self.rebuild_if_cold(always=True)
        every = self._scheduler.add_job
        every(self._guarded("rehydrate", self.rebuild_if_cold), "interval", seconds=COLD_CHECK_S, id="rehydrate")
        every(self._guarded("reconcile", self._reconcile), "interval", seconds=RECONCILE_S, id="reconcile")
        every(self._guarded("reap", lambda: reap(self._ctx)), "interval", seconds=REAP_S, id="reap")
        every(self._guarded("retain", lambda: retain(self._ctx)), "interval", seconds=RETAIN_S, id="retain")
        every(self._guarded("promote", self._promote), "interval", seconds=PROMOTE_S, id="promote")
        every(self._guarded("safeguard", lambda: safeguard(self._ctx)), "interval", seconds=SAFEGUARD_S, id="safeguard")
        every(self._guarded("clean", self._clean), "interval", seconds=CLEAN_S, id="clean")
        self._scheduler.start()
        self._clock_watch.start()
        for task in ("promote", "retain", "reap"):
            self._soon(task)

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._over.set()
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._clock_watch.ident is not None:
            self._clock_watch.join()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
            self._guarded("safeguard", lambda: safeguard(self._ctx))()
        self._lock.release()

    def run_once(self) -> None:
        """Every task once, on this thread."""
        self.rebuild_if_cold()
        self._reconciler.run()
        reap(self._ctx)
        promote(self._ctx)
        retain(self._ctx)
        safeguard(self._ctx)
        self._cleaner.run()

    def rebuild_if_cold(self, *, always: bool = False) -> None:
        """A Redis that is away is tried again; `always` rebuilds a warm one too, at start. A warm one that hints did
        not reach for a while is filled up."""
        with self._rebuilding:
            missed, self._missed = self._missed, False
            try:
                if always or is_cold(self._ctx):
                    rehydrate(self._ctx)
                elif missed:
                    self._reconciler.fill_up()
                    log.info("hot queue filled up: some hints had not reached it")
            except HotStoreUnavailable as error:
                self._missed = True
                log.warning("hot store not rebuilt yet: %s", error.message)

    def _reconcile(self) -> None:
        self._reconciler.run()
        if self._reconciler.in_doubt and not self._stopped:
            again = datetime.now(UTC) + timedelta(seconds=RECONCILE_AGAIN_S)
            self._scheduler.modify_job("reconcile", next_run_time=again)

    def _clean(self) -> None:
        try:
            if self._cleaner.run():
                self._soon("clean", CLEAN_AGAIN_S)
        finally:
            rotate(self._ctx.home)

    def _watch_clock(self) -> None:
        while not self._over.wait(CLOCK_LOOK_S):
            try:
                self.follow_clock()
            except Exception:
                log.exception("the clock was set, and not everything has followed it")

    def follow_clock(self) -> None:
        """When the wall clock was set: every task is due now, and retries wait no longer than their backoff."""
        offset = self._ctx.clock.now() - self._ctx.clock.monotonic()
        jump, self._offset = offset - self._offset, offset
        if abs(jump) < JUMP_S:
            return
        log.warning("the clock was set %s by %.0f s", "forward" if jump > 0 else "back", abs(jump))
        if jump < 0:
            shorten_backoffs(self._ctx)
        for task in TASKS:
            self._soon(task)

    def _promote(self) -> None:
        following = promote(self._ctx)
        if following is None or self._stopped:
            return
        left = following - self._ctx.clock.now()
        if left < PROMOTE_S:
            at = datetime.now(UTC) + timedelta(seconds=max(0.0, left))
            self._scheduler.add_job(
                self._guarded("promote", self._promote), "date", run_date=at, id="promote-next", replace_existing=True
            )

    def _heard(self, topic: Topic) -> None:
        if topic == Topic.DELAYED:
            self._soon("promote")
        elif topic == Topic.COLD:
            self._soon("rehydrate")
        elif topic == Topic.MISSED:
            # Not at once: Redis is hardly back yet.
            self._missed = True

    def _soon(self, task: str, after_s: float = 0.0) -> None:
        if self._scheduler.running and not self._stopped:
            self._scheduler.modify_job(task, next_run_time=datetime.now(UTC) + timedelta(seconds=after_s))

    def _busy(self, event: JobSubmissionEvent) -> None:
        """Promotion was asked for while it ran: it may have looked before the job was there, so it looks again. The
        other tasks come round soon enough."""
        if event.job_id.startswith("promote"):
            self._soon("promote", BUSY_AGAIN_S)

    def _guarded(self, task: str, work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            now = self._ctx.clock.now()
            try:
                work()
            except GpuqError as error:
                log.warning("maintenance task %s: %s", task, error.message)
                self._diary(task, now, error.message)
            except Exception as error:
                log.exception("maintenance task %s failed", task)
                self._diary(task, now, f"{type(error).__name__}: {error}")
            else:
                self._diary(task, now, None)

        return run

    def _diary(self, task: str, at: float, error: str | None) -> None:
        """Failures and recoveries at once, routine successes every DIARY_S."""
        if error is None and task not in self._failed and at - self._noted.get(task, float("-inf")) < DIARY_S:
            return
        runs = self._ctx.maintenance_runs
        try:
            runs.note_start(task, at)
            if error is None:
                runs.note_ok(task, self._ctx.clock.now())
                self._failed.discard(task)
            else:
                runs.note_error(task, self._ctx.clock.now(), error)
                self._failed.add(task)
        except GpuqError as failure:
            log.warning("maintenance diary not written: %s", failure.message)
            return
        self._noted[task] = at


def _missed(event: JobExecutionEvent) -> None:
    log.warning("maintenance task %s missed or failed: %s", event.job_id, getattr(event, "exception", None))

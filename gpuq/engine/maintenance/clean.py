"""Keeping the disk clean: finished jobs are measured, and what was kept long enough is removed.

A little at a time, so that neither the disk nor the database is busy with it for long: of one run no more than
`NAMES` files and folders are touched, with pauses, and no transaction writes more than `JOBS` rows.
"""

from __future__ import annotations

import logging
import os
import threading

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.quantities import duration_text
from gpuq.engine.cleaning import Freed, clean, sizes
from gpuq.engine.context import CleanerContext
from gpuq.file_trees import Budget
from gpuq.ports.job_files import Ended, Sizes, What

log = logging.getLogger(__name__)

# Of one run. Files and folders looked at, and removed; jobs of which something is removed; rows of history deleted.
NAMES_MEASURED = 20_000
NAMES = 2000
JOBS = 50
FORGOTTEN = 100
_EVENTS = 1000
_PAUSE_S = 0.02
_DAY_S = 86400.0
_SAMPLE_S = 3600.0


def _short(seconds: float) -> str:
    """`90d` and not `90d00h`."""
    return duration_text(seconds).removesuffix("00h").removesuffix("00m")


class Cleaner:
    """`over`: set when the daemon stops; a run ends soon then."""

    def __init__(self, ctx: CleanerContext, over: threading.Event) -> None:
        self._ctx = ctx
        self._over = over
        # Job id → when it may be tried again: something there could not be removed.
        self._failed: dict[int, float] = {}
        self._sampled = float("-inf")
        self._offset = ctx.clock.now() - ctx.clock.monotonic()

    def run(self) -> bool:
        """Whether there is more to do at once. Raises DatabaseUnavailable."""
        more = self._measure()
        self._note_free()
        now = self._ctx.clock.now()
        if now - self._ctx.clock.monotonic() - self._offset > _DAY_S:
            # It says nothing any more of how long anything was kept.
            log.warning("the clock was set forward by more than a day: nothing is removed until gpuq is restarted")
            return more
        budget = Budget(NAMES, lambda: self._over.wait(_PAUSE_S))
        keep = self._ctx.settings
        for what, kept, name in (
            (What.OUTPUT, keep.keep_output, "GPUQ_KEEP_OUTPUT"),
            (What.CHECKPOINTS, keep.keep_checkpoints, "GPUQ_KEEP_CHECKPOINTS"),
        ):
            if kept is not None and not budget.spent and not self._over.is_set():
                more |= self._remove(what, now - kept, f"kept for {_short(kept)} ({name})", budget)
        if keep.keep_history is not None and not self._over.is_set():
            gone = self._ctx.files.forget(now - keep.keep_history, FORGOTTEN)
            if gone:
                log.info("%d jobs removed from the history", gone)
            more |= gone == FORGOTTEN
        return more and not self._over.is_set()

    def _note_free(self) -> None:
        """Once an hour, for a day: how fast the disk of the home fills."""
        now = self._ctx.clock.now()
        if 0 <= now - self._sampled < _SAMPLE_S:
            return
        key = InstallationKey.DISK_FREE.of(self._ctx.node)
        room = os.statvfs(self._ctx.home)
        with self._ctx.records.write() as tx:
            kept = [one for one in tx.value(key) or [] if now - _DAY_S <= one[0] < now - _SAMPLE_S / 2]
            tx.set_value(key, [*kept, [now, room.f_bavail * room.f_frsize]], now)
        self._sampled = now

    def _measure(self) -> bool:
        """Every job once after each of its ends. What is cut off by a kill, or by the budget, is measured later."""
        key = InstallationKey.FILES_MEASURED
        with self._ctx.records.read() as tx:
            begin = int(tx.value(key) or 0)
        end, ended = self._ctx.files.ends_after(begin, _EVENTS)
        if end == begin:
            return False
        todo = [job for job in ended if job.sizes is None]
        found = self._sizes(todo)
        self._ctx.files.note_measured(found)
        if len(found) < len(todo):
            return True
        with self._ctx.records.write() as tx:
            tx.set_value(key, end, self._ctx.clock.now())
        return end - begin >= _EVENTS

    def _sizes(self, jobs: list[Ended]) -> list[tuple[Ended, Sizes]]:
        budget = Budget(NAMES_MEASURED, lambda: self._over.wait(_PAUSE_S))
        found: list[tuple[Ended, Sizes]] = []
        for job in jobs:
            if self._over.is_set():
                break
            size = sizes(self._ctx.home, job, budget)
            # One that has more than this alone counts with what was seen.
            if budget.spent and (found or self._over.is_set()):
                break
            found.append((job, size))
            if budget.spent:
                break
        return found

    def _remove(self, what: What, before: float, why: str, budget: Budget) -> bool:
        now = self._ctx.clock.now()
        self._failed = {job_id: again for job_id, again in self._failed.items() if again > now}
        jobs = self._ctx.files.due(what, before, JOBS, list(self._failed))
        freed = Freed()
        complete = clean(self._ctx, jobs, [what], why, budget, freed)
        for job_id, reason in freed.failed.items():
            log.warning("the %s of job %d could not be removed: %s", what, job_id, reason)
            self._failed[job_id] = now + _DAY_S
        if freed.jobs:
            mib = (freed.output + freed.checkpoints) / 2**20
            log.info("%s of %d jobs removed, %.1f MiB, %s", what, len(freed.jobs), mib, why)
        return not complete or len(jobs) == JOBS

"""The queue with one line for the waiting elements of each array, however many those are.

The line is read a page at a time. Where a page ends inside an array, the rest of that array is passed over in one step:
its elements were stored one after another, so they stand side by side as long as they have the same score.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from typing_extensions import TypedDict

from gpuq.domain.job import Job
from gpuq.domain.states import ACTIVE, WAITING, JobState
from gpuq.engine.context import QueryContext
from gpuq.engine.queries.queue_page import queue_page
from gpuq.ports.records import JobFilter, Reader

# Pages that are read for one answer at most: elements that stand apart from each other are not passed over.
MOST_PAGES = 20
# Counting an array again waits this many times what it took.
COST_FACTOR = 10.0


class ArrayView(TypedDict):
    """How the elements of an array fare, and the least and greatest index of those that wait."""

    waiting: int
    active: int
    completed: int
    failed: int
    cancelled: int
    first_index: int
    last_index: int


def lumped_page(tx: Reader, where: JobFilter, limit: int) -> list[Job]:
    """Active jobs, then waiting ones in order, of each array's only the first; of those that `where` gives."""
    found: list[Job] = []
    seen: set[int] = set()
    after: Job | None = None
    for _ in range(MOST_PAGES):
        page = queue_page(tx, where, 0, limit, after)
        for job in page:
            if job.array_id is not None and job.state in WAITING:
                if job.array_id in seen:
                    continue
                seen.add(job.array_id)
            found.append(job)
        if len(page) < limit or len(found) >= limit:
            break
        after = _last_beside(tx, page[-1])
    return found[:limit]


def _last_beside(tx: Reader, job: Job) -> Job:
    """The place after which it goes on behind a page that ends with this job: of a waiting element of an array, that of
    the last element, whatever has become of it, with the score of this one; else the job's own."""
    if job.array_id is None or job.state not in WAITING:
        return job
    # By the array alone: its index finds the last one at once.
    [last] = tx.jobs(JobFilter(array_id=job.array_id, newest_first=True, limit=1))
    return replace(job, id=last.id)


class ArrayCounts:
    """One per process; thread-safe. An array is counted anew when something has happened, unless that takes long."""

    def __init__(self, ctx: QueryContext) -> None:
        self._ctx = ctx
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[ArrayView, int, float]] = {}

    def of(self, tx: Reader, jobs: list[Job]) -> dict[int, ArrayView]:
        """By array id, of the arrays that have an element waiting among these jobs."""
        wanted = {job.array_id for job in jobs if job.array_id is not None and job.state in WAITING}
        if not wanted:
            return {}
        with self._lock:
            event, now = tx.last_event_id(), self._ctx.clock.monotonic()
            self._kept = {array: kept for array, kept in self._kept.items() if array in wanted}
            for array in wanted:
                kept = self._kept.get(array)
                if kept is None or (kept[1] != event and now >= kept[2]):
                    view = _view(tx.array_counts(array))
                    done = self._ctx.clock.monotonic()
                    self._kept[array] = (view, event, done + COST_FACTOR * (done - now))
                    now = done
            return {array: kept[0] for array, kept in self._kept.items()}


def _view(counts: dict[JobState, tuple[int, int, int]]) -> ArrayView:
    def number(*states: JobState) -> int:
        return sum(counts[state][0] for state in states if state in counts)

    waiting = [counts[state] for state in WAITING if state in counts] or [(0, 0, 0)]
    return {
        "waiting": number(*WAITING),
        "active": number(*ACTIVE),
        "completed": number(JobState.COMPLETED),
        "failed": number(JobState.FAILED),
        "cancelled": number(JobState.CANCELLED),
        "first_index": min(least for _, least, _ in waiting),
        "last_index": max(most for _, _, most in waiting),
    }

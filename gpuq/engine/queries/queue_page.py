"""A piece of the queue. Only its own jobs are read; what stands before it is passed over in the indexes."""

from __future__ import annotations

from dataclasses import replace

from gpuq.domain.job import Job
from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.ports.records import FIRST_PLACE, JobFilter, Reader

_QUEUED = frozenset({JobState.QUEUED})


def queue_page(tx: Reader, user: str | None, offset: int, limit: int, after: Job | None) -> list[Job]:
    """Active jobs by id, then the line, then the other waiting jobs by id; of that user, if one is named. It begins
    after the job `after`, or without one `offset` jobs after the first."""
    return _Page(tx, user, offset, limit, after).jobs()


class _Page:
    """`_offset`: jobs still to be passed over; `_left`: still to be found."""

    def __init__(self, tx: Reader, user: str | None, offset: int, limit: int, after: Job | None) -> None:
        self._tx = tx
        self._user = user
        self._offset = offset
        self._left = limit
        self._after = after

    def jobs(self) -> list[Job]:
        found: list[Job] = []
        state = None if self._after is None else self._after.state
        if state is None or state in ACTIVE:
            found += self._by_id(ACTIVE, state)
        if (state is None or state in ACTIVE or state is JobState.QUEUED) and self._left != 0:
            found += self._line(state is JobState.QUEUED)
        if (state is None or state not in FINAL) and self._left != 0:
            found += self._by_id(WAITING - _QUEUED, state)
        return found

    def _pass(self, count: int) -> int:
        """How many of the next `count` jobs stand before the page."""
        passed = min(self._offset, count)
        self._offset -= passed
        return passed

    def _by_id(self, states: frozenset[JobState], at: JobState | None) -> list[Job]:
        after = self._after.id if self._after is not None and at in states else None
        where = JobFilter(states=states, user=self._user, after_id=after)
        passed = self._pass(self._tx.count(where)) if self._offset else 0
        jobs = self._tx.jobs(replace(where, limit=self._left + passed))[passed:]
        self._left -= len(jobs)
        return jobs

    def _line(self, in_line: bool) -> list[Job]:
        place = (self._after.score, self._after.id) if in_line and self._after is not None else FIRST_PLACE
        passed = 0
        if self._offset:
            passed = self._pass(self._tx.count(JobFilter(states=_QUEUED, user=self._user)))
        jobs = self._tx.line(offset=passed, limit=self._left, user=self._user, after=place)
        self._left -= len(jobs)
        return jobs

"""The line: waiting jobs by (score, id), kept apart by shape so that a plan looks only at what can matter.

Jobs of one shape ask for the same thing: if one of them finds no room, none of the others does. A plan therefore
drops a whole shape at once, and its cost grows with the number of shapes and not with the length of the line.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import NamedTuple, overload

from gpuq.scheduler.snapshot import Candidate, Longest, Policy


class Shape(NamedTuple):
    """`user`, `group` and `array_id` are set only where a limit can stop all jobs of that user, group or array;
    `over_hours` tells whose GPU-hours are used up, and so only jobs of that user or group apart. `ends_in`: seconds
    after which it is over as far as is known, only while a drain is planned."""

    gpus: int
    mem_mb: int | None = None
    model: str | None = None
    ids: tuple[int, ...] | None = None
    preemptible: bool = False
    user: str | None = None
    group: str | None = None
    array_id: int | None = None
    over_hours: str | None = None
    ends_in: float | None = None

    @property
    def tier(self) -> int:
        """Who comes first: jobs that keep their GPUs, then preemptible ones, then those over their GPU-hours."""
        return 2 if self.over_hours is not None else int(self.preemptible)


_place = attrgetter("score", "id")
_age = attrgetter("submitted_at", "id")
_NO_LIMITS = Policy()


class Line(Sequence[Candidate]):
    """A sequence in line order. `add` and `remove` keep it. `in_order`: the jobs come in line order already. `ends_in`:
    of each job, the field of its shape; the same for the same job as long as the line is kept.

    Building one costs time for every job, so whoever plans again and again over a long line keeps it.
    """

    def __init__(
        self,
        jobs: Iterable[Candidate] = (),
        policy: Policy = _NO_LIMITS,
        *,
        in_order: bool = False,
        ends_in: Longest | None = None,
    ) -> None:
        self._ends_in = ends_in
        book = policy.limits
        self._by_user = policy.user_max_gpus > 0 or policy.user_max_running > 0 or book.everybody
        self._users = book.users
        self._groups = {**policy.group_limits, **book.groups}
        self.shapes: dict[Shape, list[Candidate]] = {}
        self._fill(jobs, in_order)
        # By submission, for those that `oldest` is asked for again; jobs that have left are dropped when they come up.
        self._ages: dict[int, list[tuple[float, int, Candidate]]] = {}
        self._asked: set[int] = set()

    def _fill(self, jobs: Iterable[Candidate], in_order: bool) -> None:
        by_user, users, groups, ends_in = self._by_user, self._users, self._groups, self._ends_in
        # The shape as a bare tuple: naming it for every one of many jobs would be the larger part of the work.
        buckets: dict[tuple[object, ...], list[Candidate]] = {}
        for job in jobs:
            key = (
                job.gpus,
                job.gpu_mem_mb,
                job.gpu_model,
                job.gpu_ids,
                job.preemptible,
                job.user if by_user or job.user in users else None,
                job.group if job.group in groups else None,
                job.array_id if job.array_limit is not None else None,
                job.over_hours,
                None if ends_in is None else ends_in(job),
            )
            bucket = buckets.get(key)
            if bucket is None:
                buckets[key] = [job]
            else:
                bucket.append(job)
        for bucket in buckets.values():
            if not in_order:
                bucket.sort(key=_place)
            self.shapes[self.shape_of(bucket[0])] = bucket

    def shape_of(self, job: Candidate) -> Shape:
        """What decides whether the job fits. User, group and array are part of it only where a limit depends on
        them."""
        return Shape(
            job.gpus,
            job.gpu_mem_mb,
            job.gpu_model,
            job.gpu_ids,
            job.preemptible,
            job.user if self._by_user or job.user in self._users else None,
            job.group if job.group in self._groups else None,
            job.array_id if job.array_limit is not None else None,
            job.over_hours,
            None if self._ends_in is None else self._ends_in(job),
        )

    def add(self, job: Candidate) -> None:
        """Puts a job at its place among those of its shape."""
        insort(self.shapes.setdefault(self.shape_of(job), []), job, key=_place)
        for least, ages in self._ages.items():
            if job.gpus >= least and not job.preemptible:
                heappush(ages, (job.submitted_at, job.id, job))

    def remove(self, job: Candidate) -> None:
        """Raises ValueError when it is not in the line."""
        shape, at = self.shape_of(job), self._find(job)
        if at is None:
            raise ValueError(f"job {job.id} is not in the line")
        bucket = self.shapes[shape]
        del bucket[at]
        if not bucket:
            del self.shapes[shape]

    def _find(self, job: Candidate) -> int | None:
        bucket = self.shapes.get(self.shape_of(job), [])
        at = bisect_left(bucket, _place(job), key=_place)
        return at if at < len(bucket) and bucket[at].id == job.id else None

    def oldest(self, least: int = 1) -> Candidate | None:
        """The job of at least so many GPUs that has waited longest, preemptible ones apart."""
        ages = self._ages.get(least)
        if ages is None:
            waiting = [bucket for shape, bucket in self.shapes.items() if shape.gpus >= least and not shape.preemptible]
            if least not in self._asked:
                self._asked.add(least)
                return min((min(bucket, key=_age) for bucket in waiting), key=_age, default=None)
            ages = self._ages[least] = [(job.submitted_at, job.id, job) for bucket in waiting for job in bucket]
            heapify(ages)
        while ages:
            job = ages[0][2]
            if self._find(job) is not None:
                return job
            heappop(ages)
        return None

    def top_priority(self) -> int:
        """Of the jobs that want GPUs; 99 when there are none."""
        return min((bucket[0].priority for shape, bucket in self.shapes.items() if shape.gpus), default=99)

    def ordered(self) -> list[Candidate]:
        return sorted((job for bucket in self.shapes.values() for job in bucket), key=_place)

    def __len__(self) -> int:
        return sum(map(len, self.shapes.values()))

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.ordered())

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> list[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | list[Candidate]:
        return self.ordered()[index]


def line_of(waiting: Sequence[Candidate], policy: Policy, ends_in: Longest | None = None) -> Line:
    """`waiting` itself if it is a line already."""
    return waiting if isinstance(waiting, Line) else Line(waiting, policy, in_order=True, ends_in=ends_in)

"""Waiting jobs as the scheduler sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, inf

from gpuq.engine.context import SnapshotContext
from gpuq.ports.records import Waiting
from gpuq.scheduler.expect import Expectation
from gpuq.scheduler.snapshot import Candidate
from gpuq.scheduler.spread import Span


class ExpectedRuns:
    """Run times, worked out for those candidates only that somebody asks about. `use_median`: medians with their spans,
    for people."""

    def __init__(self, ctx: SnapshotContext, waiting: Sequence[Waiting], *, use_median: bool = False) -> None:
        self._ctx = ctx
        self._by_id = {job.id: job for job in waiting}
        self._use_median = use_median
        self._known: dict[int, Expectation] = {}

    def seconds(self, job: Candidate) -> float:
        return self._of(job).seconds

    def span(self, job: Candidate) -> Span | None:
        return self._of(job).span

    def _of(self, job: Candidate) -> Expectation:
        found = self._known.get(job.id)
        if found is None:
            facts = self._by_id[job.id]
            found = self._known[job.id] = self._ctx.run_times.expect(
                facts.user, facts.command, facts.gpus, facts.time_limit_s, use_median=self._use_median
            )
        return found


def longest(ctx: SnapshotContext, waiting: Sequence[Waiting]) -> Callable[[Candidate], float]:
    """Seconds after which a candidate is over, as far as is known: its time limit, else what is expected of such jobs,
    in whole minutes, so that many are alike; inf where nothing is known."""
    by_id = {job.id: job for job in waiting}
    known: dict[int, float] = {}

    def seconds(job: Candidate) -> float:
        if job.time_limit_s is not None:
            return job.time_limit_s
        if job.id not in known:
            facts = by_id[job.id]
            found = ctx.run_times.expect(facts.user, facts.command, facts.gpus, None)
            known[job.id] = ceil(found.seconds / 60) * 60.0 if found.samples else inf
        return known[job.id]

    return seconds


def candidate(job: Waiting) -> Candidate:
    """The scheduler's form of a waiting job; its expected run time is left at 0 s, for the caller to fill in."""
    return Candidate(
        id=job.id,
        score=job.score,
        priority=job.priority,
        user=job.user,
        gpus=job.gpus,
        expected_s=0.0,
        group=job.group,
        gpu_mem_mb=job.gpu_mem_mb,
        gpu_model=job.gpu_model,
        gpu_ids=job.gpu_ids,
        time_limit_s=job.time_limit_s,
        preemptible=job.preemptible,
        array_id=job.array_id,
        array_limit=job.array_limit,
        submitted_at=job.submitted_at,
        uid=job.uid,
    )

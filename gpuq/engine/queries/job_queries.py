"""Everything that is answered about jobs that have not ended: one job, a list of them, the whole line.

Answers come from SQL and the scheduler's own forecast; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from typing_extensions import TypedDict

from gpuq.domain.job import Job, JobStatus
from gpuq.domain.outcome import Outcome
from gpuq.domain.reasons import Reason, ReasonCode, ReasonView
from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.domain.times import iso, iso_range
from gpuq.engine.context import QueryContext
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.queries.array_lines import ArrayCounts, ArrayView, lumped_page
from gpuq.engine.queries.demand import DemandQuery
from gpuq.engine.queries.forecast_cache import ForecastCache
from gpuq.engine.queries.job_status import job_status, last_error
from gpuq.engine.queries.longer_jobs import LongerJobs
from gpuq.engine.queries.queue_page import queue_page
from gpuq.engine.switches import stuck_attempts
from gpuq.ports.records import JobFilter, Reader, Waiting

# Jobs that are read and described at once.
PAGE = 1000
EVERYTHING = JobFilter()


@dataclass(frozen=True, slots=True)
class QueueView:
    """Numbers above a list of the queue. `total` counts what the list could show."""

    running: int
    queued: int
    waiting: int
    total: int


class PreemptionView(TypedDict):
    """A preemptible job that will be stopped and put back in line when another one, the beneficiary, can have its GPUs;
    `at`: about when."""

    job_id: int
    beneficiary: int
    at: str | None


class WhyView(TypedDict):
    """The JSON of why a job does not run. `reason`: the first of `reasons`. Times: ISO 8601 in UTC; `…_range`: from
    when to when, in four of five cases. `preemptions`: those that will make room for it, or that will stop it."""

    id: int
    state: JobState
    reason: ReasonView | None
    reasons: list[ReasonView]
    position: int | None
    estimated_start: str | None
    estimated_end: str | None
    estimated_start_range: list[str | None] | None
    estimated_end_range: list[str | None] | None
    preemptions: list[PreemptionView]
    outcome: Outcome | None
    error: str | None


class JobQueries:
    """One per process, because it keeps the forecast between questions; thread-safe."""

    def __init__(self, ctx: QueryContext) -> None:
        self._ctx = ctx
        self.agent = AgentLiveness(ctx)
        self._forecasts = ForecastCache(ctx, self.agent)
        self._arrays = ArrayCounts(ctx)
        self.demand = DemandQuery(ctx)
        # For those who ask for more time.
        self.first_delayed = LongerJobs(ctx, self._forecasts).first_delayed

    def estimate(self, job: Waiting) -> float | None:
        """When a job that is not stored would start, epoch seconds; None beyond the forecast's reach."""
        return self._forecasts.estimate(job)

    def room_in_s(self) -> float | None:
        """In how many seconds a waiting job is expected to start, so that another may wait in its place; at most an
        hour. None when nobody knows."""
        starts = self._forecasts.picture().forecast.start.values() if self.agent.is_alive() else ()
        soonest = min(starts, default=None)
        return None if soonest is None else min(max(soonest - self._ctx.clock.now(), 1.0), 3600.0)

    def forecast_gpus(self) -> tuple[dict[int, float], dict[int, tuple[int, ...]]]:
        """Of the waiting jobs that the forecast reaches: when each starts (epoch seconds), and on which GPUs by index;
        none while nothing is started."""
        picture = self._forecasts.picture()
        if picture.snapshot.paused is not None or not self.agent.is_alive():
            return {}, {}
        index = [device.index for device in picture.snapshot.devices]
        found = {job_id: tuple(index[at] for at in places) for job_id, places in picture.forecast.gpus.items()}
        return dict(picture.forecast.start), found

    def describe(self, jobs: Sequence[Job]) -> list[tuple[Job, JobStatus]]:
        """In the order given. Final jobs cost nothing; others share one forecast and one walk along the line."""
        if all(job.state in FINAL for job in jobs):
            return [(job, JobStatus()) for job in jobs]
        queued = [job for job in jobs if job.state is JobState.QUEUED]
        picture = self._forecasts.picture(queued[0] if len(queued) == 1 else None)
        agent = self.agent.is_alive()
        with self._ctx.records.read() as tx:
            positions = tx.positions([(job.score, job.id) for job in queued])
            return [(job, job_status(self._ctx, tx, job, picture, agent, positions)) for job in jobs]

    def queue(self, tx: Reader, user: str | None = None, where: JobFilter = EVERYTHING) -> QueueView:
        """The numbers above the list. `user`, `where` (user, group, name, states): `total` is of such only."""
        counts = tx.count_by_state()
        total = sum(counts.get(state, 0) for state in ACTIVE | WAITING)
        where = where if user is None else replace(where, user=user)
        if where != EVERYTHING:
            total = tx.count(where if where.states is not None else replace(where, states=ACTIVE | WAITING))
        return QueueView(
            running=sum(counts.get(state, 0) for state in ACTIVE),
            queued=counts.get(JobState.QUEUED, 0),
            waiting=sum(counts.get(state, 0) for state in WAITING),
            total=total,
        )

    def queue_pages(
        self,
        tx: Reader,
        *,
        limit: int | None,
        offset: int = 0,
        user: str | None = None,
        after_id: int | None = None,
        where: JobFilter = EVERYTHING,
    ) -> Iterator[list[tuple[Job, JobStatus]]]:
        """Active jobs, then queued ones in line order, then the other waiting ones by id, PAGE at a time. `user`,
        `where` (user, group, name, states): of such only. `after_id`: what comes after that job; a page far down the
        line costs no more than the first. Raises NotFound."""
        after, offset = (None, offset) if after_id is None else (tx.job(after_id), 0)
        where = where if user is None else replace(where, user=user)
        left = limit
        while left is None or left > 0:
            wanted = PAGE if left is None else min(left, PAGE)
            jobs = queue_page(tx, where, offset, wanted, after)
            if jobs:
                yield self.describe(jobs)
            if len(jobs) < PAGE:
                return
            after, offset = jobs[-1], 0
            left = None if left is None else left - len(jobs)

    def lumped(
        self, tx: Reader, *, limit: int, where: JobFilter = EVERYTHING
    ) -> tuple[list[tuple[Job, JobStatus]], dict[int, ArrayView]]:
        """As the first of `queue_pages`, with the first waiting element of each array for all that wait; and how the
        elements of those arrays fare, by array id."""
        jobs = lumped_page(tx, where, limit)
        return self.describe(jobs), self._arrays.of(tx, jobs)

    def why(self, job_id: int) -> WhyView:
        """Ready for JSON. Raises NotFound."""
        with self._ctx.records.read() as tx:
            job = tx.job(job_id)
            trouble = stuck_attempts(tx, self._ctx.node).get(job_id) if job.state in ACTIVE else None
            failed = last_error(tx, job)
        [(_, status)] = self.describe([job])
        if trouble is not None:
            status = replace(status, reason=Reason(ReasonCode.STUCK, trouble))
        elif failed is not None and status.reason is not None:
            status = replace(status, reason=replace(status.reason, text=f"{status.reason.text} ({failed})"))
        reasons = [status.reason] if status.reason else []
        lost = status.reason is not None and status.reason.code is ReasonCode.NO_ACCOUNT
        if job.state is JobState.QUEUED and not lost and self.agent.is_alive():
            found = self._forecasts.picture().reasons(job_id)
            # Whose turn it is by the plan is no answer while something is in its way.
            reasons.extend(
                reason for reason in found if reason not in reasons and reason.code is not ReasonCode.STARTING
            )
        return {
            "id": job.id,
            "state": job.state,
            "reason": status.reason.to_json() if status.reason else None,
            "reasons": [reason.to_json() for reason in reasons],
            "position": status.position,
            "estimated_start": iso(status.estimated_start),
            "estimated_end": iso(status.estimated_end),
            "estimated_start_range": iso_range(status.estimated_start_range),
            "estimated_end_range": iso_range(status.estimated_end_range),
            "preemptions": self._preemptions(job),
            "outcome": job.outcome,
            "error": job.error,
        }

    def _preemptions(self, job: Job) -> list[PreemptionView]:
        """As the forecast has them, soonest first."""
        if job.state not in {JobState.QUEUED, JobState.RUNNING} or not self.agent.is_alive():
            return []
        yields = self._forecasts.picture().forecast.yields
        found = sorted(
            (one.at, job_id, one.beneficiary) for job_id, one in yields.items() if job.id in {job_id, one.beneficiary}
        )
        return [{"job_id": job_id, "beneficiary": other, "at": iso(at)} for at, job_id, other in found]

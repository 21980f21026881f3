"""Everything that is answered about jobs that have not ended: one job, a list of them, the whole line.

Answers come from SQL and the scheduler's own forecast; nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from typing_extensions import TypedDict

from gpuq.domain.job import Job, JobStatus
from gpuq.domain.outcome import Outcome
from gpuq.domain.reasons import Reason, ReasonCode, ReasonView
from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.domain.times import iso
from gpuq.engine.context import QueryContext
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.queries.forecast_cache import ForecastCache
from gpuq.engine.queries.job_status import job_status
from gpuq.engine.switches import stuck_attempts
from gpuq.ports.records import JobFilter, Waiting


@dataclass(frozen=True, slots=True)
class QueueView:
    """`jobs`: active ones first (by id), then waiting ones in order. `total` counts what the view could show."""

    running: int
    queued: int
    waiting: int
    total: int
    jobs: list[tuple[Job, JobStatus]]


class WhyView(TypedDict):
    """The JSON of why a job does not run. `reason`: the first of `reasons`. Times: ISO 8601 in UTC."""

    id: int
    state: JobState
    reason: ReasonView | None
    reasons: list[ReasonView]
    position: int | None
    estimated_start: str | None
    estimated_end: str | None
    outcome: Outcome | None
    error: str | None


class JobQueries:
    """One per process, because it keeps the forecast between questions; thread-safe."""

    def __init__(self, ctx: QueryContext) -> None:
        self._ctx = ctx
        self.agent = AgentLiveness(ctx)
        self._forecasts = ForecastCache(ctx, self.agent)

    def estimate(self, job: Waiting) -> float | None:
        """When a job that is not stored would start, epoch seconds; None beyond the forecast's reach."""
        return self._forecasts.estimate(job)

    def describe(self, jobs: Sequence[Job], positions: Mapping[int, int] | None = None) -> list[tuple[Job, JobStatus]]:
        """In the order given. Final jobs cost nothing; others share one forecast. `positions`: places in line that
        the caller knows already, by job id."""
        if all(job.state in FINAL for job in jobs):
            return [(job, JobStatus()) for job in jobs]
        queued = [job for job in jobs if job.state is JobState.QUEUED]
        picture = self._forecasts.picture(queued[0] if len(queued) == 1 else None)
        agent = self.agent.is_alive()
        with self._ctx.records.read() as tx:
            return [(job, job_status(self._ctx, tx, job, picture, agent, positions or {})) for job in jobs]

    def queue(self, *, limit: int | None, offset: int = 0, user: str | None = None) -> QueueView:
        """Active jobs, then queued ones in line order, then the other waiting ones by id. `user`: of that user only."""
        positions: dict[int, int] = {}
        with self._ctx.records.read() as tx:
            counts = tx.count_by_state()
            active = tx.jobs(JobFilter(states=ACTIVE, user=user))
            room = None if limit is None else max(0, limit + offset - len(active))
            if user is None:
                line = tx.line(limit=room)
                positions = {job.id: place for place, job in enumerate(line, start=1)}
                apart = tx.jobs(JobFilter(states=WAITING - {JobState.QUEUED}, limit=_left(room, len(line))))
                total = sum(counts.get(state, 0) for state in ACTIVE | WAITING)
            else:
                waiting = tx.jobs(JobFilter(states=WAITING, user=user))
                line = sorted((j for j in waiting if j.state is JobState.QUEUED), key=lambda j: (j.score, j.id))
                apart = [job for job in waiting if job.state is not JobState.QUEUED]
                total = len(active) + len(waiting)
        chosen = [*active, *line, *apart][offset : None if limit is None else offset + limit]
        return QueueView(
            running=sum(counts.get(state, 0) for state in ACTIVE),
            queued=counts.get(JobState.QUEUED, 0),
            waiting=sum(counts.get(state, 0) for state in WAITING),
            total=total,
            jobs=self.describe(chosen, positions),
        )

    def why(self, job_id: int) -> WhyView:
        """Ready for JSON. Raises NotFound."""
        with self._ctx.records.read() as tx:
            job = tx.job(job_id)
            trouble = stuck_attempts(tx, self._ctx.node).get(job_id) if job.state in ACTIVE else None
        [(_, status)] = self.describe([job])
        if trouble is not None:
            status = replace(status, reason=Reason(ReasonCode.STUCK, trouble))
        reasons = [status.reason] if status.reason else []
        lost = status.reason is not None and status.reason.code is ReasonCode.NO_ACCOUNT
        if job.state is JobState.QUEUED and not lost and self.agent.is_alive():
            found = self._forecasts.picture().explainer.reasons(job_id)
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
            "outcome": job.outcome,
            "error": job.error,
        }


def _left(room: int | None, used: int) -> int | None:
    return None if room is None else max(0, room - used)

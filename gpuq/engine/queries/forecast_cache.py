"""What is worked out when somebody asks: place in line, reason, estimated start and end, progress.

Answers come from SQL and the scheduler's own forecast, so they are the same whether a daemon runs or not, and need no
Redis, save for whether an agent runs on another machine. The forecast is kept until an event changes the picture.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from gpuq.domain.job import Attempt, Job, JobOutlook
from gpuq.domain.quantities import duration_text
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.domain.times import iso
from gpuq.engine.attempt.tracked import Live
from gpuq.engine.context import Context
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.snapshot.builder import Lookout
from gpuq.engine.snapshot.candidates import candidate, expectation
from gpuq.engine.snapshot.limit_bypass import past_limits
from gpuq.engine.snapshot.switches import Control, control_in
from gpuq.ports.records import JobFilter, Reader, Waiting
from gpuq.scheduler.explain import Explainer
from gpuq.scheduler.forecast import Forecast, forecast
from gpuq.scheduler.snapshot import Snapshot

# The forecast looks this far down the line; those behind it get no estimate.
FORECAST_JOBS = 1000
FORECAST_MAX_AGE_S = 30.0
# While events come in quickly, the last picture serves for this many times what it cost to make.
FORECAST_COST_FACTOR = 10.0
# A picture that took less than this is made anew for a single job that is not in it.
QUICK_S = 0.05


@dataclass(frozen=True, slots=True)
class QueueView:
    """`jobs`: active ones first (by id), then waiting ones in order. `total` counts what the view could show."""

    running: int
    queued: int
    waiting: int
    total: int
    jobs: list[tuple[Job, JobOutlook]]


@dataclass(frozen=True, slots=True)
class _Picture:
    """The snapshot and forecast as of one event id and what people had set by then. `reach`: jobs with a lower score
    are in it, if they were there."""

    event_id: int
    control: Control
    at: float
    snapshot: Snapshot
    forecast: Forecast
    explainer: Explainer
    known: frozenset[int]
    reach: float

    def misses(self, job: Job) -> bool:
        """Whether it belongs into the forecast and is not in it."""
        return job.id not in self.known and job.score < self.reach


class Outlooks:
    """One per process; thread-safe."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.agent = AgentLiveness(ctx)
        self._lookout = Lookout(ctx, typical=True)
        self._lock = threading.Lock()
        self._picture: _Picture | None = None
        self._cost_s = 0.0

    def picture(self, wanted: Job | None = None) -> _Picture:
        """`wanted`: a queued job that somebody asks about; if it came after the last picture it is worth a new one,
        unless that takes long."""
        with self._lock:
            now = self._ctx.clock.now()
            begun = self._ctx.clock.monotonic()
            with self._ctx.records.read() as tx:
                event_id, control = tx.last_event_id(), control_in(self._ctx, tx)
                kept = self._picture
                if kept is not None and kept.control == control:
                    same = kept.event_id == event_id
                    missing = not same and self._cost_s < QUICK_S and wanted is not None and kept.misses(wanted)
                    max_age_s = FORECAST_MAX_AGE_S if same else FORECAST_COST_FACTOR * self._cost_s
                    if now - kept.at < max_age_s and not missing:
                        return kept
                line = tx.line(limit=FORECAST_JOBS)
                reach = line[-1].score if len(line) >= FORECAST_JOBS else inf
                waiting = list(tx.waiting([job.id for job in line]).values())
                active = tx.live_attempts(self._ctx.node)
                self._lookout.forget(control)
                lives = [self._live(job, attempt) for job, attempt in active]
                if len(waiting) >= FORECAST_JOBS:
                    waiting += past_limits(tx, waiting, self._lookout.usage(lives), enough=FORECAST_JOBS)
            waiting.sort(key=lambda job: (job.score, job.id))
            self._ctx.run_times.refresh()
            snapshot = self._lookout.snapshot(waiting, lives)
            foreseen = forecast(snapshot, now)
            known = frozenset(job.id for job in waiting)
            self._picture = _Picture(event_id, control, now, snapshot, foreseen, Explainer(snapshot, now), known, reach)
            self._cost_s = self._ctx.clock.monotonic() - begun
            return self._picture

    def estimate(self, job: Waiting) -> float | None:
        """When a job that is not stored would start, epoch seconds; None beyond the forecast's reach."""
        picture = self.picture()
        if picture.snapshot.paused is not None or not agent_is_alive(self._ctx):
            return None
        new = candidate(job)
        line = sorted([*picture.snapshot.waiting, new], key=lambda c: (c.score, c.id))
        known = picture.snapshot.expected
        its_own = expectation(self._ctx, [job], typical=True)(new)
        supposed = replace(
            picture.snapshot,
            waiting=line,
            expected=lambda c: known(c) if known is not None and c.id != job.id else its_own,
        )
        return forecast(supposed, self._ctx.clock.now()).start.get(job.id)

    def _live(self, job: Job, attempt: Attempt) -> Live:
        return Live.of_record(job, attempt, self._ctx.launcher.launched(attempt.run_dir))


def describe(
    ctx: Context, jobs: Sequence[Job], positions: Mapping[int, int] | None = None
) -> list[tuple[Job, JobOutlook]]:
    """In the order given. Final jobs cost nothing; others share one forecast. `positions`: places in line that
    the caller knows already, by job id."""
    if all(job.state in FINAL for job in jobs):
        return [(job, JobOutlook()) for job in jobs]
    queued = [job for job in jobs if job.state is JobState.QUEUED]
    picture = ctx.outlooks.picture(queued[0] if len(queued) == 1 else None)
    agent = agent_is_alive(ctx)
    with ctx.records.read() as tx:
        return [(job, _outlook(ctx, tx, job, picture, agent, positions or {})) for job in jobs]


def queue(ctx: Context, *, limit: int | None, offset: int = 0, user: str | None = None) -> QueueView:
    """Active jobs, then queued ones in line order, then the other waiting ones by id."""
    positions: dict[int, int] = {}
    with ctx.records.read() as tx:
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
        jobs=describe(ctx, chosen, positions),
    )


def _left(room: int | None, used: int) -> int | None:
    return None if room is None else max(0, room - used)


def why(ctx: Context, job_id: int) -> dict[str, Any]:
    """`{"id", "state", "reason", "reasons", "position", "estimated_start", …}`, ready for JSON."""
    with ctx.records.read() as tx:
        job = tx.job(job_id)
    [(_, outlook)] = describe(ctx, [job])
    reasons = [outlook.reason] if outlook.reason else []
    if job.state is JobState.QUEUED and agent_is_alive(ctx):
        found = ctx.outlooks.picture().explainer.reasons(job_id)
        reasons.extend(reason for reason in found if reason not in reasons)
    return {
        "id": job.id,
        "state": job.state,
        "reason": outlook.reason.to_json() if outlook.reason else None,
        "reasons": [reason.to_json() for reason in reasons],
        "position": outlook.position,
        "estimated_start": iso(outlook.estimated_start),
        "estimated_end": iso(outlook.estimated_end),
        "outcome": job.outcome,
        "error": job.error,
    }


def agent_is_alive(ctx: Context) -> bool:
    """By its file lock in this home, else by its key in Redis."""
    return ctx.outlooks.agent.is_alive()


def _outlook(
    ctx: Context, tx: Reader, job: Job, picture: _Picture, agent: bool, positions: Mapping[int, int]
) -> JobOutlook:
    if job.state in FINAL:
        return JobOutlook()
    if job.state in ACTIVE:
        return JobOutlook(
            reason=_active_reason(ctx, job),
            estimated_end=picture.forecast.end.get(job.id),
            progress=read_progress(ctx, job.run_dir),
        )
    start = picture.forecast.start.get(job.id) if agent and picture.snapshot.paused is None else None
    position = None
    if job.state is JobState.QUEUED:
        position = positions.get(job.id) or tx.position(job.score, job.id)
    return JobOutlook(
        position=position,
        reason=_waiting_reason(ctx, tx, job, picture, agent),
        estimated_start=start,
        estimated_end=picture.forecast.end.get(job.id) if start is not None else None,
    )


def _active_reason(ctx: Context, job: Job) -> Reason | None:
    if job.state is JobState.STARTING:
        return Reason(ReasonCode.STARTING, "GPUs are leased; the process is being launched")
    return None


def _waiting_reason(ctx: Context, tx: Reader, job: Job, picture: _Picture, agent: bool) -> Reason:
    now = ctx.clock.now()
    if job.state is JobState.HELD:
        code = ReasonCode.HELD_BY_ADMIN if job.held_by == "admin" else ReasonCode.HELD_BY_USER
        who = "an administrator" if job.held_by == "admin" else job.user
        return Reason(code, f"held by {who}; `gpuq release {job.id}` puts it back in line")
    if job.state is JobState.BLOCKED:
        return _dependency_reason(tx, job)
    if job.state is JobState.DELAYED:
        wait = duration_text((job.eligible_at or now) - now)
        if job.attempt:
            return Reason(ReasonCode.RETRY_BACKOFF, f"attempt {job.attempt} failed; next in {wait}")
        return Reason(ReasonCode.BEGIN_TIME, f"begins in {wait}, at {iso(job.eligible_at)}")
    if not agent:
        return Reason(ReasonCode.NO_AGENT, "no agent runs; nothing starts until `gpuq up`")
    if picture.snapshot.paused is not None:
        return Reason(ReasonCode.QUEUE_PAUSED, picture.snapshot.paused)
    if picture.control.obstacle is not None:
        text = f"this machine cannot launch anything now: {picture.control.obstacle}"
        return Reason(ReasonCode.LAUNCH_TROUBLE, text)
    found = picture.explainer.reasons(job.id)
    if found:
        return found[0]
    return Reason(ReasonCode.PRIORITY, "jobs before it in line come first")


def _dependency_reason(tx: Reader, job: Job) -> Reason:
    still = tx.open_dependencies(job.id)
    for on_id, kind, state in still:
        if kind == "success" and state in FINAL:
            text = f"job {on_id} {state}; it runs only after `gpuq retry {on_id}` succeeds"
            return Reason(ReasonCode.DEPENDENCY_NEVER_SATISFIED, text)
    waited = ", ".join(f"job {on_id} ({state})" for on_id, _, state in still[:5])
    more = f" and {len(still) - 5} more" if len(still) > 5 else ""
    return Reason(ReasonCode.DEPENDENCY, f"waits for {waited}{more}")


def read_progress(ctx: Context, run_dir: str | None) -> float | None:
    """0 to 1 from what the program wrote to progress.json; None for anything else in there."""
    data = ctx.launcher.progress(run_dir) if run_dir is not None else None
    value = data.get("progress") if data is not None else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= 1 else None

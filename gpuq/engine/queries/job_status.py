"""What is worked out of one job that has not ended: place in line, reason, estimated start and end, progress."""

from __future__ import annotations

from collections.abc import Mapping

from gpuq.domain.job import Job, JobStatus
from gpuq.domain.quantities import duration_text
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.domain.states import ACTIVE, FINAL, JobState
from gpuq.domain.times import iso
from gpuq.engine.context import QueryContext
from gpuq.engine.queries.forecast_cache import ForecastPicture
from gpuq.ports.records import Reader
from gpuq.scheduler.explain import window_text

_NOBODY_KNOWS_WHEN = frozenset({ReasonCode.NO_ACCOUNT, ReasonCode.LAUNCH_TROUBLE})


def job_status(
    ctx: QueryContext, tx: Reader, job: Job, picture: ForecastPicture, agent: bool, positions: Mapping[int, int]
) -> JobStatus:
    """`agent`: whether one serves this node. `positions`: places in line of the queued ones, by job id."""
    if job.state in FINAL:
        return JobStatus()
    if job.state in ACTIVE:
        return JobStatus(
            reason=_active_reason(ctx, job),
            estimated_end=picture.forecast.end.get(job.id),
            estimated_end_range=picture.forecast.end_span.get(job.id),
            progress=read_progress(ctx, job),
        )
    reason = _waiting_reason(ctx, tx, job, picture, agent)
    # The picture may be older than the loss of an account, of which no event tells.
    never = not agent or picture.snapshot.paused is not None or reason.code in _NOBODY_KNOWS_WHEN
    start = None if never else picture.forecast.start.get(job.id)
    position = None
    if job.state is JobState.QUEUED:
        position = positions[job.id]
    return JobStatus(
        position=position,
        reason=reason,
        estimated_start=start,
        estimated_end=picture.forecast.end.get(job.id) if start is not None else None,
        estimated_start_range=picture.forecast.start_span.get(job.id) if start is not None else None,
        estimated_end_range=picture.forecast.end_span.get(job.id) if start is not None else None,
    )


def _active_reason(ctx: QueryContext, job: Job) -> Reason | None:
    if job.state is JobState.STARTING:
        return Reason(ReasonCode.STARTING, "GPUs are leased; the process is being launched")
    return None


def _waiting_reason(ctx: QueryContext, tx: Reader, job: Job, picture: ForecastPicture, agent: bool) -> Reason:
    now = ctx.clock.now()
    if job.state is JobState.HELD:
        return _held_reason(job)
    if job.state is JobState.BLOCKED:
        return _dependency_reason(tx, job)
    if job.state is JobState.DELAYED:
        wait = duration_text((job.eligible_at or now) - now)
        if job.attempt:
            return Reason(ReasonCode.RETRY_BACKOFF, f"attempt {job.attempt} failed; next in {wait}")
        return Reason(ReasonCode.BEGIN_TIME, f"begins in {wait}, at {iso(job.eligible_at)}")
    no_account = ctx.accounts.why_not(job.user, job.uid)
    if no_account is not None:
        return Reason(ReasonCode.NO_ACCOUNT, f"{no_account}; the job starts when that account is back")
    if not agent:
        return Reason(ReasonCode.NO_AGENT, "no agent runs; nothing starts until `gpuq up`")
    if picture.snapshot.paused is not None:
        return Reason(ReasonCode.QUEUE_PAUSED, picture.snapshot.paused)
    if picture.switches.launch_trouble is not None:
        text = f"nothing can be started on this machine now: {picture.switches.launch_trouble}"
        return Reason(ReasonCode.LAUNCH_TROUBLE, text)
    found = picture.reasons(job.id)
    if found:
        return found[0]
    window = picture.switches.window
    if window is not None and window.gpus is None and window.began(now):
        return Reason(ReasonCode.MAINTENANCE, window_text(window, (), now))
    return Reason(ReasonCode.PRIORITY, "jobs before it in line come first")


def _held_reason(job: Job) -> Reason:
    if job.held_by == "past":
        text = (
            f"attempt {job.attempt} ran, and the database that was put in the place of a newer one did not know of it;"
            f" see `gpuq logs {job.id}`, then `gpuq release {job.id}` runs it again, `gpuq cancel {job.id}` does not"
        )
        return Reason(ReasonCode.HELD_BY_ADMIN, text)
    if job.held_by == "secrets":
        text = (
            "its secrets cannot be read, because the key of this home is not the one that they were encrypted with (see"
            f" `gpuq show {job.id}`); with that key back in its place `gpuq release {job.id}` lets it start"
        )
        return Reason(ReasonCode.SECRETS_UNREADABLE, text)
    code = ReasonCode.HELD_BY_ADMIN if job.held_by == "admin" else ReasonCode.HELD_BY_USER
    who = "an administrator" if job.held_by == "admin" else job.user
    return Reason(code, f"held by {who}; `gpuq release {job.id}` puts it back in line")


def last_error(tx: Reader, job: Job) -> str | None:
    """Of a job that waits for its next try: what went wrong with the last one, as far as it is known."""
    attempts = tx.attempts(job.id) if job.state is JobState.DELAYED and job.attempt else ()
    return (attempts[-1].error or None) if attempts else None


def _dependency_reason(tx: Reader, job: Job) -> Reason:
    still = tx.open_dependencies(job.id)
    for on_id, kind, state in still:
        if kind == "success" and state in FINAL:
            text = f"job {on_id} {state}; it runs only after `gpuq retry {on_id}` succeeds"
            return Reason(ReasonCode.DEPENDENCY_NEVER_SATISFIED, text)
    waited = ", ".join(f"job {on_id} ({state})" for on_id, _, state in still[:5])
    more = f" and {len(still) - 5} more" if len(still) > 5 else ""
    return Reason(ReasonCode.DEPENDENCY, f"waits for {waited}{more}")


def read_progress(ctx: QueryContext, job: Job) -> float | None:
    """0 to 1 from what the program wrote to progress.json; None for anything else in there."""
    data = ctx.launcher.progress(job.run_dir, job.uid) if job.run_dir is not None else None
    value = data.get("progress") if data is not None else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= 1 else None

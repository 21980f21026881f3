"""The end of an attempt: attempt, job, event, and dead letter or next retry in one guarded transaction.

Idempotent by its guards: reading the same exit record again finds the attempt ended and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpuq.domain.caller import ACTOR
from gpuq.domain.job import Job
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.results import RESULT_COLUMNS
from gpuq.domain.retry import RetryDecision, decide_retry, is_quick_failure
from gpuq.domain.states import JobState
from gpuq.engine.attempt.running import record_running
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.engine.hot.queue_hints import publish_jobs
from gpuq.engine.outcome.classification import End
from gpuq.engine.outcome.dependents import settle_dependents
from gpuq.engine.outcome.gpu_memory_request import memory_request
from gpuq.engine.outcome.requeue import place_in_line, requeued
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import DeadLetter, Move, Writer


@dataclass
class Written:
    """What was written of a turn. `claimed`: attempts that are to be launched; `states`: of the ends, jobs by their new
    state; `queued`: jobs that wait since one of the ends."""

    claimed: list[TrackedAttempt] = field(default_factory=list)
    states: dict[int, JobState] = field(default_factory=dict)
    queued: list[QueueEntry] = field(default_factory=list)


def announce(ctx: Context, written: Written) -> None:
    """After the commit: the jobs that wait again are offered, and whoever follows the events is woken."""
    publish_jobs(ctx, written.queued)
    if JobState.DELAYED in written.states.values():
        ctx.notifier.publish(Topic.DELAYED)
    ctx.notifier.publish(Topic.EVENTS)


def record_end(ctx: Context, tx: Writer, end: End, written: Written) -> None:
    """The rows of an end, in a transaction of the caller's; what it means for its job is added to `written`. Raises
    LeaseLost when that attempt is not the live one: then the transaction may not be committed."""
    tracked, result = end
    now = ctx.clock.now()
    job = tx.job(tracked.job.id)
    state = job.state
    if (start := tracked.unrecorded_start) is not None:
        state = record_running(tx, job, tracked.number, tracked.token, start)
    tx.end_attempt(job.id, tracked.number, tracked.token, result)
    # A job that was told to stop while it was being launched has no start of its own yet.
    began = tracked.launched.started_at if tracked.launched is not None else job.started_at
    decision = _decide(ctx, tx, job, tracked, result, began)
    memory = memory_request(ctx, job, result, decision)
    place = place_in_line(ctx, tx, job, result, decision)
    tx.move(
        Move(
            job.id,
            decision.state,
            # Exactly the state that was read: a cancel that slipped in between changes the verdict.
            frozenset({state}),
            ACTOR,
            now,
            detail="; ".join([_detail(result, decision), *memory.told]),
            attempt=tracked.number,
            token=tracked.token,
            set={**_columns(job, result, decision, now, began), **memory.columns, **place},
            seen=(state, job.attempt, job.token),
        )
    )
    if decision.dead_letter:
        letter = DeadLetter(job.id, now, str(result.outcome), result.error, tracked.number, result.log_tail)
        tx.add_dead_letter(letter)
    written.states[job.id] = decision.state
    if decision.state is JobState.QUEUED:
        written.queued.append(QueueEntry(job.id, job.gpus, place.get("score", job.score)))
    elif decision.state in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}:
        written.queued.extend(settle_dependents(tx, job.id, decision.state, now))


def _is_quick_failure(ctx: Context, tx: Writer, job: Job, result: Result, began: float | None) -> bool:
    """Only of a job whose submitter left the number of retries to us."""
    ended = {"started_at": result.started_at or began, "finished_at": result.finished_at}
    return (
        not ctx.settings.retry_quick
        and is_quick_failure(result.outcome, retries_used=job.retries_used, **ended)
        and tx.spec(job.id)[0].max_retries is None
    )


def _decide(
    ctx: Context, tx: Writer, job: Job, tracked: TrackedAttempt, result: Result, began: float | None
) -> RetryDecision:
    return decide_retry(
        result.outcome,
        stop_reason="cancel" if tracked.cancelled else job.stop_reason,
        retries_used=job.retries_used,
        max_retries=job.max_retries,
        lost_count=job.lost_count,
        base_s=ctx.settings.retry_base,
        jitter=ctx.random.random(),
        machine_fault=result.machine_fault,
        failed_alone=tracked.failed_alone,
        quick_failure=_is_quick_failure(ctx, tx, job, result, began),
        requeued=requeued(tx, job, result),
    )


def _columns(job: Job, result: Result, decision: RetryDecision, now: float, started_at: float | None) -> dict[str, Any]:
    """`started_at`: when its process was seen to start, for a record of the end that does not say it."""
    values: dict[str, Any] = {}
    if decision.uses_retry:
        values["retries_used"] = job.retries_used + 1
    if decision.counts_lost:
        values["lost_count"] = job.lost_count + 1
    if decision.state is JobState.DELAYED:
        values["eligible_at"] = round(now + (decision.delay_s or 0.0), 3)
    if decision.state in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}:
        values.update(
            outcome=result.outcome if decision.state is not JobState.CANCELLED else Outcome.CANCELLED,
            exit_code=result.exit_code,
            signal=result.signal,
            # A cancel is no error; who asked for it, and why, stands in the events.
            error=result.error if decision.state is not JobState.CANCELLED else None,
            started_at=result.started_at or started_at,
            finished_at=result.finished_at or now,
            **_results(job, result),
        )
    return values


def _results(job: Job, result: Result) -> dict[str, Any]:
    """The columns of what the job left; most leave nothing, and nothing is written then. A job that was retried may
    have left something at an earlier end."""
    some = any(getattr(each, name) is not None for each in (result, job) for name in RESULT_COLUMNS)
    return {name: getattr(result, name) for name in RESULT_COLUMNS} if some else {}


def _detail(result: Result, decision: RetryDecision) -> str:
    parts = [str(result.outcome)]
    if result.error:
        parts.append(result.error)
    elif result.exit_code:
        parts.append(f"exit code {result.exit_code}")
    if result.result_error:
        parts.append(result.result_error)
    if decision.delay_s is not None:
        parts.append(f"again in {decision.delay_s:.1f} s")
    if decision.why:
        parts.append(decision.why)
    return "; ".join(parts)

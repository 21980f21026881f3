"""The end of an attempt: attempt, job, event, and dead letter or next retry in one guarded transaction.

Idempotent by its guards: reading the same exit record again finds the attempt ended and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpuq.domain import failpoints
from gpuq.domain.caller import ACTOR
from gpuq.domain.gpu import suits
from gpuq.domain.gpu_memory import raised
from gpuq.domain.job import Job, Launched
from gpuq.domain.oom import gpu_oom
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.retry import RetryDecision, decide_retry
from gpuq.domain.states import JobState
from gpuq.engine.attempt.logs import open_log
from gpuq.engine.attempt.running import record_running
from gpuq.engine.context import Context
from gpuq.engine.hot.queue_hints import publish_jobs
from gpuq.engine.outcome.dependents import wake_dependents
from gpuq.errors import LeaseLost
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.ports.records import DeadLetter, Move, Writer

log = logging.getLogger(__name__)

TAIL_BYTES = 16_384
TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt whose end was seen. `launched` when its start has not been written yet."""

    job_id: int
    number: int
    token: str
    result: Result
    log_path: str
    gpus: int
    launched: Launched | None = None


@dataclass
class Written:
    """What a pass of `finish` did: jobs by their new state, and members to offer."""

    states: dict[int, JobState] = field(default_factory=dict)
    queued: list[QueueEntry] = field(default_factory=list)


def finish(ctx: Context, ended: Sequence[Ended]) -> Written:
    """One transaction for all; when one of them turns out not to be live, each in its own. Raises
    DatabaseUnavailable: then nothing is written and the caller comes again, the exit records stay."""
    known = classified(ctx, ended)
    try:
        written = _finish_together(ctx, known)
    except LeaseLost:
        written = Written()
        for item in known:
            try:
                one = _finish_together(ctx, [item])
            except LeaseLost as error:
                log.warning("job %d attempt %d: end not written: %s", item.job_id, item.number, error.message)
                continue
            written.states.update(one.states)
            written.queued.extend(one.queued)
    announce(ctx, written)
    return written


def announce(ctx: Context, written: Written) -> None:
    """After the commit: the jobs that wait again are offered, and whoever follows the events is woken."""
    publish_jobs(ctx, written.queued)
    if JobState.DELAYED in written.states.values():
        ctx.notifier.publish(Topic.DELAYED)
    ctx.notifier.publish(Topic.EVENTS)


def _finish_together(ctx: Context, ended: Sequence[Ended]) -> Written:
    with ctx.records.write() as tx:
        written = finish_in(ctx, tx, ended)
        failpoints.point("finish.before_commit")
    failpoints.point("finish.committed")
    return written


def finish_in(ctx: Context, tx: Writer, ended: Sequence[Ended]) -> Written:
    """The rows of these ends, `classified` before, in a transaction of the caller's. Raises LeaseLost: then none of
    them may be committed."""
    written = Written()
    for item in ended:
        _finish_one(ctx, tx, item, written)
    return written


def _finish_one(ctx: Context, tx: Writer, item: Ended, written: Written) -> None:
    now = ctx.clock.now()
    job = tx.job(item.job_id)
    state = job.state
    if item.launched is not None:
        state = record_running(tx, job, item.number, item.token, item.launched)
    tx.end_attempt(item.job_id, item.number, item.token, item.result)
    result = item.result
    decision = decide_retry(
        result.outcome,
        stop_reason=job.stop_reason,
        retries_used=job.retries_used,
        max_retries=job.max_retries,
        lost_count=job.lost_count,
        base_s=ctx.settings.retry_base,
        jitter=ctx.random.random(),
        machine_fault=result.machine_fault,
    )
    memory = _raised_memory(ctx, job, item, decision)
    tx.move(
        Move(
            job.id,
            decision.state,
            # Exactly the state that was read: a cancel that slipped in between changes the verdict.
            frozenset({state}),
            ACTOR,
            now,
            detail="; ".join([_detail(result, decision), *memory.told]),
            attempt=item.number,
            token=item.token,
            set={**_columns(job, result, decision, now), **memory.columns},
            seen=(state, job.attempt, job.token),
        )
    )
    if decision.dead_letter:
        tx.add_dead_letter(DeadLetter(job.id, now, str(result.outcome), result.error, item.number, result.log_tail))
    written.states[job.id] = decision.state
    if decision.state is JobState.QUEUED:
        written.queued.append(QueueEntry(job.id, job.gpus, job.score))
    elif decision.state in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}:
        written.queued.extend(wake_dependents(tx, job.id, now))


@dataclass(frozen=True, slots=True)
class _Memory:
    """What changes in a job's request for GPU memory, and what its history says of that."""

    columns: dict[str, Any] = field(default_factory=dict)
    told: tuple[str, ...] = ()


def _raised_memory(ctx: Context, job: Job, item: Ended, decision: RetryDecision) -> _Memory:
    """A job that shares GPUs and ran out of their memory asks for more when it runs again."""
    asked = job.gpu_mem_mb
    if item.result.outcome is not Outcome.GPU_OOM or decision.state is not JobState.DELAYED or asked is None:
        return _Memory()
    allowed = [
        gpu.memory_mb
        for gpu in ctx.gpus.inventory()
        if suits(gpu.index, gpu.model, gpu.memory_mb, ids=job.gpu_ids, wanted_model=job.gpu_model, mem_mb=None)
    ]
    peak = item.result.peak_gpu_mem_mb
    wanted = raised(asked, peak, job.gpus, allowed)
    seen = f", {peak} seen in use" if peak else ""
    if wanted is None:
        told = f"no longer shares its GPUs (asked for {asked} MiB on each{seen}; more is not on any)"
    else:
        told = f"asks for {wanted} MiB on each GPU instead of {asked}{seen}"
    return _Memory({"gpu_mem_mb": wanted}, (told,))


def _columns(job: Job, result: Result, decision: RetryDecision, now: float) -> dict[str, Any]:
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
            started_at=result.started_at or job.started_at,
            finished_at=result.finished_at or now,
        )
    return values


def _detail(result: Result, decision: RetryDecision) -> str:
    parts = [str(result.outcome)]
    if result.error:
        parts.append(result.error)
    elif result.exit_code:
        parts.append(f"exit code {result.exit_code}")
    if decision.delay_s is not None:
        parts.append(f"again in {decision.delay_s:.1f} s")
    if decision.why:
        parts.append(decision.why)
    return "; ".join(parts)


def log_tail(path: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, at most TAIL_BYTES; empty when there is none."""
    try:
        with open_log(path) as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - TAIL_BYTES))
            text = stream.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.replace("\0", "").splitlines()[-lines:])


def classified(ctx: Context, ended: Sequence[Ended]) -> list[Ended]:
    """With what the logs tell of the failures. Reads files, so it comes before the transaction."""
    now = ctx.clock.now()
    return [replace(item, result=_classified(item, now)) for item in ended]


def _classified(item: Ended, now: float) -> Result:
    """Recognises GPU out-of-memory in the log, and keeps the log's end with every failure."""
    result = item.result if item.result.finished_at is not None else replace(item.result, finished_at=now)
    if result.outcome in {Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.PREEMPTED}:
        return result
    tail = log_tail(item.log_path, lines=200)
    kept = replace(result, log_tail="\n".join(tail.splitlines()[-TAIL_LINES:]))
    if item.gpus and result.outcome in {Outcome.EXIT_NONZERO, Outcome.SIGNAL}:
        line = gpu_oom(tail, result.exit_code)
        if line is not None:
            return replace(kept, outcome=Outcome.GPU_OOM, error=line)
    return kept

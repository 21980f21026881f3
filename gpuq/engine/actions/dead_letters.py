"""The dead-letter queue: jobs whose retries are used up, until somebody retries or drops them."""

from __future__ import annotations

from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.times import iso
from gpuq.engine.access import may_read, require_owner
from gpuq.engine.actions import retry as retry_verb
from gpuq.engine.context import ActionContext
from gpuq.errors import NotFound
from gpuq.ports.notify import Topic
from gpuq.ports.records import DeadLetter, JobFilter


def list_letters(ctx: ActionContext, caller: Caller, *, limit: int | None = None) -> list[dict[str, Any]]:
    """Newest first, ready for JSON. The last lines of the output are for whoever may read it."""
    with ctx.records.read() as tx:
        letters = tx.dead_letters(limit)
        jobs = {job.id: job for job in tx.jobs(JobFilter(ids=tuple(letter.job_id for letter in letters)))}
    return [_json(ctx, letter, jobs[letter.job_id], caller) for letter in letters]


def show_letter(ctx: ActionContext, job_id: int, caller: Caller) -> dict[str, Any]:
    """One dead letter, ready for JSON, as `list_letters` shows it. Raises NotFound."""
    with ctx.records.read() as tx:
        letter = tx.dead_letter(job_id)
        if letter is None:
            raise _no_letter(job_id)
        return _json(ctx, letter, tx.job(job_id), caller)


def _json(ctx: ActionContext, letter: DeadLetter, job: Job, caller: Caller) -> dict[str, Any]:
    return {
        "job_id": letter.job_id,
        "name": job.name,
        "user": job.user,
        "failed_at": iso(letter.failed_at),
        "outcome": letter.outcome,
        "error": letter.error,
        "attempts": letter.attempts,
        "log_tail": letter.log_tail if may_read(ctx.accounts, job.user, job.uid, caller) else None,
    }


def _no_letter(job_id: int) -> NotFound:
    return NotFound(f"job {job_id} is not in the dead-letter queue", hint="`gpuq dlq list` shows what is")


def retry(ctx: ActionContext, job_id: int, caller: Caller) -> Job:
    """Raises NotFound for a job that is not in the dead-letter queue, else as `gpuq retry`."""
    _require_letter(ctx, job_id)
    return retry_verb.retry(ctx, job_id, caller)


def remove(ctx: ActionContext, job_id: int, caller: Caller) -> None:
    """The letter goes, the job and its history stay."""
    with ctx.records.write() as tx:
        require_owner(tx.job(job_id), caller, "drop the dead letter of")
        if not tx.remove_dead_letter(job_id):
            raise _no_letter(job_id)
    ctx.notifier.publish(Topic.EVENTS)


def _require_letter(ctx: ActionContext, job_id: int) -> None:
    with ctx.records.read() as tx:
        tx.job(job_id)
        if tx.dead_letter(job_id) is None:
            raise _no_letter(job_id)

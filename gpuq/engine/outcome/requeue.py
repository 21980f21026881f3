"""A job that asked for it goes back in line at its time limit, or when it ends with 75 (EX_TEMPFAIL)."""

from __future__ import annotations

from gpuq.domain.job import Attempt, Job
from gpuq.domain.outcome import Result
from gpuq.domain.retry import QUICK_FAILURE_S, RetryDecision, asks_for_requeue
from gpuq.domain.states import JobState
from gpuq.engine.context import Context
from gpuq.engine.hot.ranking import ahead, ranking
from gpuq.ports.records import Reader, Writer


def requeued(tx: Reader, job: Job, result: Result) -> int | None:
    """How many of the job's last attempts, the one that has just been ended included, ended in such a way within
    QUICK_FAILURE_S of their start, one after another; None when it does not go back in line for such an end."""
    if not asks_for_requeue(result.outcome, result.exit_code) or not tx.spec(job.id)[0].requeue:
        return None
    quick = 0
    for attempt in reversed(tx.attempts(job.id)):
        if not _is_quick(attempt):
            break
        quick += 1
    return quick


def _is_quick(attempt: Attempt) -> bool:
    if not asks_for_requeue(attempt.outcome, attempt.exit_code) or attempt.finished_at is None:
        return False
    return attempt.finished_at - (attempt.started_at or attempt.finished_at) < QUICK_FAILURE_S


def place_in_line(ctx: Context, tx: Writer, job: Job, result: Result, decision: RetryDecision) -> dict[str, float]:
    """The column of its place: that of a job submitted now. With its old one it would go before all who came since, and
    a time limit would give nobody else a turn."""
    back = decision.state in {JobState.QUEUED, JobState.DELAYED} and not decision.uses_retry
    if not back or not asks_for_requeue(result.outcome, result.exit_code):
        return {}
    rule = ranking(ctx, tx)
    score = rule.score(job.priority, ctx.clock.now(), job.time_limit_s, ahead(tx, rule, job.user))
    return {"score": score}

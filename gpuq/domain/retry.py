"""What becomes of a job when an attempt ends: pure, from the outcome and the job's counters."""

from __future__ import annotations

from dataclasses import dataclass

from gpuq.domain.outcome import USES_RETRY, Outcome
from gpuq.domain.states import JobState

MAX_LOST = 5
MAX_DELAY_S = 3600.0
# Of a job that alone cannot be launched: about what the machine's own trouble would make it wait.
ALONE_BASE_S = 30.0
JITTER = 0.25
# A program that ends with an exit code so soon after its start has an error of its own: another run would not help.
QUICK_FAILURE_S = 10.0
# EX_TEMPFAIL of sysexits.h: try again later.
TEMPORARY_FAILURE = 75


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """The job's next state. `delay_s` is set exactly for `delayed`; `dead_letter` for `failed`."""

    state: JobState
    uses_retry: bool = False
    counts_lost: bool = False
    delay_s: float | None = None
    dead_letter: bool = False
    why: str = ""


def backoff_s(retry: int, base_s: float, jitter: float) -> float:
    """Seconds before retry number `retry` (from 1): base x 2^(retry-1), spread by up to a quarter either
    way, capped at an hour. `jitter` is a uniform draw from 0..1, passed in so that this stays pure."""
    plain = min(base_s * 2.0 ** min(retry - 1, 40), MAX_DELAY_S)
    return min(plain * (1 + JITTER * (2 * jitter - 1)), MAX_DELAY_S)


def is_quick_failure(
    outcome: Outcome, *, retries_used: int, started_at: float | None, finished_at: float | None
) -> bool:
    """Whether a program that had not been retried yet ended with an exit code within QUICK_FAILURE_S of its start: of a
    job that named no number of retries, that is taken for an error of the program. Times in epoch seconds."""
    if outcome is not Outcome.EXIT_NONZERO or retries_used or started_at is None or finished_at is None:
        return False
    return finished_at - started_at < QUICK_FAILURE_S


def asks_for_requeue(outcome: Outcome | None, exit_code: int | None) -> bool:
    """Whether a job with `--requeue` goes back in line after such an end: its time is over, or it says so itself."""
    return outcome is Outcome.TIME_LIMIT or (outcome is Outcome.EXIT_NONZERO and exit_code == TEMPORARY_FAILURE)


def decide_retry(
    outcome: Outcome,
    *,
    stop_reason: str | None,
    retries_used: int,
    max_retries: int,
    lost_count: int,
    base_s: float,
    jitter: float,
    machine_fault: bool = False,
    failed_alone: int = 0,
    quick_failure: bool = False,
    requeued: int | None = None,
) -> RetryDecision:
    """`stop_reason`: what gpuq had asked for (`cancel`, `preempt`, `time_limit`, `drain`) or None; `machine_fault`: it
    could not be launched, and its program has never existed; `failed_alone`: so often in a row, while others were;
    `quick_failure`: see there; `requeued`: it asked for it, and this is so many quick ends in a row (None: it did not).

    A cancel wins over everything but success: a job that ended well before the stop reached it is completed.
    """
    if outcome is Outcome.SUCCEEDED:
        return RetryDecision(JobState.COMPLETED)
    if outcome is Outcome.CANCELLED or stop_reason == "cancel":
        return RetryDecision(JobState.CANCELLED)
    if outcome is Outcome.PREEMPTED:
        return RetryDecision(JobState.QUEUED, why="back in line, no retry used")
    if outcome in {Outcome.LAUNCH_ERROR, Outcome.LOST} and machine_fault:
        return _not_launched(failed_alone, jitter)
    if outcome is Outcome.LOST:
        return _lost(lost_count + 1, base_s, jitter)
    if requeued is not None:
        return _requeued(requeued, base_s, jitter)
    if quick_failure and retries_used < max_retries:
        told = f"ended within {QUICK_FAILURE_S:g} s of its start and named no --retries: not retried"
        return RetryDecision(JobState.FAILED, dead_letter=True, why=told)
    if outcome in USES_RETRY and retries_used < max_retries:
        delay = backoff_s(retries_used + 1, base_s, jitter)
        why = f"retry {retries_used + 1} of {max_retries}"
        return RetryDecision(JobState.DELAYED, uses_retry=True, delay_s=delay, why=why)
    return RetryDecision(JobState.FAILED, dead_letter=True, why=f"{retries_used} of {max_retries} retries used")


def _not_launched(failed_alone: int, jitter: float) -> RetryDecision:
    if not failed_alone:
        return RetryDecision(JobState.QUEUED, why="the machine's fault: back in line, no retry used")
    why = "again and again, while other jobs are launched: it waits alone, no retry used"
    return RetryDecision(JobState.DELAYED, delay_s=backoff_s(failed_alone, ALONE_BASE_S, jitter), why=why)


def _requeued(quick_ends: int, base_s: float, jitter: float) -> RetryDecision:
    if not quick_ends:
        return RetryDecision(JobState.QUEUED, why="requeued, no retry used")
    why = f"requeued, no retry used; it ended within {QUICK_FAILURE_S:g} s of its start"
    return RetryDecision(JobState.DELAYED, delay_s=backoff_s(quick_ends, base_s, jitter), why=why)


def _lost(times: int, base_s: float, jitter: float) -> RetryDecision:
    if times >= MAX_LOST:
        return RetryDecision(JobState.FAILED, counts_lost=True, dead_letter=True, why=f"lost {times} times")
    delay = backoff_s(times, base_s, jitter)
    return RetryDecision(JobState.DELAYED, counts_lost=True, delay_s=delay, why="lost; no retry used")

"""What becomes of a job when an attempt ends: pure, from the outcome and the job's counters."""

from __future__ import annotations

from dataclasses import dataclass

from gpuq.domain.outcome import USES_RETRY, Outcome
from gpuq.domain.states import JobState

MAX_LOST = 5
MAX_DELAY_S = 3600.0
JITTER = 0.25


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
) -> RetryDecision:
    """`stop_reason` is what gpuq itself had asked for (`cancel`, `preempt`, `time_limit`, `drain`) or None;
    `machine_fault`: the machine could not launch it, and its program has never existed.

    A cancel wins over everything but success: a job that ended well before the stop reached it is completed.
    """
    if outcome is Outcome.SUCCEEDED:
        return RetryDecision(JobState.COMPLETED)
    if outcome is Outcome.CANCELLED or stop_reason == "cancel":
        return RetryDecision(JobState.CANCELLED)
    if outcome is Outcome.PREEMPTED:
        return RetryDecision(JobState.QUEUED, why="back in line, no retry used")
    if outcome in {Outcome.LAUNCH_ERROR, Outcome.LOST} and machine_fault:
        return RetryDecision(JobState.QUEUED, why="the machine's fault: back in line, no retry used")
    if outcome is Outcome.LOST:
        if lost_count + 1 >= MAX_LOST:
            return RetryDecision(
                JobState.FAILED, counts_lost=True, dead_letter=True, why=f"lost {lost_count + 1} times"
            )
        delay = backoff_s(lost_count + 1, base_s, jitter)
        return RetryDecision(JobState.DELAYED, counts_lost=True, delay_s=delay, why="lost; no retry used")
    if outcome in USES_RETRY and retries_used < max_retries:
        return RetryDecision(
            JobState.DELAYED,
            uses_retry=True,
            delay_s=backoff_s(retries_used + 1, base_s, jitter),
            why=f"retry {retries_used + 1} of {max_retries}",
        )
    return RetryDecision(JobState.FAILED, dead_letter=True, why=f"{retries_used} of {max_retries} retries used")

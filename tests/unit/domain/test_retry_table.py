"""Every way in which an attempt ends, and what becomes of its job, to the last retry."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.retry import MAX_LOST, RetryDecision, backoff_s, decide_retry, is_quick_failure
from gpuq.domain.states import JobState


@pytest.mark.parametrize(
    ("retry", "jitter", "delay"),
    [
        (1, 0.5, 2.0), (2, 0.5, 4.0), (3, 0.5, 8.0), (11, 0.5, 2048.0), (12, 0.5, 3600.0), (1, 0.0, 1.5), (1, 1.0, 2.5),
        (1, 0.25, 1.75), (11, 1.0, 2560.0), (12, 0.0, 2700.0), (12, 1.0, 3600.0), (5000, 0.5, 3600.0),
    ],
)  # fmt: skip
def test_the_wait_before_a_retry_doubles_up_to_an_hour(retry: int, jitter: float, delay: float) -> None:
    assert backoff_s(retry, 2.0, jitter) == pytest.approx(delay)


def test_a_tiny_base_doubles_forty_times_at_most() -> None:
    assert backoff_s(41, 1e-10, 0.5) == backoff_s(42, 1e-10, 0.5) == pytest.approx(1e-10 * 2**40)
    assert backoff_s(40, 1e-10, 0.5) == pytest.approx(1e-10 * 2**39)


QUICK = RetryDecision(
    JobState.FAILED, dead_letter=True, why="ended within 10 s of its start and named no --retries: not retried"
)


@pytest.mark.parametrize(
    ("outcome", "facts", "quick"),
    [
        (Outcome.EXIT_NONZERO, {}, True),
        (Outcome.EXIT_NONZERO, {"finished_at": 109.9}, True),
        (Outcome.EXIT_NONZERO, {"finished_at": 110.0}, False),
        (Outcome.EXIT_NONZERO, {"retries_used": 1}, False),
        (Outcome.EXIT_NONZERO, {"started_at": None}, False),
        (Outcome.EXIT_NONZERO, {"finished_at": None}, False),
        *((outcome, {}, False) for outcome in Outcome if outcome is not Outcome.EXIT_NONZERO),
    ],
)
def test_only_an_exit_code_soon_after_the_first_start_is_a_quick_failure(
    outcome: Outcome, facts: dict[str, Any], quick: bool
) -> None:
    plain: dict[str, Any] = {"retries_used": 0, "started_at": 100.0, "finished_at": 101.0}
    assert is_quick_failure(outcome, **{**plain, **facts}) is quick


def test_a_quick_failure_is_a_dead_letter_at_once_unless_there_was_no_retry_anyway() -> None:
    assert retry(Outcome.EXIT_NONZERO, quick_failure=True) == QUICK
    assert retry(Outcome.EXIT_NONZERO, quick_failure=True, max_retries=0).why == "0 of 0 retries used"


def retry(outcome: Outcome, **facts: Any) -> RetryDecision:
    plain = {"stop_reason": None, "retries_used": 0, "max_retries": 2, "lost_count": 0, "base_s": 2.0, "jitter": 0.5}
    return decide_retry(outcome, **{**plain, **facts})


@pytest.mark.parametrize(
    ("outcome", "facts", "wanted"),
    [
        (Outcome.SUCCEEDED, {}, RetryDecision(JobState.COMPLETED)),
        (Outcome.CANCELLED, {}, RetryDecision(JobState.CANCELLED)),
        (Outcome.TIME_LIMIT, {"stop_reason": "cancel"}, RetryDecision(JobState.CANCELLED)),
        (Outcome.PREEMPTED, {}, RetryDecision(JobState.QUEUED, why="back in line, no retry used")),
        (
            Outcome.LAUNCH_ERROR,
            {"machine_fault": True, "retries_used": 9},
            RetryDecision(JobState.QUEUED, why="the machine's fault: back in line, no retry used"),
        ),
        (
            Outcome.EXIT_NONZERO,
            {"machine_fault": True},
            RetryDecision(JobState.DELAYED, uses_retry=True, delay_s=2.0, why="retry 1 of 2"),
        ),
        (
            Outcome.LAUNCH_ERROR,
            {"retries_used": 1},
            RetryDecision(JobState.DELAYED, uses_retry=True, delay_s=4.0, why="retry 2 of 2"),
        ),
        (
            Outcome.SIGNAL,
            {"retries_used": 2},
            RetryDecision(JobState.FAILED, dead_letter=True, why="2 of 2 retries used"),
        ),
        (
            Outcome.LOST,
            {"lost_count": 0},
            RetryDecision(JobState.DELAYED, counts_lost=True, delay_s=2.0, why="lost; no retry used"),
        ),
        (
            Outcome.LOST,
            {"lost_count": 3},
            RetryDecision(JobState.DELAYED, counts_lost=True, delay_s=16.0, why="lost; no retry used"),
        ),
        (
            Outcome.LOST,
            {"lost_count": 4},
            RetryDecision(JobState.FAILED, counts_lost=True, dead_letter=True, why="lost 5 times"),
        ),
    ],
)
def test_what_becomes_of_a_job_is_decided_whole(outcome: Outcome, facts: dict[str, Any], wanted: RetryDecision) -> None:
    assert retry(outcome, **facts) == wanted
    assert MAX_LOST == 5


def test_a_decision_counts_nothing_unless_said() -> None:
    plain = RetryDecision(JobState.QUEUED)
    assert (plain.uses_retry, plain.counts_lost, plain.delay_s, plain.dead_letter, plain.why) == (
        False,
        False,
        None,
        False,
        "",
    )

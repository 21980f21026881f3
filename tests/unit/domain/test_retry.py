from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.domain.outcome import USES_RETRY, Outcome
from gpuq.domain.retry import MAX_DELAY_S, MAX_LOST, RetryDecision, backoff_s, decide_retry
from gpuq.domain.states import JobState


def decision(
    outcome: Outcome, *, stop: str | None = None, used: int = 0, allowed: int = 3, lost: int = 0
) -> RetryDecision:
    return decide_retry(
        outcome, stop_reason=stop, retries_used=used, max_retries=allowed, lost_count=lost, base_s=2.0, jitter=0.5
    )


@pytest.mark.parametrize("outcome", sorted(USES_RETRY))
def test_a_failure_is_retried_until_the_retries_are_used_up(outcome: Outcome) -> None:
    first = decision(outcome)
    assert (first.state, first.uses_retry, first.delay_s) == (JobState.DELAYED, True, 2.0)
    last = decision(outcome, used=3)
    assert (last.state, last.uses_retry, last.dead_letter) == (JobState.FAILED, False, True)


def test_success_completes_even_when_a_stop_was_on_its_way() -> None:
    assert decision(Outcome.SUCCEEDED, stop="cancel").state is JobState.COMPLETED


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.SUCCEEDED}))
def test_a_cancelled_job_is_never_retried(outcome: Outcome) -> None:
    assert decision(outcome, stop="cancel").state is JobState.CANCELLED


def test_preemption_uses_no_retry_and_waits_for_nothing() -> None:
    found = decision(Outcome.PREEMPTED, used=3)
    assert (found.state, found.uses_retry, found.dead_letter) == (JobState.QUEUED, False, False)


def test_lost_uses_no_retry_but_is_bounded() -> None:
    found = decision(Outcome.LOST, used=3)
    assert (found.state, found.uses_retry, found.counts_lost) == (JobState.DELAYED, False, True)
    end = decision(Outcome.LOST, lost=MAX_LOST - 1)
    assert (end.state, end.dead_letter) == (JobState.FAILED, True)


def test_no_retries_means_the_first_failure_is_the_last() -> None:
    assert decision(Outcome.EXIT_NONZERO, allowed=0).state is JobState.FAILED


@given(st.integers(1, 1000), st.floats(0.01, 3600), st.floats(0, 1))
def test_backoff_doubles_within_a_quarter_and_stays_under_an_hour(retry: int, base: float, jitter: float) -> None:
    delay = backoff_s(retry, base, jitter)
    plain = min(base * 2.0 ** min(retry - 1, 40), MAX_DELAY_S)
    assert 0.75 * plain <= delay * 1.0000001
    assert delay <= min(1.25 * plain, MAX_DELAY_S) * 1.0000001

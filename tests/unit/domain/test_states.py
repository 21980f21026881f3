from __future__ import annotations

import itertools

import pytest

from gpuq.domain.states import (
    ACTIVE,
    FIELDS_OF_STATES,
    FINAL,
    REQUIRED_IN_STATES,
    SENTENCES,
    TRANSITIONS,
    WAITING,
    JobState,
    allowed,
)


def test_every_state_is_waiting_active_or_final_and_has_a_sentence() -> None:
    assert set(JobState) == WAITING | ACTIVE | FINAL
    assert not (WAITING & ACTIVE)
    assert not (ACTIVE & FINAL)
    assert not (WAITING & FINAL)
    assert set(SENTENCES) == set(JobState) == set(TRANSITIONS)


def test_only_retry_leads_out_of_a_final_state() -> None:
    for state in FINAL:
        assert set(TRANSITIONS[state]) <= {JobState.QUEUED, JobState.BLOCKED}
    assert not TRANSITIONS[JobState.COMPLETED]


def sources_of(target: JobState) -> set[JobState]:
    return {state for state, targets in TRANSITIONS.items() if target in targets}


def test_an_attempt_can_only_begin_from_the_queue() -> None:
    assert sources_of(JobState.STARTING) == {JobState.QUEUED}
    assert sources_of(JobState.RUNNING) == {JobState.STARTING}


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.product(sorted(WAITING), [JobState.COMPLETED, JobState.FAILED]))
)
def test_a_job_that_never_ran_cannot_complete_or_fail(source: JobState, target: JobState) -> None:
    assert not allowed(source, target)


def test_every_state_can_be_reached_and_left_unless_final() -> None:
    for state in JobState:
        if state not in FINAL:
            assert TRANSITIONS[state]
        if state not in {JobState.BLOCKED, JobState.HELD, JobState.DELAYED}:
            assert sources_of(state)


def test_required_fields_are_allowed_where_they_are_required() -> None:
    for field, states in REQUIRED_IN_STATES.items():
        assert states <= FIELDS_OF_STATES[field]

"""What is done about a supervisor that does not do its work."""

from __future__ import annotations

import pytest

from gpuq.domain.oversight import Evidence, Sight, Step, SupervisorState, decide

RUNS, STILL, GONE, UNSEEN = (
    SupervisorState.RUNS,
    SupervisorState.STANDS_STILL,
    SupervisorState.GONE,
    SupervisorState.UNSEEN,
)


def seen(state, kill_late_s=None, unread_s=None, unreaped_s=None, continued=0, **sight) -> Evidence:
    return Evidence(Sight(state, pid=1, start=1, **sight), kill_late_s, unread_s, unreaped_s, continued)


@pytest.mark.parametrize(
    ("evidence", "step"),
    [
        # Nothing is due.
        (seen(RUNS), Step.WAIT),
        (seen(UNSEEN), Step.WAIT),
        (seen(GONE), Step.WAIT),
        (seen(STILL), Step.CONTINUE),
        (seen(STILL, continued=50), Step.CONTINUE),
        (seen(STILL, continued=2, main_ended=True), Step.CONTINUE),
        (seen(STILL, continued=3, main_ended=True), Step.TAKE_OVER),
        # It is asked only while a stop is due.
        (seen(RUNS, unread_s=100.0), Step.WAIT),
        (seen(RUNS, unreaped_s=59.0, main_ended=True), Step.WAIT),
        (seen(RUNS, unreaped_s=60.0, main_ended=True), Step.TAKE_OVER),
        (seen(GONE, unreaped_s=60.0, main_ended=True), Step.WAIT),
        # A stop is due.
        (seen(RUNS, -30.0), Step.WAIT),
        (seen(RUNS, 1.9), Step.WAIT),
        (seen(RUNS, 2.0), Step.TAKE_OVER),
        (seen(UNSEEN, 2.0), Step.TAKE_OVER),
        (seen(UNSEEN, 1.0), Step.WAIT),
        (seen(GONE, 1000.0), Step.WAIT),
        (seen(RUNS, -30.0, unread_s=1.9), Step.WAIT),
        (seen(RUNS, -30.0, unread_s=2.0), Step.CONTINUE),
        (seen(RUNS, -30.0, unread_s=2.0, continued=3), Step.TAKE_OVER),
        (seen(STILL, -30.0), Step.CONTINUE),
        (seen(STILL, -30.0, continued=2), Step.CONTINUE),
        (seen(STILL, -30.0, continued=3), Step.TAKE_OVER),
        (seen(STILL, 2.0), Step.TAKE_OVER),
        (seen(RUNS, -30.0, unreaped_s=60.0, main_ended=True), Step.WAIT),
        # What was begun is gone on with, whatever the supervisor does meanwhile.
        *((seen(state, taken_over=True), Step.TAKE_OVER) for state in SupervisorState),
        (seen(RUNS, -30.0, taken_over=True), Step.TAKE_OVER),
    ],
)
def test_the_step_follows_from_what_was_seen(evidence: Evidence, step: Step) -> None:
    assert decide(evidence) is step

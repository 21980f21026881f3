"""What the event of a time limit says."""

from __future__ import annotations

import pytest

from gpuq.engine.attempt.updates import _limit_reached


@pytest.mark.parametrize(
    ("signal", "told"),
    [
        (None, "time limit reached"),
        ("USR1@2", "time limit reached; USR1 was due 2 s before"),
        ("TERM", "time limit reached; TERM was due 60 s before"),
    ],
)
def test_the_event_of_a_time_limit_names_the_signal_that_came_before(signal: str | None, told: str) -> None:
    assert _limit_reached(signal) == told

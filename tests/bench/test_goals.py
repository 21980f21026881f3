"""What a benchmark run says of its goals: reached, within the noise, or missed; and the exit status that follows."""

from __future__ import annotations

import goals
import pytest
from goals import GOALS, MISSED, NOISE, REACHED, Goal, judge, missed
from stats import Figure, noise


def figure(name: str, value: float, spread: float = 0.0) -> Figure:
    return Figure(name, value, "x", "", spread)


def words(*figures: Figure) -> list[str]:
    return [verdict.word for verdict in judge(figures)]


@pytest.fixture(autouse=True)
def two_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"delay": (Goal(4.0),), "rate": (Goal(100, most=False), Goal(2, most=False, of="other, rate"))}
    monkeypatch.setattr(goals, "GOALS", own)


@pytest.mark.parametrize(("value", "word"), [(3.9, REACHED), (4.0, REACHED), (4.3, NOISE), (4.5, MISSED)])
def test_a_delay_may_be_at_most_its_goal_and_its_own_noise(value: float, word: str) -> None:
    assert words(figure("delay", value, 0.1)) == [word]


@pytest.mark.parametrize(("value", "word"), [(101, REACHED), (100, REACHED), (92, NOISE), (80, MISSED)])
def test_a_rate_may_be_at_least_its_goal_less_its_own_noise(value: float, word: str) -> None:
    assert words(figure("rate", value, 0.1)) == [word]


def test_a_goal_beside_a_peer_is_judged_only_where_the_peer_was_measured_and_with_both_noises() -> None:
    rate = figure("rate", 150, 0.1)
    assert words(rate) == [REACHED]
    assert words(rate, figure("peer: other 1.2, rate", 70)) == [REACHED, REACHED]
    assert words(rate, figure("peer: other 1.2, rate", 90, 0.15)) == [REACHED, NOISE]
    assert words(rate, figure("peer: other 1.2, rate", 100)) == [REACHED, MISSED]
    assert words(rate, figure("peer: another 1.2, rate", 100)) == [REACHED]


def test_a_machine_that_changed_during_the_run_is_noise_too() -> None:
    floors = [figure(goals.DRIFT + when, value) for when, value in (("", 1.0), (" later", 1.0), (" last", 1.2))]
    assert words(figure("delay", 4.7), *floors[:2]) == [MISSED]
    assert words(figure("delay", 4.7), *floors) == [NOISE]


def test_what_was_missed_is_named() -> None:
    assert missed(judge([figure("delay", 9), figure("rate", 200)])) == ["delay"]
    assert missed(judge([figure("delay", 1), figure("unknown", 9)])) == []


def test_noise_falls_with_the_number_of_rounds_and_is_none_where_all_are_alike() -> None:
    assert noise([5.0]) == 0.0
    assert noise([5.0] * 9) == 0.0
    few, many = [4.0, 5.0, 6.0], [4.0, 5.0, 6.0] * 30
    assert 0 < noise(many) < noise(few)


def test_every_goal_can_be_read() -> None:
    texts = [goal.text() for several in GOALS.values() for goal in several]
    assert "≤ 4.5" in texts
    assert "≥ 30,000" in texts
    assert "≤ 1.1 × gq-local, dispatch, p50" in texts

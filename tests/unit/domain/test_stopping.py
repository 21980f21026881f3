from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.domain.stopping import StopTimes, effective_grace_s, grace_left_s, notice_of
from gpuq.supervise.ladder import KILL, NOTICE, TERMINATE, Ladder

USR1 = 10
REASONS = ("preempt", "drain", "cancel", "time_limit", "shutdown")
ANNOUNCED = ("preempt", "drain")

# Grace and the seconds before of `--signal` → seconds from the request to SIGTERM and to SIGKILL, of announced stops.
ANNOUNCED_TIMES = [
    (30.0, 0.0, 0.0, 30.0),
    (30.0, 10.0, 10.0, 40.0),
    (30.0, 30.0, 30.0, 60.0),
    (30.0, 60.0, 30.0, 60.0),
    (0.5, 60.0, 0.5, 1.0),
    (0.0, 60.0, 0.0, 0.0),
]
TABLE = [
    (reason, grace, before, *((term, kill) if reason in ANNOUNCED else (0.0, grace)))
    for reason in REASONS
    for grace, before, term, kill in ANNOUNCED_TIMES
]

seconds = st.floats(min_value=0.125, max_value=3600.0)


def ladder(grace_s: float = 30.0, before_s: float = 0.0) -> Ladder:
    notice = USR1 if before_s else None
    return Ladder(started=0.0, time_limit_s=None, kill_grace_s=grace_s, notice=notice, notice_before_s=before_s)


def climb(climbing: Ladder) -> dict[str, float]:
    """Every step that it takes → when."""
    taken: dict[str, float] = {}
    while KILL not in taken:
        at = climbing.next_at()
        assert at is not None
        taken.update((step, at) for step in climbing.due(at))
    return taken


@pytest.mark.parametrize(("reason", "grace_s", "before_s", "term_s", "kill_s"), TABLE)
def test_the_ladder_and_the_deadline_say_the_same(
    reason: str, grace_s: float, before_s: float, term_s: float, kill_s: float
) -> None:
    now = 1000.0
    times = StopTimes.of(reason, now, grace_s, before_s)
    assert (times.term_at - now, times.kill_at - now) == (term_s, kill_s)
    asked = ladder(before_s=before_s)
    asked.request(now, reason, grace_s)
    taken = climb(asked)
    assert taken[KILL] - now == kill_s
    # Without any grace there is nothing but SIGKILL.
    assert taken.get(TERMINATE) == (None if grace_s == 0 else now + term_s)
    assert taken.get(NOTICE) == (now if term_s else None)


def test_a_signal_that_the_supervisor_does_not_know_makes_no_lead() -> None:
    asked = Ladder(started=0.0, time_limit_s=None, kill_grace_s=30.0, notice=None, notice_before_s=60.0)
    asked.request(0.0, "preempt")
    assert climb(asked) == {TERMINATE: 0.0, KILL: 30.0}


@given(reason=st.sampled_from(REASONS), grace_s=seconds, before_s=st.just(0.0) | seconds, elapsed=st.floats(0.0, 0.999))
def test_a_stop_asked_for_again_ends_when_it_would_have(
    reason: str, grace_s: float, before_s: float, elapsed: float
) -> None:
    times = StopTimes.of(reason, 0.0, grace_s, before_s)
    now = elapsed * times.kill_at
    left = grace_left_s(reason, now, times.kill_at, before_s)
    # A supervisor that hears of it for the first time.
    assert StopTimes.of(reason, now, left, before_s).kill_at == pytest.approx(times.kill_at)
    # One that had heard of it: the same steps at the same moments.
    knows, undisturbed = ladder(before_s=before_s), ladder(before_s=before_s)
    for one in (knows, undisturbed):
        one.request(0.0, reason, grace_s)
        one.due(now)
    knows.request(now, reason, left)
    assert climb(knows) == pytest.approx(climb(undisturbed))


@given(reason=st.sampled_from(REASONS), grace_s=seconds, before_s=seconds, late_s=st.floats(0.0, 1e6))
def test_a_stop_whose_time_is_over_has_no_grace_left(
    reason: str, grace_s: float, before_s: float, late_s: float
) -> None:
    kill_at = StopTimes.of(reason, 0.0, grace_s, before_s).kill_at
    assert grace_left_s(reason, kill_at + late_s, kill_at, before_s) == 0.0


@given(
    first=st.sampled_from(REASONS),
    again=st.sampled_from(REASONS),
    grace_s=seconds,
    grace_again_s=st.floats(0.0, 7200.0),
    before_s=st.just(0.0) | seconds,
    elapsed=st.floats(0.0, 0.999),
)
def test_no_second_request_puts_an_end_off(
    first: str, again: str, grace_s: float, grace_again_s: float, before_s: float, elapsed: float
) -> None:
    asked = ladder(before_s=before_s)
    asked.request(0.0, first, grace_s)
    times = StopTimes.of(first, 0.0, grace_s, before_s)
    now = elapsed * times.kill_at
    asked.due(now)
    asked.request(now, again, grace_again_s)
    taken = climb(asked)
    assert taken[KILL] <= times.kill_at
    assert taken.get(TERMINATE, 0.0) <= times.term_at


def test_a_cancel_in_the_notice_of_a_preemption_skips_the_rest_of_the_notice() -> None:
    asked = ladder(before_s=40.0)
    asked.request(0.0, "preempt", 40.0)
    assert asked.due(0.0) == [NOTICE]
    asked.request(10.0, "cancel", 20.0)
    assert climb(asked) == {TERMINATE: 10.0, KILL: 30.0}


def test_what_the_main_process_leaves_in_its_notice_has_the_grace_and_not_the_notice_too() -> None:
    asked = ladder(before_s=40.0)
    asked.request(0.0, "preempt", 40.0)
    assert asked.due(0.0) == [NOTICE]
    asked.main_ended(10.0)
    assert climb(asked) == {TERMINATE: 10.0, KILL: 50.0}


def test_what_the_main_process_leaves_in_its_grace_has_the_rest_of_it() -> None:
    asked = ladder()
    asked.request(0.0, "preempt", 40.0)
    assert asked.due(0.0) == [TERMINATE]
    asked.main_ended(10.0)
    assert climb(asked) == {KILL: 40.0}


@pytest.mark.parametrize(
    ("signal", "notice"),
    [(None, (None, 0.0)), ("USR1", ("USR1", 60.0)), ("USR1@0", ("USR1", 0.0)), ("INT@5", ("INT", 5.0))],
)
def test_what_is_written_of_a_signal_is_its_name_and_the_seconds_before(
    signal: str | None, notice: tuple[str | None, float]
) -> None:
    assert notice_of(signal) == notice


def test_a_grace_of_zero_is_one_that_was_asked_for() -> None:
    assert [effective_grace_s(own, 30.0) for own in (None, 0.0, 600.0)] == [30.0, 0.0, 600.0]

"""When an attempt is dead: every combination of signs, and what people are told of the doubt."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from gpuq.domain.proof_of_death import Evidence, Sign, Verdict, doubt, is_forsaken, judge, signs_of

NAMES = list(signs_of(Evidence(Sign.GONE, Sign.GONE)))
NOTHING = {Sign.GONE, Sign.UNTOLD}


def all_evidence() -> Iterator[Evidence]:
    for signs in itertools.product(Sign, repeat=len(NAMES)):
        yield Evidence(**dict(zip(NAMES, signs, strict=True)))


def test_an_attempt_is_dead_only_when_everything_says_so() -> None:
    for seen in all_evidence():
        nothing = set(signs_of(seen).values()) <= NOTHING
        assert (judge(seen) is Verdict.DEAD) == nothing
        assert bool(doubt(seen)) == (not nothing)


def test_what_has_a_supervisor_is_left_to_it_and_what_has_none_may_be_ended() -> None:
    for seen in all_evidence():
        over = {seen.lock, seen.supervisor}
        rest = {sign for name, sign in signs_of(seen).items() if name not in ("lock", "supervisor")}
        if Sign.LIVES in over:
            expected = Verdict.SUPERVISED
        elif Sign.UNSEEN in over:
            expected = Verdict.IN_DOUBT
        elif Sign.LIVES in rest:
            expected = Verdict.LEFT_OVER
        else:
            expected = Verdict.IN_DOUBT if Sign.UNSEEN in rest else Verdict.DEAD
        assert judge(seen) is expected
        assert is_forsaken(seen) == (over <= NOTHING)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Evidence(Sign.GONE, Sign.LIVES, pids=(7,)), "its supervisor still lives (pid 7)"),
        (Evidence(Sign.UNSEEN, Sign.UNTOLD), "its lock cannot be told"),
        (
            Evidence(Sign.GONE, Sign.GONE, main=Sign.LIVES, session=Sign.UNSEEN, pids=(7, 8)),
            "its main process still lives and its session cannot be told (pid 7, 8)",
        ),
        (Evidence(Sign.GONE, Sign.GONE, pids=(7,)), ""),
    ],
)
def test_a_doubt_names_what_lives_and_what_cannot_be_told(seen: Evidence, told: str) -> None:
    assert doubt(seen) == told

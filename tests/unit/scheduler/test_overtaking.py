"""Who comes before those ahead of it: to the second, and to the GPU."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.priority import Priority, Ranking
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.scheduler.decide import decide
from gpuq.scheduler.fit import Machine, Room
from gpuq.scheduler.limits import Usage
from gpuq.scheduler.order import Line
from gpuq.scheduler.overtaking import FURTHEST_S, PATIENCE_S, overdue, whole_machine
from gpuq.scheduler.snapshot import Candidate, Policy

NOW = 1e8
DOWN = Reason(ReasonCode.GPU_UNHEALTHY, "down")


def late(build: Any, *jobs: Candidate, gpus: int = 2, policy: Policy | None = None) -> int | None:
    room = Room(Machine(build.box(gpus) if gpus else build.box(1, unavailable=DOWN)))
    found = overdue(Line(jobs), room, policy or Policy(), NOW)
    return None if found is None else found.id


@pytest.mark.parametrize(("gpus", "patience"), [(1, 2 * PATIENCE_S), (2, PATIENCE_S), (3, PATIENCE_S)])
@pytest.mark.parametrize(("more", "first"), [(-1.0, None), (0.0, None), (0.5, 1)])
def test_patience_ends_after_its_last_second(
    build: Any, gpus: int, patience: float, more: float, first: int | None
) -> None:
    assert late(build, build.job(1, gpus, submitted_at=NOW - patience - more)) == first


def test_with_one_gpu_or_none_in_service_everything_is_the_whole_machine(build: Any) -> None:
    job = build.job(1, 1, submitted_at=NOW - PATIENCE_S - 1.0)
    assert late(build, job, gpus=1) == 1
    assert late(build, job, gpus=0) == 1
    assert late(build, job, gpus=2) is None
    assert late(build, build.job(2, 0, submitted_at=0.0), gpus=0) is None


@pytest.mark.parametrize("facts", [{"preemptible": True}, {"gpus": 0}])
def test_preemptible_jobs_and_those_without_gpus_never_lose_patience(build: Any, facts: dict[str, Any]) -> None:
    assert late(build, build.job(1, **{"gpus": 2, "submitted_at": 0.0, **facts})) is None


@pytest.mark.parametrize(
    ("aging", "more", "first"),
    [
        # Priorities are strict: higher priority is never passed.
        (None, 1e6, None),
        # A step is worth 1000 s of waiting, so that a job of two steps less needs 2000 s more.
        (1000.0, 1999.0, None),
        (1000.0, 2000.0, None),
        (1000.0, 2001.0, 1),
        (0.0, 0.0, None),
        (0.0, 0.5, 1),
    ],
)
def test_patience_is_longer_by_what_higher_priority_is_worth(
    build: Any, aging: float | None, more: float, first: int | None
) -> None:
    policy = Policy(ranking=Ranking(aging_s=aging))
    low = build.job(1, 2, priority=Priority.LOW, submitted_at=NOW - PATIENCE_S - more)
    high = build.job(2, 1, priority=Priority.HIGH, submitted_at=NOW)
    assert late(build, low, high, policy=policy) == first


def test_higher_priority_has_no_more_patience_than_the_top_one(build: Any) -> None:
    policy = Policy(ranking=Ranking(aging_s=1000.0))
    assert late(build, build.job(1, 2, submitted_at=NOW - PATIENCE_S - 1.0), policy=policy) == 1
    assert late(build, build.job(1, 2, submitted_at=NOW - PATIENCE_S - 1.0)) == 1
    assert late(build) is None


def whole(
    build: Any,
    *jobs: Candidate,
    gpus: int = 4,
    policy: Policy | None = None,
    held: Any = (),
    now: float = 0.0,
) -> int | None:
    policy = policy or Policy()
    room = Room(Machine(build.box(gpus)))
    for at, until, mem in held:
        room.hold(at, until, mem)
    found = whole_machine(Line(jobs, policy), room, Usage(policy, ()), policy, now)
    return None if found is None else found.id


HOUR = {"time_limit_s": 3600.0, "submitted_at": 0.0}


@pytest.mark.parametrize(
    ("ahead", "gain"),
    [
        # 10 x 3600 s x 2 x (4 / used - 1).
        ([1], 216_000.0),
        ([2], 72_000.0),
        ([3], 24_000.0),
        ([1, 1], 72_000.0),
        ([1, 2], 24_000.0),
        ([2, 2], 0.0),
        # The third has no room beside those before it, the fourth has.
        ([2, 3, 1], 24_000.0),
    ],
)
def test_the_gpus_that_those_ahead_leave_idle_are_weighed(build: Any, ahead: list[int], gain: float) -> None:
    first = [build.job(number, gpus, **HOUR) for number, gpus in enumerate(ahead, 1)]
    for more, wanted in ((-1.0, 9), (0.0, 9), (1.0, None)):
        big = build.job(9, 4, **HOUR, score=first[0].score + gain + more)
        assert whole(build, *first, big) == (wanted if gain + more >= 0 else None)


def test_nobody_is_passed_by_a_job_more_than_four_days_behind(build: Any) -> None:
    small = build.job(1, 1, time_limit_s=86400.0, submitted_at=0.0)
    for more, wanted in ((0.0, 9), (1.0, None)):
        big = build.job(9, 4, **HOUR, score=small.score + FURTHEST_S + more)
        assert whole(build, small, big) == wanted


@pytest.mark.parametrize(
    ("held", "gain"),
    [
        # One GPU is busy beyond the time at which the first can start, so that two of four are in use then.
        ([(0, 500.0, None)], 72_000.0),
        ([(0, 500.0, 100)], 72_000.0),
        ([(0, 500.0, None), (1, 600.0, None)], 24_000.0),
        # All are busy: the first starts when the first of them is free, at 500, and three are held then.
        ([(0, 500.0, None), (1, 600.0, None), (2, 600.0, None), (3, 600.0, None)], 0.0),
        ([(0, 500.0, None), (1, 500.0, None), (2, 500.0, None), (3, 600.0, None)], 72_000.0),
    ],
)
def test_what_is_still_held_when_the_first_can_start_is_in_use(build: Any, held: Any, gain: float) -> None:
    small = build.job(1, 1, **HOUR)
    for more, wanted in ((0.0, 9), (1.0, None)):
        big = build.job(9, 4, **HOUR, score=small.score + gain + more)
        assert whole(build, small, big, held=held) == wanted


def test_what_ends_by_now_is_not_in_use(build: Any) -> None:
    small = build.job(1, 1, **HOUR)
    big = build.job(9, 4, **HOUR, score=small.score + 216_000.0)
    assert whole(build, small, big, held=[(0, 500.0, None)], now=500.0) == 9
    assert whole(build, small, big, held=[(0, 500.0, None)], now=499.0) is None


def test_only_a_machine_of_several_gpus_on_one_node_is_kept_whole(build: Any) -> None:
    small, one = build.job(1, 0, **HOUR), build.job(9, 1, time_limit_s=3601.0, submitted_at=0.0)
    assert whole(build, small, one, gpus=1) is None
    two = build.job(9, 2, time_limit_s=3601.0, submitted_at=0.0)
    assert whole(build, build.job(1, 1, **HOUR), two, gpus=2) == 9
    devices = [*build.box(1), *build.box(2, node=1)[1:]]
    policy = Policy()
    room = Room(Machine(devices))
    assert whole_machine(Line([build.job(1, 1, **HOUR), two]), room, Usage(policy, ()), policy, 0.0) is None


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [({}, 9), ({"preemptible": True}, None), ({"gpu_mem_mb": 10}, None), ({"gpu_mem_mb": 99_000}, None)],
)
def test_only_a_job_that_wants_all_gpus_alone_and_for_itself_is_waited_for(
    build: Any, facts: dict[str, Any], wanted: int | None
) -> None:
    big = build.job(9, 4, time_limit_s=3601.0, submitted_at=0.0, **facts)
    assert whole(build, build.job(1, 1, **HOUR), big) == wanted
    assert whole(build, big) is None


@pytest.mark.parametrize(
    "facts", [{"preemptible": True}, {"gpu_model": "none"}, {"gpus": 5}, {"gpus": 0}, {"gpu_ids": (9,)}]
)
def test_those_ahead_that_take_no_gpu_from_it_do_not_count(build: Any, facts: dict[str, Any]) -> None:
    other = build.job(1, **{"gpus": 1, **HOUR, **facts})
    big = build.job(9, 4, **HOUR, score=other.score + 1.0)
    assert whole(build, other, big) is None
    small = build.job(2, 1, **HOUR, score=other.score + 0.5)
    assert whole(build, other, small, big) == 9


@pytest.mark.parametrize(("moved", "wanted"), [(0.4, 9), (0.6, None)])
def test_a_job_moved_to_the_front_by_half_a_second_and_more_stays_there(
    build: Any, moved: float, wanted: int | None
) -> None:
    small = build.job(1, 1, **HOUR)
    front = build.job(1, 1, **HOUR, score=small.score - moved)
    big = build.job(9, 4, **HOUR, score=small.score + 1.0)
    assert whole(build, front, big) == wanted


def test_as_many_heads_of_a_shape_count_as_could_run_at_once(build: Any) -> None:
    """Four of one shape fill the machine, two of a shape of two do, of a shape of three only one runs at a time."""
    ones = [build.job(number, 1, **HOUR) for number in range(1, 5)]
    big = build.job(9, 4, **HOUR, score=ones[0].score + 100.0)
    assert whole(build, *ones, big) is None
    assert whole(build, *ones[:3], big) == 9
    threes = [build.job(number, 3, **HOUR) for number in (1, 2)]
    assert whole(build, *threes, big) == 9


def test_on_a_full_machine_the_reservation_goes_to_who_has_lost_patience(build: Any) -> None:
    old = build.job(1, 2, time_limit_s=30 * 86400.0, submitted_at=NOW - PATIENCE_S - 1.0)
    young = build.job(2, 1, time_limit_s=60.0, submitted_at=NOW - 1.0)
    holdings = [build.held(9, 0, 1, started_at=NOW, until=200.0)]
    decision = decide(build.seen(build.box(2), [old, young], holdings), NOW)
    assert decision.first is not None
    assert (decision.first.job.id, decision.first.at) == (1, NOW + 200.0)
    assert decision.overtaking == (old, "it has waited 13 days")

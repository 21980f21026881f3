"""Who starts, who waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpuq.domain.priority import Priority, Ranking
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.scheduler.fit import expected_end
from gpuq.scheduler.overtaking import FURTHEST_S, IDLE_WEIGHT, PATIENCE_S
from gpuq.scheduler.plan import plan
from gpuq.scheduler.snapshot import Action, Preempt, Snapshot, Start, Wait

NOW = 100.0


def started(actions: list[Action]) -> dict[int, tuple[str, ...]]:
    return {action.job_id: action.gpu_uuids for action in actions if isinstance(action, Start)}


def waits(actions: list[Action]) -> dict[int, Wait]:
    return {action.job_id: action for action in actions if isinstance(action, Wait)}


def test_jobs_start_in_line_order_while_there_is_room(build: Any) -> None:
    actions = plan(build.seen(build.box(3), [build.job(n) for n in (1, 2, 3, 4)]), NOW)
    assert list(started(actions)) == [1, 2, 3]
    assert waits(actions).keys() == {4}


def test_a_job_gets_all_its_gpus_or_none(build: Any) -> None:
    actions = plan(build.seen(build.box(4), [build.job(1, 3), build.job(2, 2)]), NOW)
    assert {job: len(gpus) for job, gpus in started(actions).items()} == {1: 3}


def test_a_short_job_passes_a_big_one_that_waits_for_gpus(build: Any) -> None:
    snapshot = build.seen(build.box(2), [build.job(1, 2), build.job(2, 1, 50.0)], [build.held(9, 0, until=200.0)])
    actions = plan(snapshot, NOW)
    assert started(actions) == {2: ("gpu1",)}
    assert waits(actions)[1].reserved_at == 200.0


def test_a_job_that_would_push_the_reservation_waits(build: Any) -> None:
    snapshot = build.seen(build.box(2), [build.job(1, 2), build.job(2, 1, 101.0)], [build.held(9, 0, until=200.0)])
    assert started(plan(snapshot, NOW)) == {}


def test_a_long_job_may_use_gpus_that_the_first_in_line_does_not_need(build: Any) -> None:
    holdings = [build.held(9, 0, 1, until=200.0)]
    snapshot = build.seen(build.box(4), [build.job(1, 3), build.job(2, 1, 9999.0), build.job(3, 1, 9999.0)], holdings)
    assert started(plan(snapshot, NOW)).keys() == {2}


def test_a_long_job_takes_the_gpu_that_the_first_in_line_cannot_use(build: Any) -> None:
    devices = build.box(2) + build.box(4, model="small")[2:]
    first = build.job(1, 2, gpu_ids=(0, 1))
    snapshot = build.seen(devices, [first, build.job(2, 1, 9999.0)], [build.held(9, 0, until=200.0)])
    assert started(plan(snapshot, NOW)) == {2: ("gpu2",)}


def test_greedy_backfill_starts_whatever_fits(build: Any) -> None:
    snapshot = build.seen(
        build.box(2),
        [build.job(1, 2), build.job(2, 1, 9e9)],
        [build.held(9, 0)],
        policy=build.policy(backfill="greedy"),
    )
    assert started(plan(snapshot, NOW)).keys() == {2}


def test_without_backfill_the_first_that_does_not_fit_blocks_the_line(build: Any) -> None:
    snapshot = build.seen(
        build.box(2), [build.job(1, 2), build.job(2, 1, 1.0)], [build.held(9, 0)], policy=build.policy(backfill="none")
    )
    actions = plan(snapshot, NOW)
    assert started(actions) == {}
    assert waits(actions)[2].reason.code is ReasonCode.PRIORITY


def test_an_overrun_is_expected_to_last_as_long_again(build: Any) -> None:
    snapshot = build.seen(build.box(1), [build.job(1)], [build.held(9, 0, until=30.0)])
    assert waits(plan(snapshot, NOW))[1].reserved_at == 120.0


@pytest.mark.parametrize(
    ("expected_s", "elapsed_s", "total_s"),
    [(30.0, 29.9, 30.0), (30.0, 30.0, 60.0), (30.0, 60.0, 120.0), (0.0, 0.0, 1.0), (0.0, 1.0, 2.0)],
)
def test_a_run_that_has_lasted_as_long_as_expected_is_an_overrun(
    build: Any, expected_s: float, elapsed_s: float, total_s: float
) -> None:
    assert expected_end(build.held(9, 0, until=expected_s), elapsed_s) == total_s
    assert expected_end(build.held(9, 0, until=expected_s, stopping=True), elapsed_s) == elapsed_s


def test_jobs_without_gpus_do_not_wait_behind_gpu_jobs(build: Any) -> None:
    snapshot = build.seen(build.box(1), [build.job(1, 1), build.job(2, 0)], [build.held(9, 0)])
    assert started(plan(snapshot, NOW)) == {2: ()}


def test_the_lane_without_gpus_has_a_limit_of_its_own(build: Any) -> None:
    jobs = [build.job(n, 0) for n in (1, 2, 3)]
    actions = plan(build.seen(build.box(1), jobs, [build.held(9)], policy=build.policy(cpu_jobs=2)), NOW)
    assert started(actions).keys() == {1}
    assert waits(actions)[2].reason == Reason(ReasonCode.RESOURCES, "2 of at most 2 jobs without GPUs are running")


@pytest.mark.parametrize("backfill", ["easy", "greedy", "none"])
def test_a_job_that_can_never_fit_blocks_nobody(build: Any, backfill: str) -> None:
    jobs = [build.job(1, 9), build.job(2, 1, gpu_model="H100"), build.job(3, 1, 9e9)]
    actions = plan(build.seen(build.box(2), jobs, policy=build.policy(backfill=backfill)), NOW)
    assert started(actions).keys() == {3}
    assert {job: wait.reason.code for job, wait in waits(actions).items()} == dict.fromkeys(
        (1, 2), ReasonCode.CONSTRAINT
    )


@pytest.mark.parametrize("backfill", ["easy", "greedy", "none"])
def test_a_gpu_out_of_service_is_not_free_and_who_needs_it_blocks_nobody(build: Any, backfill: str) -> None:
    gone = Reason(ReasonCode.EXTERNAL_PROCESS, "gpu 1 is used by alice's python, pid 311, outside the queue")
    devices = [build.box(1)[0], *build.box(2, unavailable=gone)[1:]]
    actions = plan(
        build.seen(devices, [build.job(1, 2), build.job(2, 1, 9e9)], policy=build.policy(backfill=backfill)), NOW
    )
    assert started(actions) == {2: ("gpu0",)}
    assert waits(actions)[1].reason.code is ReasonCode.EXTERNAL_PROCESS
    assert "pid 311" in waits(actions)[1].reason.text
    assert "needs 2 GPUs, 1 in service" in waits(actions)[1].reason.text


def test_the_pause_stops_every_start_and_says_so(build: Any) -> None:
    actions = plan(build.seen(build.box(1), [build.job(1), build.job(2, 0)], paused="moving the machine"), NOW)
    assert started(actions) == {}
    assert {wait.reason for wait in waits(actions).values()} == {Reason(ReasonCode.QUEUE_PAUSED, "moving the machine")}


def test_a_user_over_a_limit_is_passed_and_holds_no_reservation(build: Any) -> None:
    jobs = [build.job(1, 2, user="bob"), build.job(2, 1, 9e9, user="carol")]
    snapshot = build.seen(build.box(3), jobs, [build.held(9, 0)], policy=build.policy(user_max_gpus=2))
    actions = plan(snapshot, NOW)
    assert started(actions).keys() == {2}
    assert waits(actions)[1].reason == Reason(ReasonCode.USER_LIMIT, "bob holds 1 of at most 2 GPUs and asks for 2")


def test_a_limit_of_running_jobs_counts_the_starts_of_the_same_plan(build: Any) -> None:
    jobs = [build.job(n, user="bob") for n in (1, 2, 3)] + [build.job(4, user="carol")]
    snapshot = build.seen(build.box(8), jobs, policy=build.policy(user_max_running=2))
    assert started(plan(snapshot, NOW)).keys() == {1, 2, 4}


def test_groups_and_arrays_have_running_limits(build: Any) -> None:
    jobs = [build.job(n, group="sweep") for n in (1, 2)] + [build.job(n, array_id=3, array_limit=2) for n in (3, 4, 5)]
    snapshot = build.seen(build.box(8), jobs, policy=build.policy(group_limits={"sweep": 1}))
    actions = plan(snapshot, NOW)
    assert started(actions).keys() == {1, 3, 4}
    assert waits(actions)[2].reason.text == "group sweep has 1 of at most 1 jobs running"
    assert waits(actions)[5].reason.text == "array 3 has 2 of at most 2 elements running"


def test_without_backfill_the_first_in_line_is_told_its_time_and_may_have_others_yield(build: Any) -> None:
    policy = build.policy(backfill="none")
    jobs = [build.job(1, 2, submitted_at=50.0), build.job(2, 1, 1.0, submitted_at=60.0)]
    for indices in ((0,), (0, 1)):
        snapshot = build.seen(build.box(2), jobs, [build.held(9, *indices, until=200.0)], policy=policy, promises={})
        seen = plan(snapshot, NOW)
        assert started(seen) == {}
        assert waits(seen)[1].reserved_at == 200.0
        assert waits(seen)[2].reason.text.startswith("job 1 is first in line and")
    cheap = build.held(9, 0, started_at=-500.0, until=2000.0, preemptible=True)
    assert Preempt(9, 1) in plan(build.seen(build.box(2), jobs, [cheap], policy=policy), NOW)


def test_priorities_are_strict(build: Any) -> None:
    jobs = [build.job(1), build.job(2, priority=Priority.HIGH), build.job(3, priority=Priority.CRITICAL)]
    assert started(plan(build.seen(build.box(2), jobs), NOW)).keys() == {2, 3}


def test_a_job_that_has_outwaited_its_patience_comes_before_those_that_declare_less(build: Any) -> None:
    old = build.job(1, 2, time_limit_s=7 * 86400.0, submitted_at=0.0)
    later = PATIENCE_S + 60.0
    young = build.job(2, 1, 9e9, time_limit_s=60.0, submitted_at=later - 1.0)
    holdings = [build.held(9, 0, started_at=later - 10.0, until=100.0)]
    assert started(plan(build.seen(build.box(2), [old, young], holdings), later)) == {}
    urgent = build.job(3, 1, 9e9, priority=Priority.HIGH, submitted_at=later - 1.0)
    assert started(plan(build.seen(build.box(2), [old, urgent], holdings), later)).keys() == {3}


@pytest.mark.parametrize(("waited", "first"), [(1.0, 2), (1.9, 2), (2.1, 1)])
def test_a_job_that_needs_less_than_the_whole_machine_has_twice_the_patience(
    build: Any, waited: float, first: int
) -> None:
    now = waited * PATIENCE_S
    old = build.job(1, 2, time_limit_s=30 * 86400.0, submitted_at=0.0)
    young = build.job(2, 2, time_limit_s=60.0, submitted_at=now - 1.0)
    assert started(plan(build.seen(build.box(3), [old, young]), now)).keys() == {first}


def test_of_two_that_have_lost_patience_the_one_that_lost_it_first_comes_first(build: Any) -> None:
    now = 2 * PATIENCE_S + 100.0
    part = build.job(1, 1, submitted_at=0.0)
    for submitted_at, first in ((PATIENCE_S - 60.0, 2), (PATIENCE_S + 60.0, 1)):
        whole = build.job(2, 2, submitted_at=submitted_at, time_limit_s=7 * 86400.0)
        assert started(plan(build.seen(build.box(2), [part, whole]), now)).keys() == {first}


class TestAFreeMachine:
    """Four GPUs, all free: a job for all of them against jobs ahead of it in line for some."""

    @staticmethod
    def first(build: Any, ahead: list[Any], **whole: Any) -> set[int]:
        """Which start, when the whole-machine job is number 9."""
        policy = whole.pop("policy", build.policy())
        facts = {"time_limit_s": 3600.0, "submitted_at": 50.0, **whole}
        snapshot = build.seen(build.box(4), [*ahead, build.job(9, 4, **facts)], policy=policy)
        return set(started(plan(snapshot, NOW)))

    def test_is_not_broken_up_for_a_job_that_leaves_most_of_it_idle(self, build: Any) -> None:
        assert self.first(build, [build.job(1, 1, time_limit_s=3600.0)]) == {9}

    def test_goes_to_those_ahead_when_they_fill_it(self, build: Any) -> None:
        assert self.first(build, [build.job(n, 1, time_limit_s=3600.0) for n in (1, 2, 3, 4)]) == {1, 2, 3, 4}
        assert self.first(build, [build.job(n, 2, time_limit_s=3600.0) for n in (1, 2)]) == {1, 2}

    def test_goes_to_a_job_that_declares_so_little_that_its_idle_gpus_cost_nothing(self, build: Any) -> None:
        # One of four GPUs for a time t counts like 1 + 2 x 3 times t.
        little = 3600.0 / (1 + IDLE_WEIGHT * 3)
        assert self.first(build, [build.job(1, 1, time_limit_s=little - 10.0, submitted_at=50.0)]) == {1}
        assert self.first(build, [build.job(1, 1, time_limit_s=little + 10.0, submitted_at=50.0)]) == {9}

    def test_goes_to_who_declares_nothing_as_if_it_declared_eight_hours(self, build: Any) -> None:
        # 4 days at the most, which is less than 10 x 2 x 3 x 8 h.
        limit = 8 * 3600.0 + FURTHEST_S / 10
        undeclared = [build.job(1, 1, submitted_at=50.0)]
        assert self.first(build, undeclared, time_limit_s=limit - 10.0) == {9}
        assert self.first(build, undeclared, time_limit_s=limit + 10.0) == {1}

    def test_goes_to_higher_priority(self, build: Any) -> None:
        ahead = [build.job(1, 1, time_limit_s=3600.0, priority=Priority.HIGH)]
        assert self.first(build, ahead) == {1}
        aging = Ranking(aging_s=1.0)
        for priority, starts in ((Priority.HIGH, 1), (Priority.NORMAL, 9)):
            score = aging.score(priority, 1.0, 3600.0)
            near = [build.job(1, 1, time_limit_s=3600.0, priority=priority, score=score)]
            whole = {"score": aging.score(Priority.NORMAL, 50.0, 3600.0), "policy": build.policy(ranking=aging)}
            assert self.first(build, near, **whole) == {starts}

    def test_goes_to_a_job_that_was_moved_to_the_front(self, build: Any) -> None:
        jobs = [build.job(n, 1, time_limit_s=3600.0) for n in (1, 2)]
        assert self.first(build, jobs) == {9}
        assert self.first(build, [jobs[0], replace(jobs[1], score=jobs[0].score - 1.0)]) == {1, 2}

    def test_goes_to_those_ahead_where_declared_times_order_nothing(self, build: Any) -> None:
        ahead = [build.job(1, 1, time_limit_s=3600.0)]
        assert self.first(build, ahead, policy=build.policy(ranking=Ranking("fifo"))) == {1}
        assert self.first(build, ahead, policy=build.policy(backfill="greedy")) == {1}

    def test_goes_to_those_ahead_when_a_limit_keeps_the_big_one_back(self, build: Any) -> None:
        policy = build.policy(user_max_gpus=3)
        assert self.first(build, [build.job(1, 1, time_limit_s=3600.0)], policy=policy) == {1}

    def test_is_not_kept_for_those_ahead_that_a_limit_keeps_back(self, build: Any) -> None:
        policy = build.policy(group_limits={"sweep": 1})
        ahead = [build.job(n, 1, time_limit_s=3600.0, group="sweep") for n in (1, 2, 3, 4)]
        assert self.first(build, ahead, policy=policy) == {9}

    def test_has_no_part_out_of_service(self, build: Any) -> None:
        devices = build.box(3) + build.box(4, unavailable=Reason(ReasonCode.GPU_UNHEALTHY, "gone"))[3:]
        jobs = [build.job(1, 1, time_limit_s=3600.0), build.job(9, 3, time_limit_s=3600.0, submitted_at=50.0)]
        assert started(plan(build.seen(devices, jobs), NOW)).keys() == {9}


def test_a_machine_that_few_gpus_are_used_of_is_reserved_for_the_job_that_wants_all(build: Any) -> None:
    jobs = [build.job(1, 1, 500.0, time_limit_s=3600.0), build.job(2, 4, time_limit_s=3600.0, submitted_at=50.0)]
    few = plan(build.seen(build.box(4), jobs, [build.held(9, 0, until=200.0)]), NOW)
    assert started(few) == {}
    assert waits(few)[2].reserved_at == 200.0
    most = plan(build.seen(build.box(4), jobs, [build.held(9, 0, 1, 2, until=200.0)]), NOW)
    assert started(most).keys() == {1}


def test_the_slack_of_an_undeclared_job_is_given_once(build: Any) -> None:
    snapshot = build.seen(build.box(1), [build.job(1, submitted_at=0.0)], [build.held(9, 0, until=200.0)], promises={})
    first = waits(plan(snapshot, NOW))[1].reserved_at
    assert first == pytest.approx(200.0 + 0.2 * NOW)
    later = Snapshot(snapshot.devices, snapshot.holdings, snapshot.waiting, promises={1: first})
    assert waits(plan(later, NOW + 90.0))[1].reserved_at == first


def test_only_who_declares_nothing_uses_the_slack_of_who_declares_nothing(build: Any) -> None:
    first = build.job(1, 2, submitted_at=0.0)
    holdings = [build.held(9, 0, until=200.0)]
    for limit, starts in ((None, {2}), (86400.0, set())):
        # 105 s from 100 are past the 200 at which the first can start, and within its slack of 0.2 x 100 s.
        other = build.job(2, 1, 105.0, time_limit_s=limit, submitted_at=NOW)
        snapshot = build.seen(build.box(2), [first, other], holdings, promises={})
        assert started(plan(snapshot, NOW)).keys() == starts


def test_a_declared_time_gets_a_firm_reservation(build: Any) -> None:
    snapshot = build.seen(
        build.box(1), [build.job(1, submitted_at=0.0, time_limit_s=60.0)], [build.held(9, 0, until=200.0)], promises={}
    )
    assert waits(plan(snapshot, NOW))[1].reserved_at == 200.0


def test_nodes_are_not_mixed_in_one_job(build: Any) -> None:
    devices = build.box(2) + [d for d in build.box(4, node=1) if d.index >= 2]
    snapshot = build.seen(devices, [build.job(1, 3), build.job(2, 2)], [build.held(9, 0)])
    assert started(plan(snapshot, NOW)) == {2: ("gpu2", "gpu3")}


def test_reasons_are_given_for_as_many_as_asked(build: Any) -> None:
    snapshot = build.seen(build.box(1), [build.job(n) for n in range(1, 100)])
    assert len(waits(plan(snapshot, NOW, waits=None))) == 98
    for most in (1, 5):
        assert len(waits(plan(snapshot, NOW, waits=most))) == most + 1
    assert waits(plan(snapshot, NOW, waits=0)).keys() == {2}

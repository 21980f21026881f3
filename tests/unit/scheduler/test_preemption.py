"""Preemptible jobs fill idle GPUs and yield."""

from __future__ import annotations

from typing import Any

from gpuq.scheduler.plan import plan
from gpuq.scheduler.snapshot import Preempt, Start

NOW = 1000.0


def victims(build: Any, holdings: list[Any], jobs: list[Any] | None = None, count: int = 2) -> list[Preempt]:
    actions = plan(build.seen(build.box(count), jobs or [build.job(1)], holdings), NOW)
    return [action for action in actions if isinstance(action, Preempt)]


def test_a_normal_job_takes_the_gpu_of_a_preemptible_one(build: Any) -> None:
    holdings = [build.held(8, 0, until=9e9), build.held(9, 1, until=9e9, preemptible=True)]
    assert victims(build, holdings) == [Preempt(9, 1)]


def test_the_youngest_yields_and_no_more_than_are_needed(build: Any) -> None:
    holdings = [
        build.held(7, 0, started_at=100.0, preemptible=True),
        build.held(8, 1, 2, started_at=200.0, preemptible=True),
        build.held(9, 3, started_at=300.0, preemptible=True),
    ]
    assert victims(build, holdings, count=4) == [Preempt(9, 1)]
    assert victims(build, holdings, [build.job(1, 2)], count=4) == [Preempt(8, 1)]


def test_a_gpu_that_a_job_before_it_takes_now_spares_nobody(build: Any) -> None:
    holdings = [build.held(7, 3, until=9e9), build.held(8, 1, preemptible=True), build.held(9, 2, preemptible=True)]
    assert {one.job_id for one in victims(build, holdings, [build.job(1), build.job(2, 2)], count=4)} == {8, 9}


def test_a_job_that_has_just_started_is_left_alone(build: Any) -> None:
    assert victims(build, [build.held(9, 0, 1, started_at=NOW - 299.0, preemptible=True)]) == []
    assert victims(build, [build.held(9, 0, 1, started_at=NOW - 300.0, preemptible=True)]) == [Preempt(9, 1)]


def test_a_job_that_yielded_often_enough_this_hour_runs_on(build: Any) -> None:
    assert victims(build, [build.held(9, 0, 1, preemptible=True, preemptions_last_hour=2)]) == []


def test_nobody_else_is_asked_while_one_is_on_its_way_out(build: Any) -> None:
    holdings = [build.held(8, 0, preemptible=True, stopping=True), build.held(9, 1, preemptible=True)]
    assert victims(build, holdings) == []


def test_nobody_yields_in_vain(build: Any) -> None:
    holdings = [build.held(8, 0, until=9e9), build.held(9, 1, until=9e9, preemptible=True)]
    assert victims(build, holdings, [build.job(1, 2)]) == []


def test_a_preemptible_job_never_takes_another_ones_gpu(build: Any) -> None:
    assert victims(build, [build.held(9, 0, 1, preemptible=True)], [build.job(1, preemptible=True)]) == []


def test_a_long_preemptible_job_fills_a_gpu_that_is_reserved_for_later(build: Any) -> None:
    jobs = [build.job(1, 2), build.job(2, 1, 9e9, preemptible=True), build.job(3, 1, 9e9)]
    actions = plan(build.seen(build.box(2), jobs, [build.held(9, 0, until=NOW + 400.0)]), NOW)
    assert [action for action in actions if isinstance(action, Start)] == [Start(2, ("gpu1",))]
    sooner = plan(build.seen(build.box(2), jobs, [build.held(9, 0, until=NOW + 200.0)]), NOW)
    assert not [action for action in sooner if isinstance(action, Start)]


def test_a_preemptible_job_holds_no_reservation(build: Any) -> None:
    jobs = [build.job(1, 2, preemptible=True), build.job(2, 1, 9e9)]
    actions = plan(build.seen(build.box(2), jobs, [build.held(9, 0)]), NOW)
    assert [action for action in actions if isinstance(action, Start)] == [Start(2, ("gpu1",))]


def test_preemptible_jobs_start_on_what_the_others_leave(build: Any) -> None:
    jobs = [build.job(1, preemptible=True), build.job(2, preemptible=True), build.job(3)]
    actions = plan(build.seen(build.box(2), jobs), NOW)
    assert [action.job_id for action in actions if isinstance(action, Start)] == [3, 1]


def test_a_line_without_backfill_is_not_passed_by_preemptible_jobs(build: Any) -> None:
    jobs = [build.job(1, 2), build.job(2, preemptible=True)]
    snapshot = build.seen(build.box(2), jobs, [build.held(9, 0)], policy=build.policy(backfill="none"))
    assert not [action for action in plan(snapshot, NOW) if isinstance(action, Start)]

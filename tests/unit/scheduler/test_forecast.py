"""The plan run forward."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.scheduler.forecast import forecast

NOW = 100.0


def test_running_jobs_end_and_waiting_ones_follow(build: Any) -> None:
    jobs = [build.job(1, 1, 50.0), build.job(2, 1, 70.0)]
    found = forecast(build.seen(build.box(1), jobs, [build.held(9, 0, until=200.0)]), NOW)
    assert found.start == {1: 200.0, 2: 250.0}
    assert found.end == {9: 200.0, 1: 250.0, 2: 320.0}


def test_a_backfilled_job_is_foreseen_before_its_turn(build: Any) -> None:
    jobs = [build.job(1, 2, 10.0), build.job(2, 1, 100.0)]
    assert forecast(build.seen(build.box(2), jobs, [build.held(9, 0, until=200.0)]), NOW).start == {2: 100.0, 1: 200.0}


def test_an_overrun_ends_once_and_not_later_and_later(build: Any) -> None:
    found = forecast(build.seen(build.box(1), [build.job(1)], [build.held(9, 0, until=30.0)]), NOW)
    assert found.start == {1: 120.0}


def test_a_job_that_is_being_stopped_is_gone_at_once(build: Any) -> None:
    assert forecast(build.seen(build.box(1), [build.job(1)], [build.held(9, 0, stopping=True)]), NOW).start == {1: NOW}


@pytest.mark.parametrize(
    ("since", "often", "start"),
    [(0.0, 0, 300.0), (-300.0, 0, NOW), (-300.0, 2, 9000.0)],
    ids=["after its least run", "at once", "as often as it may"],
)
def test_a_preemptible_job_yields_in_the_forecast_as_it_will(
    build: Any, since: float, often: int, start: float
) -> None:
    """It may be asked from 300 s after its start, twice an hour."""
    cheap = build.held(9, 0, 1, started_at=since, until=9000.0 - since, preemptible=True, preemptions_last_hour=often)
    jobs = [build.job(1, 2, 50.0), build.job(2, 2, 70.0)]
    found = forecast(build.seen(build.box(2), jobs, [cheap]), NOW)
    assert found.start == {1: start, 2: start + 50.0}
    assert found.end.get(9) == (9000.0 if often else None)


def test_a_preemptible_job_that_starts_in_the_forecast_yields_too(build: Any) -> None:
    jobs = [build.job(1, 1, 5000.0, preemptible=True), build.job(2, 2, 10.0)]
    found = forecast(build.seen(build.box(2), jobs, [build.held(9, 0, until=1000.0)]), NOW)
    assert found.start == {1: NOW, 2: 1000.0}
    assert found.end == {9: 1000.0, 2: 1010.0}


def test_what_can_never_start_has_no_start(build: Any) -> None:
    found = forecast(build.seen(build.box(1), [build.job(1, 2), build.job(2)]), NOW)
    assert found.start == {2: NOW}


def test_a_paused_queue_foresees_ends_only(build: Any) -> None:
    found = forecast(build.seen(build.box(2), [build.job(1)], [build.held(9, 0, until=200.0)], paused="why"), NOW)
    assert (found.start, found.end) == ({}, {9: 200.0})


def test_it_stops_after_as_many_as_asked(build: Any) -> None:
    found = forecast(build.seen(build.box(1), [build.job(n) for n in range(1, 20)]), NOW, most=3)
    assert found.start.keys() == {1, 2, 3}


def test_what_starts_is_what_the_forecast_said_when_runs_last_as_expected(build: Any) -> None:
    from gpuq.scheduler.simulate import TraceJob, simulate

    trace = [TraceJob(n, 0.0, 37.0 * (n % 7 + 1), (1, 2, 4, 8)[n % 4], limit_s=1e6) for n in range(60)]
    real = {one.job.row: one.start_s for one in simulate(trace, expect="exact").placements}
    jobs = [build.job(t.row, t.gpus, t.duration_s, time_limit_s=1e6, submitted_at=0.0) for t in trace]
    assert forecast(build.seen(build.box(8), jobs), 0.0).start == real

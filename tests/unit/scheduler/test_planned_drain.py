"""A planned drain inside a plan: nothing starts that would run into it, and what is short enough does."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.domain.reasons import ReasonCode
from gpuq.domain.window import Window
from gpuq.scheduler.explain import explain
from gpuq.scheduler.forecast import forecast
from gpuq.scheduler.plan import plan
from gpuq.scheduler.simulate import TraceJob, simulate
from gpuq.scheduler.snapshot import Candidate, Device, Preempt, Snapshot, Start, Wait

NOW = 1_700_000_000.0
HOUR = 3600.0
FOUR = Window(NOW + 4 * HOUR, NOW + 6 * HOUR, None, "root", "a new driver")


def started(snapshot: Snapshot, now: float = NOW) -> dict[int, tuple[str, ...]]:
    return {one.job_id: one.gpu_uuids for one in plan(snapshot, now, waits=0) if isinstance(one, Start)}


jobs = st.lists(
    st.tuples(st.integers(0, 3), st.none() | st.sampled_from([600.0, HOUR, 4 * HOUR, 9 * HOUR]), st.booleans()),
    max_size=10,
)


@given(
    asked=jobs,
    gpus=st.none() | st.sets(st.integers(0, 3), min_size=1),
    into=st.floats(-5 * HOUR, 5 * HOUR),
    long=st.none() | st.floats(1.0, 9 * HOUR),
)
@settings(max_examples=200, deadline=None)
def test_nothing_starts_that_would_not_end_before_a_drain_on_what_it_covers(
    asked: list[Any], gpus: set[int] | None, into: float, long: float | None
) -> None:
    covered = None if gpus is None else tuple(f"gpu{at}" for at in sorted(gpus))
    window = Window(NOW - into, None if long is None else NOW - into + long, covered, "root")
    waiting = [
        Candidate(at, float(at), 2, "ann", count, 60.0, time_limit_s=limit, preemptible=cheap, submitted_at=NOW)  # type: ignore[arg-type]
        for at, (count, limit, cheap) in enumerate(asked)
    ]
    devices = [Device(f"gpu{at}", at, 24_000) for at in range(4)]
    snapshot = Snapshot(devices, [], waiting, window=window)
    begun = started(snapshot)
    for job in waiting:
        if job.id not in begun or window.over(NOW):
            continue
        touches = covered is None or bool(set(begun[job.id]) & set(covered))
        assert not touches or NOW + (inf if job.time_limit_s is None else job.time_limit_s) <= window.at
    if window.over(NOW):
        assert begun == started(replace(snapshot, window=None))


def test_short_jobs_run_up_to_a_drain_and_long_ones_have_their_reservation_behind_it(build: Any) -> None:
    long, short = build.job(1, 2, time_limit_s=8 * HOUR), build.job(2, 1, time_limit_s=4 * HOUR)
    nothing = build.job(3, 1)
    snapshot = build.seen(build.box(2), [long, short, nothing], window=FOUR)
    assert list(started(snapshot)) == [2]
    waits = {one.job_id: one for one in plan(snapshot, NOW) if isinstance(one, Wait)}
    assert waits[1].reserved_at == FOUR.until
    assert waits[1].reason.code is ReasonCode.MAINTENANCE
    told = "the machine is drained at 02:13 UTC until 04:13 UTC for a new driver: "
    assert waits[1].reason.text == told + "the job's limit of 8h does not end before"
    assert waits[3].reason.text == (
        told + "the job declares no --time, and nothing is known of how long such a job runs"
    )
    # A second later four hours are too long.
    assert started(snapshot, NOW + 1) == {}
    expected = replace(snapshot, longest=lambda job: 5 * HOUR if job.id == 3 else job.time_limit_s)
    [reason] = explain(expected, 3, NOW)
    assert reason.text == told + "the job is expected to run for 5h00m, which does not end before"
    assert list(started(replace(snapshot, longest=lambda job: HOUR))) == [1]


def test_while_it_lasts_nothing_starts_and_then_everything_does(build: Any) -> None:
    snapshot = build.seen(build.box(2), [build.job(1, 1, time_limit_s=60.0), build.job(2, 0, time_limit_s=60.0)])
    drained = replace(snapshot, window=FOUR)
    assert list(started(drained)) == [2, 1]
    for at in (FOUR.at, FOUR.until - 0.1):  # type: ignore[operator]
        assert started(drained, at) == {}
        for job in (1, 2):
            [reason] = explain(drained, job, at)
            assert reason.code is ReasonCode.MAINTENANCE
            assert reason.text == "the machine is drained since 02:13 UTC until 04:13 UTC for a new driver"
    assert list(started(drained, FOUR.until)) == [2, 1]  # type: ignore[arg-type]


def test_a_drain_of_some_gpus_leaves_the_others_and_jobs_without_alone(build: Any) -> None:
    window = replace(FOUR, gpus=("gpu0", "gpu2"), reason=None)
    jobs = [build.job(1, 1), build.job(2, 0), build.job(3, 1), build.job(4, 1, time_limit_s=HOUR), build.job(5, 3)]
    snapshot = build.seen(build.box(4), jobs, window=window)
    assert started(snapshot) == {2: (), 1: ("gpu1",), 3: ("gpu3",), 4: ("gpu0",)}
    [reason] = explain(snapshot, 5, NOW)
    assert reason.code is ReasonCode.MAINTENANCE
    assert reason.text.startswith("gpus 0,2 are drained at 02:13 UTC until 04:13 UTC: the job declares no --time")
    busy = build.seen(build.box(4), [build.job(5)], [build.held(9, 1), build.held(8, 3)], window=window)
    [reason] = explain(busy, 5, NOW)
    assert reason.code is ReasonCode.RESOURCES
    assert "gpu 0 is drained at 02:13 UTC until 04:13 UTC" in reason.text


def test_a_reservation_knows_that_gpus_come_free_too_late(build: Any) -> None:
    busy = build.held(9, 0, 1, started_at=NOW, until=3 * HOUR)
    first, short = build.job(1, 2, time_limit_s=2 * HOUR), build.job(2, 1, time_limit_s=4 * HOUR)
    snapshot = build.seen(build.box(3), [first, short], [busy], window=FOUR)
    waits = {one.job_id: one.reserved_at for one in plan(snapshot, NOW) if isinstance(one, Wait)}
    assert waits[1] == FOUR.until
    # It delays nobody, then.
    assert list(started(snapshot)) == [2]


def test_nobody_yields_to_a_job_that_could_not_start_for_the_drain(build: Any) -> None:
    cheap = build.held(9, 0, started_at=NOW - 900, until=9e4, preemptible=True)
    waiting = [build.job(1, 1, time_limit_s=8 * HOUR, submitted_at=NOW)]
    snapshot = build.seen(build.box(1), waiting, [cheap])
    assert any(isinstance(one, Preempt) for one in plan(snapshot, NOW))
    assert not any(isinstance(one, Preempt) for one in plan(replace(snapshot, window=FOUR), NOW))


@pytest.mark.parametrize("until", [FOUR.until, None])
def test_the_forecast_goes_round_a_drain(build: Any, until: float | None) -> None:
    """And over it, where nobody runs at its end that could tell the time."""
    jobs = [
        build.job(1, 1, HOUR, time_limit_s=8 * HOUR),
        build.job(2, 1, 2 * HOUR, time_limit_s=2 * HOUR),
        build.job(3, 1, 2 * HOUR, time_limit_s=2 * HOUR),
        build.job(4, 1, 2 * HOUR, time_limit_s=2 * HOUR),
    ]
    window = replace(FOUR, until=until)
    found = forecast(build.seen(build.box(1), jobs, window=window), NOW).start
    assert {2: NOW, 3: NOW + 2 * HOUR}.items() <= found.items()
    assert sorted(found[job] for job in (1, 4) if job in found) == (
        [] if until is None else [until, until + HOUR]  # in line order, the one behind the other
    )


def test_the_forecast_gives_a_job_that_makes_room_no_end(build: Any) -> None:
    cheap = build.held(9, 0, started_at=NOW, until=9 * HOUR, preemptible=True)
    stays = build.held(8, 1, started_at=NOW, until=9 * HOUR)
    found = forecast(build.seen(build.box(2), [build.job(1, 1, HOUR)], [cheap, stays], window=FOUR), NOW)
    assert found.start == {1: FOUR.until}
    assert set(found.end) == set(found.end_span) == {8, 1}


@pytest.mark.parametrize("expect", ["history", "exact"])
def test_a_simulated_trace_goes_round_a_drain(expect: Any) -> None:
    """Also where nothing is left to end or to arrive that would move the time on."""
    trace = [
        TraceJob(0, 0.0, HOUR, 1, "ann", limit_s=9 * HOUR),
        TraceJob(1, 0.0, 3 * HOUR, 1, "ann", limit_s=4 * HOUR),
        TraceJob(2, HOUR, 4 * HOUR, 1, "ann", limit_s=4 * HOUR),
        TraceJob(3, 5 * HOUR, 60.0, 2, "ann", limit_s=60.0),
    ]
    window = Window(4 * HOUR, 6 * HOUR, None, "root")
    starts = {one.job.row: one.start_s for one in simulate(trace, gpus=2, expect=expect, window=window).placements}
    # What is known exactly starts whatever it declares.
    assert starts[0] == 0.0 if expect == "exact" else starts[0] >= 6 * HOUR
    assert starts[1] == 0.0
    assert min(starts[2], starts[3]) >= 6 * HOUR
    assert len(starts) == 4

"""What a plan may cost, in calls of functions: the same on every machine, whatever else runs there."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

from gpuq.scheduler.forecast import forecast
from gpuq.scheduler.order import Line
from gpuq.scheduler.plan import plan
from gpuq.scheduler.snapshot import Candidate, Snapshot

NOW = 1e6


def calls(work: Callable[[], object]) -> int:
    """How many functions `work` calls, those written in C included."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    # A collection in the middle would call what others have asked to be told of it.
    gc.disable()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def waiting(build: Any, count: int) -> list[Candidate]:
    limits = [None, 900.0, 3600.0, 86400.0]
    return [
        build.job(
            n, (1, 1, 1, 2, 4, 8)[n % 6], 10.0 + n * 7919 % 100_000, time_limit_s=limits[n // 6 % 4], user=f"u{n % 20}"
        )
        for n in range(count)
    ]


def test_a_plan_with_ten_thousand_waiting_takes_three_calls_for_each_at_most(build: Any) -> None:
    holdings = [build.held(-n, n, started_at=NOW, until=3600.0 * n) for n in range(1, 6)]
    snapshot = build.seen(build.box(8), waiting(build, 10_000), holdings)
    assert calls(lambda: plan(snapshot, NOW)) <= 3 * 10_000


def test_a_line_ten_times_as_long_costs_no_more(build: Any) -> None:
    holdings = [build.held(-n, n, started_at=NOW, until=3600.0 * n) for n in range(1, 6)]
    cost = []
    for count in (10_000, 100_000):
        snapshot = Snapshot(build.box(8), holdings, Line(waiting(build, count)))
        plan(snapshot, NOW)
        cost.append(calls(lambda: plan(snapshot, NOW)))  # noqa: B023
    assert cost[1] < 1.2 * cost[0]


def test_a_forecast_costs_little_more_for_each_job_in_a_longer_line(build: Any) -> None:
    cost = []
    for count in (100, 1000):
        snapshot = build.seen(build.box(8), waiting(build, count), promises={})
        cost.append(calls(lambda: forecast(snapshot, NOW)))  # noqa: B023
    assert cost[1] < 20 * cost[0]

"""Several jobs on one GPU, by memory."""

from __future__ import annotations

from typing import Any

from gpuq.scheduler.plan import plan
from gpuq.scheduler.snapshot import Start

NOW = 100.0


def started(build: Any, jobs: list[Any], holdings: list[Any], count: int = 2) -> dict[int, tuple[str, ...]]:
    actions = plan(build.seen(build.box(count), jobs, holdings), NOW)
    return {action.job_id: action.gpu_uuids for action in actions if isinstance(action, Start)}


def test_a_share_goes_where_the_least_memory_stays_over(build: Any) -> None:
    holdings = [build.held(8, 0, mem_mb=10_000), build.held(9, 1, mem_mb=18_000)]
    assert started(build, [build.job(1, gpu_mem_mb=6_000)], holdings, 3) == {1: ("gpu1",)}


def test_shares_never_add_up_to_more_than_the_memory(build: Any) -> None:
    jobs = [build.job(n, gpu_mem_mb=9_000) for n in range(1, 7)]
    assert started(build, jobs, []) == {1: ("gpu0",), 2: ("gpu0",), 3: ("gpu1",), 4: ("gpu1",)}


def test_the_observed_peak_counts_when_it_is_larger_than_declared(build: Any) -> None:
    holdings = [build.held(9, 0, mem_mb=6_000, peak_mb={"gpu0": 20_000})]
    assert started(build, [build.job(1, gpu_mem_mb=6_000)], holdings, 1) == {}


def test_an_exclusive_job_is_never_joined(build: Any) -> None:
    assert started(build, [build.job(1, gpu_mem_mb=100)], [build.held(9, 0)], 1) == {}
    assert started(build, [build.job(1), build.job(2, gpu_mem_mb=100)], [], 1) == {1: ("gpu0",)}


def test_an_exclusive_job_does_not_join_a_shared_gpu(build: Any) -> None:
    assert started(build, [build.job(1)], [build.held(9, 0, mem_mb=100)], 1) == {}


def test_a_share_of_several_gpus_needs_room_on_each(build: Any) -> None:
    holdings = [build.held(8, 0, mem_mb=10_000), build.held(9, 1, mem_mb=20_000)]
    assert started(build, [build.job(1, 2, gpu_mem_mb=6_000)], holdings) == {}
    assert started(build, [build.job(1, 2, gpu_mem_mb=4_000)], holdings) == {1: ("gpu0", "gpu1")}


def test_a_long_share_does_not_push_an_exclusive_job_that_is_first(build: Any) -> None:
    holdings = [build.held(9, 0, mem_mb=10_000, until=200.0)]
    long_share = build.job(2, gpu_mem_mb=5_000, expected_s=500.0)
    assert started(build, [build.job(1), long_share], holdings, 1) == {}
    short_share = build.job(2, gpu_mem_mb=5_000, expected_s=50.0)
    assert started(build, [build.job(1), short_share], holdings, 1) == {2: ("gpu0",)}


def test_a_long_share_may_join_when_the_first_share_still_fits_then(build: Any) -> None:
    holdings = [build.held(9, 0, mem_mb=10_000, until=200.0)]
    first = build.job(1, gpu_mem_mb=16_000)
    assert started(build, [first, build.job(2, gpu_mem_mb=8_000, expected_s=9e9)], holdings, 1).keys() == {2}
    assert started(build, [first, build.job(2, gpu_mem_mb=9_000, expected_s=9e9)], holdings, 1).keys() == set()

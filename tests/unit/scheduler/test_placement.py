"""Which GPUs a job gets."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.scheduler.placement import closest, distances, positions
from gpuq.scheduler.snapshot import Device


def islands(size: int, count: int) -> list[Device]:
    """GPUs in groups with NVLink inside and the host between them."""
    total = size * count
    return [
        Device(
            uuid=f"gpu{a}",
            index=a,
            memory_mb=24_000,
            links={f"gpu{b}": 0 if a // size == b // size else 5 for b in range(total) if b != a},
        )
        for a in range(total)
    ]


def chosen(devices: list[Device], free: set[int], count: int) -> set[int]:
    mask = closest(sum(1 << at for at in free), count, distances(devices))
    return set(positions(mask))


def test_a_pair_comes_from_one_island() -> None:
    assert chosen(islands(4, 2), {3, 4, 5, 6, 7}, 2) <= {4, 5, 6, 7}


def test_a_pair_leaves_the_whole_island_whole() -> None:
    assert chosen(islands(4, 2), {2, 3, 4, 5, 6, 7}, 2) == {2, 3}


def test_a_single_gpu_is_taken_where_it_breaks_no_set() -> None:
    assert chosen(islands(4, 2), {3, 4, 5, 6, 7}, 1) == {3}


def test_four_gpus_get_the_island_that_is_whole() -> None:
    assert chosen(islands(4, 2), {0, 1, 4, 5, 6, 7}, 4) == {4, 5, 6, 7}


def test_numa_nodes_count_where_no_links_are_known() -> None:
    devices = [Device(uuid=f"gpu{n}", index=n, memory_mb=1, numa_node=n // 2) for n in range(4)]
    assert chosen(devices, {1, 2, 3}, 2) == {2, 3}


def test_equal_gpus_are_taken_from_the_lowest_index() -> None:
    devices = [Device(uuid=f"gpu{n}", index=n, memory_mb=1) for n in range(4)]
    assert distances(devices) is None
    assert chosen(devices, {1, 2, 3}, 2) == {1, 2}


def test_too_few_free_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match="not enough"):
        closest(0b11, 3, None)


def test_a_plan_starts_a_pair_on_linked_gpus(build: Any) -> None:
    from gpuq.scheduler.plan import plan
    from gpuq.scheduler.snapshot import Start

    snapshot = build.seen(islands(2, 2), [build.job(1, 2)], [build.held(9, 0)])
    assert plan(snapshot, 100.0) == [Start(1, ("gpu2", "gpu3"))]


def test_models_and_numbers_restrict_the_choice(build: Any) -> None:
    from gpuq.scheduler.plan import plan
    from gpuq.scheduler.snapshot import Start

    devices = [
        Device("a", 0, 40_000, "NVIDIA A100-SXM4-40GB"),
        Device("b", 1, 24_000, "NVIDIA GeForce RTX 4090"),
        Device("c", 2, 24_000, "NVIDIA GeForce RTX 4090"),
    ]
    jobs = [build.job(1, gpu_model="rtx 4090", gpu_ids=(2,)), build.job(2, gpu_mem_mb=30_000)]
    assert plan(build.seen(devices, jobs), 100.0) == [Start(1, ("c",)), Start(2, ("a",))]


def test_a_link_that_only_one_of_the_two_knows_counts() -> None:
    devices = [Device("a", 0, 1), Device("b", 1, 1), Device("c", 2, 1, links={"a": 0})]
    assert distances(devices) == [[0, 5, 0], [5, 0, 5], [0, 5, 0]]
    assert chosen(devices, {0, 1, 2}, 2) == {0, 2}


def test_gpus_of_unknown_numa_nodes_are_not_on_the_same_one() -> None:
    nodes = [None, None, 1, 1]
    devices = [Device(uuid=f"gpu{at}", index=at, memory_mb=1, numa_node=node) for at, node in enumerate(nodes)]
    assert chosen(devices, {0, 1, 2, 3}, 2) == {2, 3}


def test_no_gpus_at_all_are_an_empty_set() -> None:
    devices = islands(2, 2)
    assert chosen(devices, {0, 1, 2, 3}, 0) == set()


def test_a_single_gpu_among_alike_is_the_first() -> None:
    assert chosen(islands(2, 2), {0, 1, 2, 3}, 1) == {0}

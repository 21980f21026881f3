from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuq.domain.priority import Priority, score
from gpuq.ports.hot_queue import QueueEntry, Taken
from gpuq.stores.redis import RedisHotQueue, RedisLeases

Build = Callable[..., QueueEntry]


def ids(queue: RedisHotQueue, per_size: int = 100) -> list[int]:
    return [entry.job_id for entry in queue.heads(per_size)]


def test_an_open_empty_queue_has_no_heads(queue: RedisHotQueue) -> None:
    assert queue.heads(10) == []
    assert queue.sizes() == {}
    assert queue.epoch() == "e1"


def test_equal_scores_fall_in_the_order_of_ids_of_any_length(queue: RedisHotQueue, entry: Build) -> None:
    queue.add([entry(job_id) for job_id in (100, 9, 10**12 - 1, 2, 10, 99)])
    assert ids(queue) == [2, 9, 10, 99, 100, 10**12 - 1]
    assert ids(queue, 3) == [2, 9, 10]


def test_priority_is_strict_whatever_was_declared_and_submitted(queue: RedisHotQueue) -> None:
    year = 365 * 86400.0
    late_critical = score(Priority.CRITICAL, 1.9e9 + 10 * year, 10 * year)
    early_high = score(Priority.HIGH, 1.7e9, 1.0)
    early_low = score(Priority.LOW, 0.0, 1.0)
    late_normal = score(Priority.NORMAL, 4e9, 10 * year)
    queue.add(
        [
            QueueEntry(1, 1, early_low),
            QueueEntry(2, 1, late_normal),
            QueueEntry(3, 1, early_high),
            QueueEntry(4, 1, late_critical),
        ]
    )
    assert ids(queue) == [4, 3, 2, 1]


def test_scores_come_back_to_the_last_bit(queue: RedisHotQueue) -> None:
    scores = [score(Priority.LOW, 1_790_000_000.001 + step / 1000, None) for step in range(50)]
    queue.add([QueueEntry(50 - place, 1, value) for place, value in enumerate(scores)])
    assert [entry.score for entry in queue.heads(50)] == scores


def test_heads_are_the_first_of_every_size_merged_into_one_line(queue: RedisHotQueue) -> None:
    queue.add([QueueEntry(size * 10 + place, size, place * 10.0 + size) for size in (0, 1, 2, 8) for place in range(5)])
    heads = queue.heads(2)
    assert [(entry.gpus, entry.job_id) for entry in heads] == [
        (0, 0), (1, 10), (2, 20), (8, 80), (0, 1), (1, 11), (2, 21), (8, 81),
    ]  # fmt: skip
    assert queue.sizes() == {0: 5, 1: 5, 2: 5, 8: 5}
    assert queue.heads(0) == []


def test_adding_again_changes_the_score_and_adds_nobody(queue: RedisHotQueue, entry: Build) -> None:
    queue.add([entry(1, score=5.0), entry(2, score=6.0)])
    queue.add([entry(1, score=7.0)])
    assert ids(queue) == [2, 1]
    assert queue.sizes() == {1: 2}


def test_removing_ignores_who_is_not_there(queue: RedisHotQueue, entry: Build) -> None:
    queue.add([entry(1), entry(2), entry(3, gpus=4)])
    queue.remove([(1, 1), (3, 4), (99, 1), (7, 8)])
    assert ids(queue) == [2]
    assert queue.sizes() == {1: 1}
    queue.remove([])
    queue.add([])
    assert ids(queue) == [2]


def test_a_size_that_was_empty_can_be_filled_again(queue: RedisHotQueue, leases: RedisLeases, entry: Build) -> None:
    queue.add([entry(1, gpus=0)])
    assert leases.take(entry(1, gpus=0), "box1", "t", [], 30) is Taken.TAKEN
    assert queue.sizes() == {}
    queue.add([entry(2, gpus=0)])
    assert ids(queue) == [2]


def test_a_batch_larger_than_one_call_keeps_its_order(queue: RedisHotQueue) -> None:
    entries = [QueueEntry(job_id, job_id % 3, float(20_000 - job_id)) for job_id in range(1, 12_001)]
    queue.add(entries)
    assert queue.sizes() == {0: 4000, 1: 4000, 2: 4000}
    assert ids(queue, 2) == [12_000, 11_999, 11_998, 11_997, 11_996, 11_995]
    queue.remove([(entry.job_id, entry.gpus) for entry in entries[:-1]])
    assert ids(queue) == [12_000]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(
        st.builds(
            QueueEntry,
            st.integers(1, 10**12 - 1),
            st.integers(0, 16),
            st.one_of(st.sampled_from([0.0, 1.5, 2e11]), st.floats(0, 4e11, allow_nan=False)),
        ),
        max_size=40,
        unique_by=lambda entry: entry.job_id,
    ),
    per_size=st.integers(1, 5),
)
def test_heads_agree_with_sorting(queue: RedisHotQueue, entries: list[QueueEntry], per_size: int) -> None:
    queue.rebuild(entries, epoch="e1")
    queue.open("e1")
    line = sorted(entries, key=lambda entry: (entry.score, entry.job_id))
    seen: dict[int, int] = {}
    expected = []
    for item in line:
        seen[item.gpus] = seen.get(item.gpus, 0) + 1
        if seen[item.gpus] <= per_size:
            expected.append(item)
    assert queue.heads(per_size) == expected


@pytest.mark.parametrize("count", [0, 1, 12_345])
def test_a_rebuild_replaces_everything_and_counts(queue: RedisHotQueue, entry: Build, count: int) -> None:
    queue.add([entry(10**9, gpus=7)])
    assert queue.rebuild((QueueEntry(job_id, 1, float(job_id)) for job_id in range(count)), epoch="e1") == count
    queue.open("e1")
    assert queue.sizes() == ({1: count} if count else {})

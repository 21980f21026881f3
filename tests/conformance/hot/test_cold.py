"""A store that was not read back from SQL answers nothing, so that an empty queue is never mistaken for no work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from gpuq.errors import HotStoreCold, NamespaceTaken
from gpuq.ports.hot_queue import GpuClaim, Owner, QueueEntry, Taken
from gpuq.stores.redis import RedisHotQueue, RedisLeases

NODE = "box1"
ONE = QueueEntry(1, 1, 5.0)
Claims = Callable[..., Sequence[GpuClaim]]

CALLS: dict[str, Callable[[RedisHotQueue, RedisLeases], object]] = {
    "add": lambda queue, leases: queue.add([ONE]),
    "remove": lambda queue, leases: queue.remove([(1, 1)]),
    "heads": lambda queue, leases: queue.heads(1),
    "sizes": lambda queue, leases: queue.sizes(),
    "take": lambda queue, leases: leases.take(ONE, NODE, "a", [GpuClaim("G0", None, 24_000)], 30),
    "give_back": lambda queue, leases: leases.give_back(ONE, NODE, "a", ["G0"]),
    "renew": lambda queue, leases: leases.renew(NODE, [("a", ["G0"])], 30),
    "renew nothing": lambda queue, leases: leases.renew(NODE, [], 30),
    "release": lambda queue, leases: leases.release(NODE, "a", ["G0"]),
    "holders": lambda queue, leases: leases.holders(NODE),
}


@pytest.mark.parametrize("expected", ["e1", None])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_on_a_fresh_store_is_cold(store: Any, call: str, expected: str | None) -> None:
    with pytest.raises(HotStoreCold) as caught:
        CALLS[call](store.queue(expected), store.leases(expected))
    assert caught.value.hint
    assert store.queue().epoch() is None


@pytest.mark.parametrize("call", CALLS)
def test_every_call_under_another_epoch_is_cold(store: Any, queue: RedisHotQueue, call: str) -> None:
    with pytest.raises(HotStoreCold):
        CALLS[call](store.queue("e0"), store.leases("e0"))


@pytest.mark.parametrize("call", CALLS)
def test_without_an_expected_epoch_any_open_store_answers(store: Any, queue: RedisHotQueue, call: str) -> None:
    CALLS[call](store.queue(None), store.leases(None))
    CALLS[call](RedisHotQueue(store.link()), RedisLeases(store.link()))


def test_cold_calls_add_and_take_nothing(store: Any, queue: RedisHotQueue, leases: RedisLeases) -> None:
    queue.add([QueueEntry(2, 1, 1.0)])
    other_queue, other_leases = store.queue("e0"), store.leases("e0")
    with pytest.raises(HotStoreCold):
        other_queue.add([ONE])
    with pytest.raises(HotStoreCold):
        other_leases.take(QueueEntry(2, 1, 1.0), NODE, "a", [GpuClaim("G0", None, 24_000)], 30)
    with pytest.raises(HotStoreCold):
        other_leases.give_back(ONE, NODE, "a", [])
    assert queue.heads(9) == [QueueEntry(2, 1, 1.0)]
    assert leases.holders(NODE) == {}


def test_leases_end_and_last_also_while_the_store_is_cold(
    store: Any, queue: RedisHotQueue, leases: RedisLeases, alone: Claims
) -> None:
    leases.hold(NODE, "stays", alone("G0"), 30)
    leases.hold(NODE, "goes", alone("G1"), 30)
    leases.hold(NODE, "back", alone("G2"), 30)
    queue.rebuild([QueueEntry(7, 1, 1.0)], epoch="e1")
    for call in (
        lambda: leases.renew(NODE, [("stays", ["G0"])], 60),
        lambda: leases.release(NODE, "goes", ["G1"]),
        lambda: leases.give_back(ONE, NODE, "back", ["G2"]),
        lambda: queue.remove([(7, 1)]),
    ):
        with pytest.raises(HotStoreCold):
            call()
    queue.open("e1")
    assert leases.holders(NODE) == {"G0": ["stays"]}
    assert queue.sizes() == {}


def test_holding_needs_no_epoch_and_lasts_through_a_rebuild(store: Any, entry: Any, alone: Claims) -> None:
    queue, leases = store.queue(), store.leases()
    leases.hold(NODE, "lives", alone("G0"), 30)
    queue.rebuild([entry(1)], epoch="e1")
    queue.open("e1")
    assert leases.holders(NODE) == {"G0": ["lives"]}
    assert leases.take(entry(1), NODE, "new", alone("G0"), 30) is Taken.BUSY


def test_a_rebuild_in_batches_stays_cold_until_it_is_opened(store: Any, queue: RedisHotQueue) -> None:
    watcher = store.queue(None)
    cold_looks = []

    def entries() -> Iterator[QueueEntry]:
        for job_id in range(12_000):
            if job_id % 3000 == 0:
                with pytest.raises(HotStoreCold):
                    watcher.heads(1)
                cold_looks.append(job_id)
            yield QueueEntry(job_id, 1, float(job_id))

    assert queue.rebuild(entries(), epoch="e1") == 12_000
    assert len(cold_looks) == 4
    with pytest.raises(HotStoreCold):
        watcher.heads(1)
    queue.open("e1")
    assert [entry.job_id for entry in watcher.heads(3)] == [0, 1, 2]
    queue.open("e1")
    assert watcher.sizes() == {1: 12_000}


def test_after_a_flush_everything_is_cold_until_it_is_rebuilt(
    store: Any, queue: RedisHotQueue, leases: RedisLeases, alone: Claims
) -> None:
    queue.add([QueueEntry(1, 1, 1.0), QueueEntry(2, 1, 2.0)])
    assert leases.take(QueueEntry(1, 1, 1.0), NODE, "a", alone("G0"), 30) is Taken.TAKEN
    store.link().client.flushall()
    for call in CALLS.values():
        with pytest.raises(HotStoreCold):
            call(queue, leases)
    queue.rebuild([QueueEntry(2, 1, 2.0)], epoch="e1")
    leases.hold(NODE, "a", alone("G0"), 30)
    queue.open("e1")
    assert queue.heads(5) == [QueueEntry(2, 1, 2.0)]
    assert leases.holders(NODE) == {"G0": ["a"]}


def test_a_flush_in_the_middle_of_a_rebuild_ends_it(store: Any, queue: RedisHotQueue) -> None:
    def entries() -> Iterator[QueueEntry]:
        for job_id in range(12_000):
            if job_id == 7000:
                store.link().client.flushall()
            yield QueueEntry(job_id, 1, float(job_id))

    with pytest.raises(HotStoreCold):
        queue.rebuild(entries(), epoch="e1")
    with pytest.raises(HotStoreCold):
        queue.open("e1")
    with pytest.raises(HotStoreCold):
        queue.heads(1)


def test_a_flush_between_rebuild_and_open_is_noticed(store: Any, queue: RedisHotQueue) -> None:
    queue.rebuild([QueueEntry(1, 1, 1.0)], epoch="e2")
    store.link().client.flushall()
    with pytest.raises(HotStoreCold):
        queue.open("e2")
    assert queue.rebuild([QueueEntry(1, 1, 1.0)], epoch="e2") == 1
    queue.open("e2")
    assert store.queue("e2").sizes() == {1: 1}


def test_a_namespace_is_of_the_installation_that_rebuilt_it_first(store: Any) -> None:
    ours, theirs = Owner("a1", "home /a on one"), Owner("b2", "home /b on two")
    first, second = store.queue(), store.queue("e2")
    assert first.owner() is None
    first.rebuild([QueueEntry(1, 1, 5.0)], epoch="e1", owner=ours)
    first.open("e1")
    assert second.owner() == ours
    with pytest.raises(NamespaceTaken, match="belongs to another installation: home /a on one") as told:
        second.rebuild([QueueEntry(2, 1, 5.0)], epoch="e2", owner=theirs)
    assert "redis-cli DEL gpuq:owner" in str(told.value.hint)
    # Nothing was done.
    assert [head.job_id for head in first.heads(9)] == [1]
    # The same one, with another text, after a move.
    moved = Owner("a1", "home /c on three")
    store.queue().rebuild([QueueEntry(3, 1, 5.0)], epoch="e3", owner=moved)
    assert first.owner() == moved
    second.rebuild([], epoch="e2", owner=Owner("b2", "", by_right=True))
    assert first.owner() == Owner("b2", "")
    store.queue().rebuild([], epoch="e4")
    assert first.owner() == Owner("b2", "")


def test_of_two_rebuilds_only_the_later_one_opens(store: Any) -> None:
    first, second = store.queue("e1"), store.queue("e2")
    first.rebuild([QueueEntry(1, 1, 1.0), QueueEntry(2, 1, 2.0)], epoch="e1")
    second.rebuild([QueueEntry(2, 1, 2.0)], epoch="e2")
    with pytest.raises(HotStoreCold):
        first.open("e1")
    second.open("e2")
    assert second.heads(5) == [QueueEntry(2, 1, 2.0)]
    with pytest.raises(HotStoreCold):
        first.heads(5)

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from gpuq.ports.hot_queue import GpuClaim, QueueEntry, Taken
from gpuq.stores.redis import RedisHotQueue, RedisLeases

NODE = "box1"
Build = Callable[..., QueueEntry]
Claims = Callable[..., Sequence[GpuClaim]]


def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """For ends of leases, which Redis does not announce."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def test_a_taken_job_leaves_the_queue_and_holds_all_its_gpus(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    queue.add([entry(1, gpus=2)])
    assert leases.take(entry(1, gpus=2), NODE, "a", alone("G0", "G1"), 30) is Taken.TAKEN
    assert queue.heads(1) == []
    assert leases.holders(NODE) == {"G0": ["a"], "G1": ["a"]}


def test_holders_are_found_although_the_set_of_what_was_leased_is_lost(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    queue.add([entry(1, gpus=2)])
    leases.take(entry(1, gpus=2), NODE, "a", alone("G0", "G1"), 30)
    assert leases.holders(NODE, ["G1", "G2"]) == {"G0": ["a"], "G1": ["a"]}
    client = leases._link.client
    for key in client.keys("*leases:*"):
        client.delete(key)
    assert leases.holders(NODE) == {}
    assert leases.holders(NODE, ["G1", "G2"]) == {"G1": ["a"]}


def test_a_busy_gpu_leaves_the_job_in_line_and_every_other_gpu_alone(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    queue.add([entry(1), entry(2, gpus=3)])
    assert leases.take(entry(1), NODE, "a", alone("G1"), 30) is Taken.TAKEN
    assert leases.take(entry(2, gpus=3), NODE, "b", alone("G0", "G1", "G2"), 30) is Taken.BUSY
    assert leases.holders(NODE) == {"G1": ["a"]}
    assert queue.heads(1) == [entry(2, gpus=3)]


def test_a_job_that_is_gone_takes_nothing(leases: RedisLeases, entry: Build, alone: Claims) -> None:
    assert leases.take(entry(1), NODE, "a", alone("G0"), 30) is Taken.MISSING
    assert leases.holders(NODE) == {}


def test_a_repeated_take_of_the_same_token_is_the_same_take(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    queue.add([entry(1)])
    assert leases.take(entry(1), NODE, "a", alone("G0"), 30) is Taken.TAKEN
    assert leases.take(entry(1), NODE, "a", alone("G0"), 30) is Taken.TAKEN
    assert leases.take(entry(1), NODE, "b", alone("G0"), 30) is Taken.MISSING
    assert leases.holders(NODE) == {"G0": ["a"]}


def test_a_job_without_gpus_is_taken_once(queue: RedisHotQueue, leases: RedisLeases, entry: Build) -> None:
    queue.add([entry(1, gpus=0)])
    assert leases.take(entry(1, gpus=0), NODE, "a", [], 30) is Taken.TAKEN
    assert leases.take(entry(1, gpus=0), NODE, "b", [], 30) is Taken.MISSING
    leases.hold(NODE, "a", [], 30)
    leases.release(NODE, "a", [])
    assert leases.renew(NODE, [("a", [])], 30) == []


def test_shares_fit_up_to_the_total_and_not_beyond(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, share: Claims
) -> None:
    queue.add([entry(job_id) for job_id in (1, 2, 3)])
    assert leases.take(entry(1), NODE, "a", share(14_000, "G0"), 30) is Taken.TAKEN
    assert leases.take(entry(2), NODE, "b", share(10_001, "G0"), 30) is Taken.BUSY
    assert leases.take(entry(2), NODE, "b", share(10_000, "G0"), 30) is Taken.TAKEN
    assert leases.take(entry(3), NODE, "c", share(1, "G0"), 30) is Taken.BUSY
    assert {uuid: sorted(tokens) for uuid, tokens in leases.holders(NODE).items()} == {"G0": ["a", "b"]}


def test_a_share_larger_than_the_gpu_never_fits(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, share: Claims
) -> None:
    queue.add([entry(1)])
    assert leases.take(entry(1), NODE, "a", share(24_001, "G0"), 30) is Taken.BUSY


@pytest.mark.parametrize("first_alone", [True, False])
def test_alone_tolerates_nobody_and_nobody_tolerates_alone(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims, share: Claims, first_alone: bool
) -> None:
    queue.add([entry(1), entry(2)])
    claims = [alone("G0"), share(1, "G0")]
    first, second = claims if first_alone else reversed(claims)
    assert leases.take(entry(1), NODE, "a", first, 30) is Taken.TAKEN
    assert leases.take(entry(2), NODE, "b", second, 30) is Taken.BUSY
    leases.release(NODE, "a", ["G0"])
    assert leases.take(entry(2), NODE, "b", second, 30) is Taken.TAKEN


def test_nodes_do_not_see_each_others_gpus(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    queue.add([entry(1), entry(2)])
    assert leases.take(entry(1), "box1", "a", alone("0"), 30) is Taken.TAKEN
    assert leases.take(entry(2), "box2", "b", alone("0"), 30) is Taken.TAKEN
    assert leases.holders("box1") == {"0": ["a"]}
    assert leases.holders("box2") == {"0": ["b"]}


def test_an_expired_lease_is_gone_and_the_gpu_is_taken_again(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    queue.add([entry(1), entry(2)])
    assert leases.take(entry(1), NODE, "a", alone("G0"), 0.05) is Taken.TAKEN
    until(lambda: leases.holders(NODE) == {})
    assert leases.take(entry(2), NODE, "b", alone("G0"), 30) is Taken.TAKEN
    assert leases.renew(NODE, [("a", ["G0"])], 30) == ["a"]
    assert leases.holders(NODE) == {"G0": ["b"]}


def test_one_share_expires_without_the_other(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, share: Claims
) -> None:
    queue.add([entry(1), entry(2), entry(3)])
    assert leases.take(entry(1), NODE, "long", share(8000, "G0"), 30) is Taken.TAKEN
    assert leases.take(entry(2), NODE, "short", share(16_000, "G0"), 0.05) is Taken.TAKEN
    until(lambda: leases.holders(NODE) == {"G0": ["long"]})
    assert leases.take(entry(3), NODE, "new", share(16_000, "G0"), 0.05) is Taken.TAKEN
    until(lambda: leases.holders(NODE) == {"G0": ["long"]})


def test_a_lease_that_is_renewed_outlives_its_first_span(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    queue.add([entry(1)])
    leases.hold(NODE, "marker", alone("G9"), 0.2)
    assert leases.take(entry(1), NODE, "a", alone("G0"), 0.2) is Taken.TAKEN
    assert leases.renew(NODE, [("a", ["G0"])], 30) == []
    until(lambda: "G9" not in leases.holders(NODE))
    assert leases.holders(NODE) == {"G0": ["a"]}


def test_renewing_names_the_tokens_that_lost_something_and_renews_the_rest(leases: RedisLeases, alone: Claims) -> None:
    leases.hold(NODE, "whole", alone("G0", "G1"), 0.3)
    leases.hold(NODE, "robbed", alone("G2", "G3"), 0.3)
    leases.hold(NODE, "thief", alone("G3"), 0.3)
    leases.release(NODE, "robbed", ["G3"])
    held = [("whole", ["G0", "G1"]), ("robbed", ["G2", "G3"]), ("never", ["G4"]), ("thief", ["G3"]), ("cpu", [])]
    assert leases.renew(NODE, held, 30) == ["robbed", "never"]
    leases.hold(NODE, "marker", alone("G9"), 0.35)
    until(lambda: "G9" not in leases.holders(NODE))
    assert leases.holders(NODE) == {"G0": ["whole"], "G1": ["whole"], "G2": ["robbed"], "G3": ["thief"]}
    assert leases.renew(NODE, [], 30) == []


def test_a_token_releases_only_its_own(leases: RedisLeases, alone: Claims, share: Claims) -> None:
    leases.hold(NODE, "a", alone("G0"), 30)
    leases.hold(NODE, "b", share(1000, "G1"), 30)
    leases.hold(NODE, "c", share(1000, "G1"), 30)
    leases.release(NODE, "b", ["G0", "G1", "G2"])
    assert leases.holders(NODE) == {"G0": ["a"], "G1": ["c"]}


def test_holding_again_changes_the_share_and_adds_no_second_one(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, share: Claims
) -> None:
    queue.add([entry(1)])
    leases.hold(NODE, "a", share(20_000, "G0"), 30)
    leases.hold(NODE, "a", share(4000, "G0"), 30)
    assert leases.holders(NODE) == {"G0": ["a"]}
    assert leases.take(entry(1), NODE, "b", share(20_000, "G0"), 30) is Taken.TAKEN


def test_a_job_given_back_is_in_its_old_place_and_its_gpus_are_free(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    line = [entry(1, gpus=2, score=1.0), entry(2, gpus=2, score=2.0), entry(3, gpus=2, score=3.0)]
    queue.add(line)
    assert leases.take(line[1], NODE, "a", alone("G0", "G1"), 30) is Taken.TAKEN
    leases.give_back(line[1], NODE, "a", ["G0", "G1"])
    leases.give_back(line[1], NODE, "a", ["G0", "G1"])
    assert queue.heads(10) == line
    assert leases.holders(NODE) == {}


def test_giving_back_leaves_a_newer_score_and_other_holders_alone(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, share: Claims
) -> None:
    queue.add([entry(1, score=9.0)])
    assert leases.take(entry(1, score=9.0), NODE, "a", share(1, "G0"), 30) is Taken.TAKEN
    leases.hold(NODE, "other", share(1, "G0"), 30)
    queue.add([entry(1, score=4.0)])
    leases.give_back(entry(1, score=9.0), NODE, "a", ["G0"])
    assert queue.heads(1) == [entry(1, score=4.0)]
    assert leases.holders(NODE) == {"G0": ["other"]}


def test_racing_takes_of_overlapping_gpus_never_make_two_holders(store: Any, queue: RedisHotQueue) -> None:
    jobs, gpus, racers = 120, [f"G{index}" for index in range(6)], 4
    queue.add([QueueEntry(job_id, 1 + job_id % 3, float(job_id)) for job_id in range(jobs)])
    owner: dict[str, str] = {}
    guard = threading.Lock()
    violations: list[str] = []
    taken: list[int] = []
    barrier = threading.Barrier(racers)

    def race(racer: int, leases: RedisLeases) -> None:
        random = Random(racer)
        barrier.wait()
        for job_id in range(jobs):
            chosen = random.sample(gpus, 1 + job_id % 3)
            token = f"r{racer}j{job_id}"
            entry = QueueEntry(job_id, 1 + job_id % 3, float(job_id))
            claims = [GpuClaim(uuid, None, 24_000) for uuid in chosen]
            if leases.take(entry, NODE, token, claims, 30) is not Taken.TAKEN:
                continue
            with guard:
                taken.append(job_id)
                violations.extend(f"{uuid}: {owner[uuid]} and {token}" for uuid in chosen if uuid in owner)
                owner.update(dict.fromkeys(chosen, token))
            with guard:
                for uuid in chosen:
                    owner.pop(uuid, None)
            leases.release(NODE, token, chosen)

    threads = [threading.Thread(target=race, args=(racer, store.leases())) for racer in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert violations == []
    left = {entry.job_id for entry in queue.heads(jobs)}
    assert len(taken) == len(set(taken))
    assert left.isdisjoint(taken)
    assert left | set(taken) == set(range(jobs))


def test_a_job_that_may_not_be_listed_yet_is_taken_whether_or_not_it_is(
    queue: RedisHotQueue, leases: RedisLeases, entry: Build, alone: Claims
) -> None:
    queue.add([entry(2)])
    for job_id in (1, 2):
        for _ in range(2):
            # The second is a call that is repeated because its answer was lost.
            taken = leases.take(entry(job_id), NODE, f"t{job_id}", alone(f"G{job_id}"), 30, (), True)
            assert taken is Taken.TAKEN
    assert leases.holders(NODE) == {"G1": ["t1"], "G2": ["t2"]}
    assert queue.heads(1) == []


def test_a_job_that_may_not_be_listed_yet_takes_no_busy_gpu(leases: RedisLeases, entry: Build, alone: Claims) -> None:
    assert leases.take(entry(1), NODE, "a", alone("G0"), 30, (), True) is Taken.TAKEN
    assert leases.take(entry(2), NODE, "b", alone("G0"), 30, (), True) is Taken.BUSY
    assert leases.take(entry(3), NODE, "c", alone("G0"), 30, ("a",), True) is Taken.TAKEN
    assert leases.holders(NODE) == {"G0": ["c"]}

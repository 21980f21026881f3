"""Who has the node, and how long leases are kept and when they are let go."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.claim.lease_renewal import LeaseRenewer, hold_again
from gpuq.engine.file_lock import FileLock, is_held
from gpuq.engine.node_lock import Fence, NodeLocks
from gpuq.errors import AlreadyRunning, HotStoreUnavailable, NodeTaken


class Key:
    """An agent's key in a Redis that answers as the test says; None: it does not answer."""

    def __init__(self, acquire: bool | None = True, renew: bool | None = True) -> None:
        self.acquires, self.renews = acquire, renew
        self.asked: list[tuple[Any, ...]] = []
        self.releases: bool | None = True

    def _answer(self, answer: bool | None, *asked: Any) -> bool:
        self.asked.append(asked)
        if answer is None:
            raise HotStoreUnavailable("Redis does not answer")
        return answer

    def acquire(self, node: str, token: str, ttl_s: float) -> bool:
        return self._answer(self.acquires, "acquire", node, token, ttl_s)

    def renew(self, node: str, token: str, ttl_s: float) -> bool:
        return self._answer(self.renews, "renew", node, token, ttl_s)

    def release(self, node: str, token: str) -> None:
        self._answer(self.releases, "release", node, token)

    def holder(self, node: str) -> str | None:
        return None


@pytest.fixture
def make_locks(world: Any) -> Any:
    def make(key: Key) -> NodeLocks:
        lock = FileLock(world.ctx.agent_lock_path, "an agent")
        return NodeLocks(lock, key, node="box", token="mine", ttl_s=30)

    return make


def test_a_node_is_taken_once_and_given_up_with_its_file(world: Any, make_locks: Any) -> None:
    key = Key()
    locks = make_locks(key)
    assert (locks.held, locks.tenure) == (False, 0)
    locks.acquire()
    assert (locks.held, locks.tenure, is_held(world.ctx.agent_lock_path)) == (True, 1, True)
    locks.renew()
    assert (locks.held, locks.tenure) == (True, 1)
    locks.release()
    assert key.asked == [
        ("acquire", "box", "mine", 30),
        ("renew", "box", "mine", 30),
        ("release", "box", "mine"),
    ]
    assert not is_held(world.ctx.agent_lock_path)


def test_a_node_that_another_home_serves_is_refused_and_the_file_is_free_again(world: Any, make_locks: Any) -> None:
    locks = make_locks(Key(acquire=False))
    with pytest.raises(AlreadyRunning, match="another agent serves the node 'box'"):
        locks.acquire()
    assert (locks.held, locks.tenure) == (False, 0)
    assert not is_held(world.ctx.agent_lock_path)


def test_without_redis_the_node_is_not_held_until_the_key_is_set(world: Any, make_locks: Any) -> None:
    key = Key(acquire=None, renew=None)
    locks = make_locks(key)
    locks.acquire()
    assert (locks.held, locks.tenure, is_held(world.ctx.agent_lock_path)) == (False, 0, True)
    with pytest.raises(HotStoreUnavailable):
        locks.renew()
    # The key was set after all: only the answer was lost.
    key.renews = True
    locks.renew()
    assert (locks.held, locks.tenure) == (True, 1)
    key.releases = None
    locks.release()
    assert not is_held(world.ctx.agent_lock_path)


def test_a_key_that_expired_is_taken_again_and_somebody_may_have_had_the_node_in_between(make_locks: Any) -> None:
    key = Key()
    locks = make_locks(key)
    locks.acquire()
    key.renews = False
    locks.renew()
    assert (locks.held, locks.tenure) == (True, 2)
    locks.release()


def test_a_node_that_another_agent_took_is_lost_and_said_once(
    make_locks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key = Key()
    locks = make_locks(key)
    locks.acquire()
    key.renews = key.acquires = False
    for _ in range(2):
        locks.renew()
        assert (locks.held, locks.tenure) == (False, 1)
    assert caplog.text.count("another agent took the node 'box'") == 1
    key.acquires = True
    locks.renew()
    assert (locks.held, locks.tenure) == (True, 2)
    locks.release()


def test_the_fence_is_of_the_agent_that_took_the_node_last(world: Any) -> None:
    records, now = world.ctx.records, world.clock.now()
    first, second = Fence("box", "first"), Fence("box", "second")
    assert first.take(records, now)
    assert not first.take(records, now)
    with records.read() as tx:
        first.check(tx)
    assert second.take(records, now)
    with records.read() as tx:
        second.check(tx)
        with pytest.raises(NodeTaken, match="another agent took this node"):
            first.check(tx)
    assert Fence("other", "first").take(records, now)


# Leases.


@pytest.fixture
def renewed(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The tokens of each renewal that was asked for."""
    asked: list[list[str]] = []
    renew = world.ctx.leases.renew

    def note(node: str, pairs: Any, ttl_s: float) -> Any:
        assert (node, ttl_s) == ("box", world.settings.lease_ttl)
        asked.append([token for token, _ in pairs])
        return renew(node, pairs, ttl_s)

    monkeypatch.setattr(world.ctx.leases, "renew", note)
    return asked


def started(world: Any, *jobs: int) -> Any:
    agent = world.agent()
    agent.run_once()
    for job_id in jobs:
        world.launcher.run(job_id)
    agent.run_once()
    return agent


def test_leases_are_renewed_three_times_in_their_time_and_only_those_of_jobs_with_gpus(
    world: Any, make_locks: Any, renewed: list[list[str]]
) -> None:
    agent = started(world, world.submit("a"), world.submit("a", gpus=0))
    renewed.clear()
    [held] = [tracked.token for tracked in agent.tracked if tracked.gpu_uuids]
    locks = NodeLocks(FileLock(world.settings.home / "other.lock", "-"), Key(), node="box", token="x", ttl_s=30)
    locks.held = True
    renewer = LeaseRenewer(world.ctx, locks)
    renewer.renew(agent.tracked)
    assert renewed == [[held]]
    assert renewer.due_at == world.clock.monotonic() + 10
    world.clock.forward(9.9)
    renewer.renew(agent.tracked)
    assert renewed == [[held]]
    world.clock.forward(0.1)
    renewer.renew(agent.tracked)
    assert renewed == [[held], [held]]
    world.clock.forward(10)
    renewer.renew([tracked for tracked in agent.tracked if not tracked.gpu_uuids])
    assert len(renewed) == 2


def test_an_agent_that_has_lost_its_node_renews_no_lease(world: Any, make_locks: Any, renewed: list[list[str]]) -> None:
    agent = started(world, world.submit("a"))
    renewed.clear()
    key = Key(acquire=False, renew=False)
    LeaseRenewer(world.ctx, make_locks(key)).renew(agent.tracked)
    assert renewed == []
    assert [asked[0] for asked in key.asked] == ["renew", "acquire"]


def test_without_redis_leases_are_due_again_within_a_second_and_it_is_said_once(
    world: Any, make_locks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key = Key(renew=None)
    renewer = LeaseRenewer(world.ctx, make_locks(key))

    def told() -> int:
        return caplog.text.count("leases not renewed: Redis does not answer")

    for _ in range(2):
        renewer.renew([])
        assert (renewer.due_at, told()) == (world.clock.monotonic() + 1, 1)
        world.clock.forward(1)
    key.renews = True
    renewer.renew([])
    assert renewer.due_at == world.clock.monotonic() + 10
    key.renews = None
    world.clock.forward(10)
    renewer.renew([])
    assert told() == 2


def test_of_a_very_short_lease_the_next_try_comes_sooner_than_a_second(make_world: Any) -> None:
    world = make_world("sim:1", lease_ttl=1.5)
    locks = NodeLocks(FileLock(world.ctx.agent_lock_path, "-"), Key(renew=None), node="box", token="x", ttl_s=1.5)
    renewer = LeaseRenewer(world.ctx, locks)
    renewer.renew([])
    assert renewer.due_at == world.clock.monotonic() + 0.5


def test_the_leases_of_all_that_ended_in_one_turn_are_released(world: Any) -> None:
    jobs = [world.submit("a", gpus=2), world.submit("a"), world.submit("a")]
    agent = started(world, *jobs)
    assert len(world.holders()) == 4
    for job_id in jobs[1:]:
        world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert sorted(world.holders()) == sorted(gpu for tracked in agent.tracked for gpu in tracked.gpu_uuids)
    assert len(world.holders()) == 2


def test_leases_that_could_not_be_released_are_released_with_the_next_renewal(
    world: Any, make_locks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [world.submit("a"), world.submit("a")]
    agent = started(world, *jobs)
    ended = list(agent.tracked)
    locks = make_locks(Key())
    locks.held = True
    renewer = LeaseRenewer(world.ctx, locks)
    renewer.renew([])

    def no_redis(*_: object) -> None:
        raise HotStoreUnavailable("Redis does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.leases, "release", no_redis)
        renewer.release(ended)
    assert len(world.holders()) == 2
    assert renewer.due_at == 0.0
    renewer.renew([])
    assert world.holders() == {}


def test_a_lease_that_made_way_for_another_is_not_released_a_second_time(
    world: Any, make_locks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = started(world, world.submit("a", gpus=2))
    [ended] = agent.tracked
    released: list[Any] = []
    monkeypatch.setattr(world.ctx.leases, "release", lambda *asked: released.append(asked))
    renewer = LeaseRenewer(world.ctx, make_locks(Key()))
    first, second = ended.gpu_uuids
    renewer.release([ended], given=[first, second])
    assert released == []
    renewer.release([ended], given=[first])
    assert released == [("box", ended.token, (second,))]


def test_a_lease_that_is_set_again_has_its_share_and_the_size_of_its_gpu(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []
    monkeypatch.setattr(world.ctx.leases, "hold", lambda *asked: held.append(asked))
    gpu = world.ctx.gpus.inventory()[0]
    hold_again(world.ctx, "t", [gpu.uuid, "of another machine"], 500, "box")
    [(node, token, claims, ttl_s)] = held
    assert (node, token, ttl_s) == ("box", "t", world.settings.lease_ttl)
    assert [(claim.uuid, claim.mem_mb, claim.total_mb) for claim in claims] == [
        (gpu.uuid, 500, gpu.memory_mb),
        ("of another machine", 500, 0),
    ]

from __future__ import annotations

import time
from typing import Any

from gpuq.stores.redis import RedisAgentKey


def test_a_node_has_one_agent_until_it_lets_go(store: Any) -> None:
    first, second = RedisAgentKey(store.link()), RedisAgentKey(store.link())
    assert first.acquire("box1", "a", 30)
    assert not second.acquire("box1", "b", 30)
    assert first.acquire("box1", "a", 30)
    assert first.renew("box1", "a", 30)
    assert not second.renew("box1", "b", 30)
    second.release("box1", "b")
    assert first.holder("box1") == "a"
    first.release("box1", "a")
    assert second.holder("box1") is None
    assert second.acquire("box1", "b", 30)


def test_nodes_have_agents_of_their_own(store: Any) -> None:
    lock = RedisAgentKey(store.link())
    assert lock.acquire("box1", "a", 30)
    assert lock.acquire("box2", "b", 30)


def test_a_dead_agents_node_is_free_after_the_ttl_and_its_renewal_is_refused(store: Any) -> None:
    dead, successor = RedisAgentKey(store.link()), RedisAgentKey(store.link())
    assert dead.acquire("box1", "a", 0.05)
    deadline = time.monotonic() + 5
    while not successor.acquire("box1", "b", 30):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert not dead.renew("box1", "a", 30)
    dead.release("box1", "a")
    assert successor.holder("box1") == "b"


def test_renewing_moves_the_end(store: Any) -> None:
    lock = RedisAgentKey(store.link())
    assert lock.acquire("box1", "a", 0.1)
    assert lock.renew("box1", "a", 60)
    assert store.link().client.pttl("gpuq:agent:box1") > 30_000


def test_after_a_flush_the_agent_learns_of_it_and_may_come_back(store: Any) -> None:
    lock = RedisAgentKey(store.link())
    assert lock.acquire("box1", "a", 30)
    store.link().client.flushall()
    assert not lock.renew("box1", "a", 30)
    assert lock.acquire("box1", "a", 30)

"""The hot store under test: the same suite on fakeredis and on a real redis-server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import fakeredis
import pytest

from gpuq.ports.hot_queue import GpuClaim, QueueEntry
from gpuq.stores.redis import RedisHotQueue, RedisLeases, RedisLink, connect

NODE = "box1"


@dataclass
class HotStore:
    """One Redis, and as many links to it as a test wants (each as if it were another process)."""

    make_link: Callable[[], RedisLink]
    links: list[RedisLink] = field(default_factory=list)

    def link(self) -> RedisLink:
        link = self.make_link()
        self.links.append(link)
        return link

    def queue(self, epoch: str | None = "e1") -> RedisHotQueue:
        return RedisHotQueue(self.link(), expected_epoch=lambda: epoch)

    def leases(self, epoch: str | None = "e1") -> RedisLeases:
        return RedisLeases(self.link(), expected_epoch=lambda: epoch)


@pytest.fixture(params=["fakeredis", pytest.param("redis", marks=pytest.mark.redis)])
def store(request: pytest.FixtureRequest) -> Iterator[HotStore]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        store = HotStore(lambda: connect(url, "gpuq"))
    else:
        server = fakeredis.FakeServer()
        store = HotStore(lambda: RedisLink(fakeredis.FakeRedis(server=server, decode_responses=True), "gpuq"))
    yield store
    for link in store.links:
        link.close()


@pytest.fixture
def queue(store: HotStore) -> RedisHotQueue:
    """Open with epoch e1, and empty."""
    queue = store.queue()
    queue.rebuild([], epoch="e1")
    queue.open("e1")
    return queue


@pytest.fixture
def leases(store: HotStore, queue: RedisHotQueue) -> RedisLeases:
    return store.leases()


@pytest.fixture
def entry() -> Callable[..., QueueEntry]:
    def build(job_id: int = 1, gpus: int = 1, score: float = 2e11 + 1_790_000_000.123) -> QueueEntry:
        return QueueEntry(job_id, gpus, score)

    return build


@pytest.fixture
def alone() -> Callable[..., Sequence[GpuClaim]]:
    return lambda *uuids: [GpuClaim(uuid, None, 24_000) for uuid in uuids]


@pytest.fixture
def share() -> Callable[..., Sequence[GpuClaim]]:
    return lambda mem_mb, *uuids: [GpuClaim(uuid, mem_mb, 24_000) for uuid in uuids]

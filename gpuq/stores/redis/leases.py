"""Who holds which GPU (see gpuq.ports.hot_queue), and which agent holds the node.

A lease is an entry `token:share` in the GPU's sorted set, scored by its end in milliseconds of Redis' own
clock, so that no client's clock matters. Alone (share -1) tolerates nobody; shares fit while they add up to no
more than the GPU's total. An entry past its end counts as gone, whether or not it has been cleared away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from gpuq.ports.hot_queue import GpuClaim, QueueEntry, Taken
from gpuq.stores.redis.keys import padded
from gpuq.stores.redis.link import RedisLink
from gpuq.stores.redis.queue import ExpectedEpoch

ALONE = -1


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _share(claim: GpuClaim) -> int:
    return ALONE if claim.mem_mb is None else claim.mem_mb


class RedisLeases:
    """`expected_epoch` as for RedisHotQueue.

    What makes leases end or last (`give_back`, `release`, `renew`) is done also while the store is cold, since
    it is true whatever the queue holds; HotStoreCold is raised afterwards, so that the caller rebuilds.
    """

    def __init__(self, link: RedisLink, *, expected_epoch: ExpectedEpoch | None = None) -> None:
        self._link = link
        self._keys = link.keys
        self._expected_epoch = expected_epoch

    def take(
        self,
        entry: QueueEntry,
        node: str,
        token: str,
        gpus: Sequence[GpuClaim],
        ttl_s: float,
        over: Collection[str] = (),
        unlisted: bool = False,
    ) -> Taken:
        keys = [self._keys.epoch, self._keys.queue(entry.gpus), self._keys.queues, self._keys.leases(node)]
        ended = "".join(f"{ended}," for ended in over)
        args: list[str | int] = [self._expected(), padded(entry.job_id), token, _ms(ttl_s), ended, int(unlisted)]
        for claim in gpus:
            keys.append(self._keys.lease(node, claim.uuid))
            args.extend((_share(claim), claim.total_mb, claim.uuid))
        return Taken(str(self._link.run_warm("take", keys, args)).lower())

    def give_back(self, entry: QueueEntry, node: str, token: str, uuids: Sequence[str]) -> None:
        keys = [self._keys.epoch, self._keys.queue(entry.gpus), self._keys.queues]
        keys.extend(self._keys.lease(node, uuid) for uuid in uuids)
        args = [self._expected(), token, padded(entry.job_id), repr(float(entry.score))]
        self._link.run_warm("give_back", keys, args)

    def hold(self, node: str, token: str, gpus: Sequence[GpuClaim], ttl_s: float) -> None:
        if not gpus:
            return
        keys = [self._keys.leases(node)]
        args: list[str | int] = [token, _ms(ttl_s)]
        for claim in gpus:
            keys.append(self._keys.lease(node, claim.uuid))
            args.extend((_share(claim), claim.uuid))
        self._link.run("hold", keys, args)

    def renew(self, node: str, held: Sequence[tuple[str, Sequence[str]]], ttl_s: float) -> list[str]:
        """With nothing held this still asks whether the store is warm."""
        keys = [self._keys.epoch]
        args: list[str | int] = [self._expected(), _ms(ttl_s)]
        for token, uuids in held:
            keys.extend(self._keys.lease(node, uuid) for uuid in uuids)
            args.extend((token, len(uuids)))
        return [str(token) for token in self._link.run_warm("renew", keys, args)[1:]]

    def release(self, node: str, token: str, uuids: Sequence[str]) -> None:
        if not uuids:
            return
        keys = [self._keys.epoch, *(self._keys.lease(node, uuid) for uuid in uuids)]
        self._link.run_warm("release", keys, [self._expected(), token])

    def holders(self, node: str, uuids: Collection[str] = ()) -> dict[str, list[str]]:
        keys = [self._keys.epoch, self._keys.leases(node)]
        answer = self._link.run_warm("holders", keys, [self._expected(), self._keys.lease_prefix(node), *uuids])
        found: dict[str, list[str]] = defaultdict(list)
        for uuid, token in zip(answer[::2], answer[1::2], strict=True):
            found[uuid].append(token)
        return dict(found)

    def _expected(self) -> str:
        return (self._expected_epoch() if self._expected_epoch else None) or ""


class RedisAgentKey:
    """At most one agent a node, among all that share this Redis. The epoch does not matter to it.

    It ends by itself after its TTL, and a flush ends it at once: an agent whose `renew` is refused may `acquire`
    again, and steps down when that is refused too.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def acquire(self, node: str, token: str, ttl_s: float) -> bool:
        """False when another token has it; true, with a fresh TTL, when it was free or ours."""
        return bool(self._link.run("agent_acquire", [self._link.keys.agent(node)], [token, _ms(ttl_s)]))

    def renew(self, node: str, token: str, ttl_s: float) -> bool:
        return bool(self._link.run("agent_renew", [self._link.keys.agent(node)], [token, _ms(ttl_s)]))

    def release(self, node: str, token: str) -> None:
        """Only our own."""
        self._link.run("agent_release", [self._link.keys.agent(node)], [token])

    def holder(self, node: str) -> str | None:
        found = self._link.call(lambda client: client.get(self._link.keys.agent(node)))
        return None if found is None else str(found)

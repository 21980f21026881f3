"""The hot queue and the leases: what Redis holds, all of it rebuildable from SQL.

The queue is one sorted set per number of GPUs asked for, so that the first job of every size is found
without walking past the others; together, by (score, id), they are the line. Every call checks the
`epoch` marker and raises HotStoreCold when it is not the expected one: nothing is scheduled until SQL has
been read back. All raise HotStoreUnavailable when Redis cannot be reached or cannot write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class QueueEntry(NamedTuple):
    """A queued job in the hot queue: `gpus` names the sorted set, `score` its place there."""

    job_id: int
    gpus: int
    score: float


@dataclass(frozen=True, slots=True)
class Owner:
    """An installation, to which a namespace belongs: its `id`, and what people are `told` of it. `by_right`: whatever
    stands there, it is this one's."""

    id: str
    told: str
    by_right: bool = False


class Taken(StrEnum):
    """What came of an attempt to take a job and its GPUs."""

    TAKEN = "taken"
    MISSING = "missing"  # the job is not in the queue any more
    BUSY = "busy"  # a GPU has a holder that leaves no room


@dataclass(frozen=True, slots=True)
class GpuClaim:
    """A share of one GPU. `mem_mb` None: alone on it. `total_mb`: what shares may add up to."""

    uuid: str
    mem_mb: int | None
    total_mb: int


class HotQueue(Protocol):
    """The sorted sets of queued jobs; what each call raises is said at the top of the module."""

    def add(self, entries: Sequence[QueueEntry]) -> None:
        """Also wakes the agents (pub/sub)."""

    def remove(self, entries: Iterable[tuple[int, int]]) -> None:
        """(job id, gpus) pairs; absent ones are ignored."""

    def heads(self, per_size: int) -> list[QueueEntry]:
        """The first `per_size` members of every size, merged in line order."""

    def sizes(self) -> dict[int, int]:
        """GPUs asked for → how many wait."""

    def rebuild(self, entries: Iterable[QueueEntry], *, epoch: str, owner: Owner | None = None) -> int:
        """Drops the marker, empties the queue, adds every member in batches, and leaves the store cold;
        returns how many. `open` ends it. Raises NamespaceTaken, with nothing done, when the namespace belongs to
        another than `owner` (None: it is not asked); from then on it is this one's."""

    def owner(self) -> Owner | None:
        """Whose the namespace is; None: nobody's yet."""

    def open(self, epoch: str) -> None:
        """Writes the marker: from now on calls are answered."""

    def epoch(self) -> str | None:
        """The marker that Redis holds, whether or not it is the expected one; None without one."""


class Leases(Protocol):
    """Keys `lease:{node}:{gpu uuid}`: who holds a GPU, by fencing token, with a TTL in seconds.

    Expiry means suspect, not dead: before a GPU is given again its last holder is proved gone, which is
    the engine's business.
    """

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
        """In one script: the member leaves the queue and every lease is set, or nothing happens.

        `over`: tokens of attempts that are known to have ended; what they hold of these GPUs makes way. `unlisted`: the
        job may not stand in the queue yet, so its absence says nothing; only SQL knows then whether it waits."""

    def give_back(self, entry: QueueEntry, node: str, token: str, uuids: Sequence[str]) -> None:
        """Undo of `take`, in one script: leases of this token go, the member is back in its place."""

    def hold(self, node: str, token: str, gpus: Sequence[GpuClaim], ttl_s: float) -> None:
        """Sets leases of an attempt that is known to live (rehydration, adoption), whatever the epoch."""

    def renew(self, node: str, held: Sequence[tuple[str, Sequence[str]]], ttl_s: float) -> list[str]:
        """(token, uuids) pairs; returns the tokens of which some lease was missing or another's. One script."""

    def release(self, node: str, token: str, uuids: Sequence[str]) -> None:
        """Only what this token holds."""

    def holders(self, node: str, uuids: Collection[str] = ()) -> dict[str, list[str]]:
        """GPU uuid → tokens. `uuids`: GPUs to look at even if nobody remembers that they were ever leased."""


class AgentKey(Protocol):
    """`agent:{node}` = token, with a TTL in seconds: one agent a node, whatever the home."""

    def acquire(self, node: str, token: str, ttl_s: float) -> bool:
        """False when another token holds the key."""

    def renew(self, node: str, token: str, ttl_s: float) -> bool:
        """Sets the TTL anew; False when the key is not this token's any more."""

    def release(self, node: str, token: str) -> None:
        """Deletes the key if this token holds it."""

    def holder(self, node: str) -> str | None:
        """The token of the agent that serves the node."""

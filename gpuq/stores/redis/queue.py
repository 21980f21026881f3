"""The line of waiting jobs as sorted sets (see gpuq.ports.hot_queue)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from gpuq.errors import HotStoreCold, NamespaceTaken
from gpuq.ports.hot_queue import Owner, QueueEntry
from gpuq.stores.redis.keys import padded
from gpuq.stores.redis.link import COLD, RedisLink, cold

ExpectedEpoch = Callable[[], str | None]

# Members per script call: about 20 ms of Redis' time, so that other callers are not held up for long.
BATCH = 5000


@dataclass(frozen=True, slots=True)
class _Heads:
    """What Redis said about one size, and what it means: (score, id, member), in line order."""

    text: str
    line: list[tuple[float, int, QueueEntry]]


def _parse(gpus: int, text: str) -> _Heads:
    words = text.split(" ")
    line = []
    for word, score_word in zip(words[::2], words[1::2], strict=True):
        job_id, score = int(word), float(score_word)
        line.append((score, job_id, QueueEntry(job_id, gpus, score)))
    return _Heads(text, line)


def _owner(text: str) -> Owner:
    installation, _, told = text.partition(" ")
    return Owner(installation, told)


class RedisHotQueue:
    """`expected_epoch` gives the epoch that the marker must have; without it, or when it gives None, any marker
    will do (a process that only gives hints and reads). With `announce=False`, `add` wakes nobody: for a process
    that publishes through a notifier, which is cheaper under load."""

    def __init__(self, link: RedisLink, *, expected_epoch: ExpectedEpoch | None = None, announce: bool = True) -> None:
        self._link = link
        self._keys = link.keys
        self._expected_epoch = expected_epoch
        self._announce = announce
        self._rebuilding: str | None = None
        self._seen: dict[str, _Heads] = {}

    @property
    def link(self) -> RedisLink:
        return self._link

    def add(self, entries: Sequence[QueueEntry]) -> None:
        channel = self._keys.wake if self._announce else ""
        for start in range(0, len(entries), BATCH):
            keys, texts = self._by_size(entries[start : start + BATCH])
            args = [self._expected(), channel, *texts]
            self._link.run_warm("add", [self._keys.epoch, self._keys.queues, *keys], args)

    def remove(self, entries: Iterable[tuple[int, int]]) -> None:
        pending = iter(entries)
        while batch := list(islice(pending, BATCH)):
            sizes: dict[int, list[str]] = defaultdict(list)
            for job_id, gpus in batch:
                sizes[gpus].append(padded(job_id))
            keys = [self._keys.queue(gpus) for gpus in sizes]
            texts = [" ".join(group) for group in sizes.values()]
            self._link.run_warm("remove", [self._keys.epoch, self._keys.queues, *keys], [self._expected(), *texts])

    def heads(self, per_size: int) -> list[QueueEntry]:
        if per_size < 1:
            return []
        keys = [self._keys.epoch, self._keys.queues]
        answer = self._link.run_warm("heads", keys, [self._expected(), per_size, self._keys.queue_prefix])
        line: list[tuple[float, int, QueueEntry]] = []
        seen: dict[str, _Heads] = {}
        for gpus, text in zip(answer[::2], answer[1::2], strict=True):
            # Most sizes have not changed since the last look, and parsing costs more than asking.
            known = self._seen.get(gpus)
            seen[gpus] = known if known is not None and known.text == text else _parse(int(gpus), text)
            line += seen[gpus].line
        self._seen = seen
        line.sort()
        return [entry for _, _, entry in line]

    def sizes(self) -> dict[int, int]:
        keys = [self._keys.epoch, self._keys.queues]
        answer = self._link.run_warm("sizes", keys, [self._expected(), self._keys.queue_prefix])
        pairs = zip(answer[::2], answer[1::2], strict=True)
        return dict(sorted((int(gpus), int(count)) for gpus, count in pairs))

    def rebuild(self, entries: Iterable[QueueEntry], *, epoch: str, owner: Owner | None = None) -> int:
        """Raises HotStoreCold when Redis was flushed, or another rebuild began, before the last batch; and
        NamespaceTaken."""
        self._rebuilding = epoch
        keys = [self._keys.epoch, self._keys.rebuild, self._keys.queues, self._keys.owner]
        claim = ["", "", ""] if owner is None else [owner.id, owner.told, "1" if owner.by_right else "0"]
        answer = str(self._link.run("rebuild_begin", keys, [epoch, self._keys.queue_prefix, *claim]))
        if answer != "OK":
            raise self._namespace_taken(_owner(answer))
        pending, count = iter(entries), 0
        while batch := list(islice(pending, BATCH)):
            queues, texts = self._by_size(batch)
            answer = self._link.run("add", [self._keys.rebuild, self._keys.queues, *queues], [epoch, "", *texts])
            if answer == COLD:
                raise self._rebuild_lost()
            count += len(batch)
        return count

    def open(self, epoch: str) -> None:
        """Raises HotStoreCold when what `rebuild` wrote is not there any more: rebuild again."""
        rebuilt = "1" if self._rebuilding == epoch else "0"
        answer = self._link.run("open", [self._keys.epoch, self._keys.rebuild], [epoch, rebuilt, self._keys.wake])
        if answer == COLD:
            raise self._rebuild_lost()
        self._link.opened()

    def owner(self) -> Owner | None:
        found = self._link.call(lambda client: client.get(self._keys.owner))
        return None if found is None else _owner(str(found))

    def epoch(self) -> str | None:
        """None also when the marker is there but came back with an old snapshot of a server that restarted."""
        marker = self._link.call(lambda client: client.get(self._keys.epoch))
        return None if marker is None or self._link.restarted() else str(marker)

    def _expected(self) -> str:
        return (self._expected_epoch() if self._expected_epoch else None) or ""

    def _by_size(self, entries: Sequence[QueueEntry]) -> tuple[list[str], list[str]]:
        """Queue keys, and for each `score member score member ...`. `repr` of a float is exact."""
        sizes: dict[int, list[str]] = defaultdict(list)
        for item in entries:
            sizes[item.gpus].append(f"{float(item.score)!r} {padded(item.job_id)}")
        return [self._keys.queue(gpus) for gpus in sizes], [" ".join(group) for group in sizes.values()]

    def _namespace_taken(self, other: Owner) -> NamespaceTaken:
        namespace = self._keys.namespace
        return NamespaceTaken(
            f"the namespace {namespace} of Redis at {self._link.where} belongs to another installation: {other.told}",
            hint="give each installation a GPUQ_NAMESPACE of its own; if that one is gone for good, delete the key "
            f"{self._keys.owner} there (redis-cli DEL {self._keys.owner})",
        )

    def _rebuild_lost(self) -> HotStoreCold:
        return cold(self._link.where, "was flushed, or rebuilt by another process, in the middle of a rebuild")

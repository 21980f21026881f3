"""huey: one consumer with two threads. Imported by that consumer too, which reads the same environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import peer_measure
import peer_tasks
from huey import RedisHuey, SqliteHuey

REDIS = os.environ.get("PEER_REDIS")
queue = RedisHuey(url=REDIS) if REDIS else SqliteHuey(filename=peer_measure.folder() / "huey.db", fsync=True)
stamp = queue.task()(peer_tasks.stamp)
nothing = queue.task()(peer_tasks.nothing)


class Huey(peer_measure.Peer):
    title = "huey on Redis" if REDIS else "huey on SQLite"
    package = "huey"
    kind = "a function in a thread of its worker, not a process"
    kept = "Redis syncs its file every second" if REDIS else "fsync on"
    slots = "two threads"
    batches = False

    def stamp(self, pipe: Path) -> None:
        stamp(str(pipe))

    def submit(self) -> None:
        nothing()

    def finished(self) -> int:
        return int(queue.result_count())

    def workers(self) -> AbstractContextManager[None]:
        # By its name as a module, so that both sides know the tasks by the same one.
        return peer_measure.running(["huey_consumer", "peer_huey.queue", "-w", "2", "-q"])

    @contextmanager
    def unattended(self) -> Iterator[None]:
        yield
        queue.flush()


if __name__ == "__main__":
    # Tasks carry the name of the module that made them, and this one is `__main__` here.
    sys.modules.pop("peer_huey", None)
    import peer_huey

    peer_measure.run(peer_huey.Huey())

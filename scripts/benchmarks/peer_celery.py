"""celery: two worker processes of one pool, with Redis for messages and for results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import peer_measure
import peer_tasks
from celery import Celery
from redis import Redis

SOCKET = os.environ["PEER_REDIS"].removeprefix("unix://")

app = Celery(
    "peers",
    broker=f"redis+socket://{SOCKET}?virtual_host=0",
    backend=f"redis+socket://{SOCKET}?virtual_host=1",
    # As for any queue whose jobs must survive a worker that dies: a job is taken off only when it has ended.
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)
stamp = app.task(name="stamp")(peer_tasks.stamp)
nothing = app.task(name="nothing")(peer_tasks.nothing)


class CeleryPeer(peer_measure.Peer):
    title = "celery"
    package = "celery"
    kept = "Redis syncs its file every second; late acknowledgement, results kept"
    batches = False

    def __init__(self) -> None:
        self._messages = Redis(unix_socket_path=SOCKET, db=0)
        self._results = Redis(unix_socket_path=SOCKET, db=1)

    def stamp(self, pipe: Path) -> None:
        stamp.delay(str(pipe))

    def submit(self) -> None:
        nothing.delay()

    def finished(self) -> int:
        return int(self._results.dbsize())

    def workers(self) -> AbstractContextManager[None]:
        return peer_measure.running(["celery", "-A", "peer_celery", "worker", "-c", "2", "-l", "ERROR"])

    @contextmanager
    def unattended(self) -> Iterator[None]:
        yield
        self._messages.flushall()


if __name__ == "__main__":
    peer_measure.run(CeleryPeer())

"""rq: two worker processes, each of which forks for every job."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peer_measure
from redis import Redis
from rq import Queue, Worker
from rq.registry import FinishedJobRegistry

URL = os.environ["PEER_REDIS"]


class Rq(peer_measure.Peer):
    title = "rq"
    package = "rq"
    kind = "a function in a fork of its worker, not a program"
    kept = "Redis syncs its file every second"

    def __init__(self) -> None:
        self._redis = Redis.from_url(URL)
        self._queue = Queue(connection=self._redis)
        self._ended = FinishedJobRegistry(queue=self._queue)

    def stamp(self, pipe: Path) -> None:
        self._queue.enqueue("peer_tasks.stamp", str(pipe))

    def submit(self) -> None:
        self._queue.enqueue("peer_tasks.nothing")

    def submit_many(self, jobs: int) -> None:
        self._queue.enqueue_many([Queue.prepare_data("peer_tasks.nothing") for _ in range(jobs)])

    def finished(self) -> int:
        return int(self._ended.get_job_count(cleanup=False))

    @contextmanager
    def workers(self) -> Iterator[None]:
        with peer_measure.running(*[["rq", "worker", "--quiet", "--url", URL]] * 2):
            while Worker.count(connection=self._redis) < 2:
                time.sleep(0.05)
            yield

    @contextmanager
    def unattended(self) -> Iterator[None]:
        yield
        self._redis.flushall()


if __name__ == "__main__":
    peer_measure.run(Rq())

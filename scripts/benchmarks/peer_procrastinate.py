"""procrastinate: one worker that runs two jobs at a time, on PostgreSQL."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

import peer_measure
import peer_tasks
import procrastinate
import psycopg

DATABASE = os.environ["PEER_POSTGRES"]
# Both queues are the same to it; only the second has a worker.
NOBODY, SERVED = "nobody", "served"

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE))
stamp = app.task(name="stamp")(peer_tasks.stamp)
nothing = app.task(name="nothing")(peer_tasks.nothing)


class Procrastinate(peer_measure.Peer):
    title = "procrastinate"
    package = "procrastinate"
    kind = "a function in a thread of its worker, not a process"
    kept = "each commit is synced"
    slots = "one worker, two at a time"

    def __init__(self) -> None:
        self._base = psycopg.connect(DATABASE, autocommit=True)
        self._queue = NOBODY

    def stamp(self, pipe: Path) -> None:
        stamp.configure(queue=SERVED).defer(pipe=str(pipe))

    def submit(self) -> None:
        nothing.configure(queue=self._queue).defer()

    def submit_many(self, jobs: int) -> None:
        nothing.configure(queue=self._queue).batch_defer(*[{}] * jobs)

    def finished(self) -> int:
        row = self._base.execute("select count(*) from procrastinate_jobs where status = 'succeeded'").fetchone()
        return int(row[0]) if row else 0

    def workers(self) -> AbstractContextManager[None]:
        self._queue = SERVED
        self._base.execute("truncate procrastinate_jobs cascade")
        words = ["procrastinate", "--app", "peer_procrastinate.app", "worker", "-q", SERVED, "--concurrency", "2"]
        return peer_measure.running(words)


if __name__ == "__main__":
    with app.open():
        app.schema_manager.apply_schema()
        peer_measure.run(Procrastinate())

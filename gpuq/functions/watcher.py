"""One thread that waits for the jobs of many futures, by the daemon's stream of events: nobody asks for each."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from gpuq.errors import DaemonUnreachable, GpuqError, Unavailable
from gpuq.functions.future import JobFuture, gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuq.client.client import Client

# Seconds: how long a silent stream is believed before everything is looked at again; and between two tries where there
# is no stream.
LOOK_S = 300.0
AGAIN_S = 1.0
# In one question.
_MANY = 500
_MOVES = frozenset({"starting", "running", "completed", "failed", "cancelled"})
_REMEMBERED = 10_000


class Watcher:
    """`settled` is called, on the thread, with each future that is. The thread lives while there is something to wait
    for, and ends with the program."""

    def __init__(self, client: Client, settled: Callable[[JobFuture[Any]], None] | None = None) -> None:
        self._client = client
        self._settled = settled
        self._lock = threading.Lock()
        self._pending: dict[int, list[JobFuture[Any]]] = {}
        # What the stream told of jobs that nobody had asked for yet: their submission was being answered.
        self._moved: collections.OrderedDict[int, None] = collections.OrderedDict()
        self._thread: threading.Thread | None = None

    def watch(self, future: JobFuture[Any]) -> None:
        """Settles it when its job has ended."""
        assert future.job is not None
        job_id = future.job.id
        with self._lock:
            self._pending.setdefault(job_id, []).append(future)
            missed = job_id in self._moved
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gpuq-futures", daemon=True)
                self._thread.start()
        if missed:
            # Too early for the thread, which may hear no more of it.
            with contextlib.suppress(GpuqError):
                self._look([job_id])

    def _run(self) -> None:
        try:
            self._until_settled()
        finally:
            # Of this thread; the child process that stands in for a daemon is everybody's.
            if not self._client.is_direct:
                self._client.close()

    def _until_settled(self) -> None:
        while True:
            try:
                self._listen()
            except Unavailable:
                # The jobs go on without a daemon, and so do their futures when it is back.
                time.sleep(AGAIN_S)
            except GpuqError as error:
                self._give_up(error)
            with self._lock:
                if not self._pending:
                    self._moved.clear()
                    self._thread = None
                    return

    def _listen(self) -> None:
        """From one stream, until it ends or nothing is left to wait for."""
        stream = self._client.session.listen("/events")
        if stream is None:
            self._look(self._waited_for())
            if self._client.is_direct:
                raise DaemonUnreachable("no daemon is running", hint="start one with `gpuq up -d`")
            time.sleep(AGAIN_S)
            return
        with contextlib.closing(stream):
            # After it was opened: nothing is missed between the two.
            self._look(self._waited_for())
            while self._waited_for():
                try:
                    told = stream.frames(LOOK_S)
                except EOFError:
                    return
                moved = {data["job_id"] for event, data in told if event == "job" and data["to_state"] in _MOVES}
                self._look(self._ours(moved) if told else self._waited_for())

    def _ours(self, moved: set[int]) -> list[int]:
        with self._lock:
            for job_id in moved - self._pending.keys():
                self._moved[job_id] = None
                if len(self._moved) > _REMEMBERED:
                    self._moved.popitem(last=False)
            return [job_id for job_id in moved if job_id in self._pending]

    def _waited_for(self) -> list[int]:
        with self._lock:
            return list(self._pending)

    def _look(self, job_ids: list[int]) -> None:
        for start in range(0, len(job_ids), _MANY):
            some = job_ids[start : start + _MANY]
            found = {job.id: job for job in self._client.jobs(ids=some, limit=len(some))}
            for job_id in some:
                self._see(job_id, found.get(job_id))

    def _see(self, job_id: int, job: Any) -> None:
        with self._lock:
            futures = list(self._pending.get(job_id, ()))
        over = []
        for future in futures:
            if job is None:
                future.give_up(gone(job_id))
            if job is None or future.see(job):
                over.append(future)
        with self._lock:
            left = [future for future in self._pending.get(job_id, ()) if future not in over]
            if left:
                self._pending[job_id] = left
            else:
                self._pending.pop(job_id, None)
        for future in over:
            if self._settled is not None:
                self._settled(future)

    def _give_up(self, error: GpuqError) -> None:
        """The daemon refuses to tell: nobody is to wait for ever."""
        with self._lock:
            pending, self._pending = self._pending, {}
        for future in (each for futures in pending.values() for each in futures):
            future.give_up(error)
            if self._settled is not None:
                self._settled(future)

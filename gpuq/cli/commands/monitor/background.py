"""Requests away from the thread that draws: they wait for the daemon, and the keys must not.

The threads end with the process, whatever they wait for, so that `q` is never kept waiting by a daemon that hangs.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from gpuq.client.stream import EventStream

# Seconds: between two times that a change is told, between two looks whether to end, and before a new stream is tried.
TOLD_S = 1.0
LOOK_S = 1.0
AGAIN_S = 5.0

Work = Callable[[], Any]
Then = Callable[[Any], None]


class Lanes:
    """Requests of one lane are made one after the other, those of different lanes at once. `deliver` is given what is
    to be done with an answer, and the answer or the exception, in the lane's thread."""

    def __init__(self, deliver: Callable[[Then, Any], None]) -> None:
        self._deliver = deliver
        self._queues: dict[str, SimpleQueue[tuple[Work, Then]]] = {}

    def ask(self, lane: str, work: Work, then: Then) -> None:
        """Does `work` in the thread of `lane`, then has its answer delivered to `then`."""
        queue = self._queues.get(lane)
        if queue is None:
            queue = self._queues[lane] = SimpleQueue()
            Thread(target=self._run, args=(queue,), name=f"gpuq-{lane}", daemon=True).start()
        queue.put((work, then))

    def _run(self, queue: SimpleQueue[tuple[Work, Then]]) -> None:
        while True:
            work, then = queue.get()
            answer: Any
            try:
                answer = work()
            except Exception as error:  # noqa: BLE001 - it is told on the screen, and the lane goes on
                answer = error
            self._deliver(then, answer)


class Listener:
    """Calls `tell` when something in the queue may have changed, at most once in `TOLD_S` seconds: the daemon's events
    are only heard, never read. While there is no stream, it is called every `AGAIN_S` seconds, and one is tried for."""

    def __init__(self, listen: Callable[[], EventStream | None], tell: Callable[[], None]) -> None:
        self._listen = listen
        self._tell = tell
        self._closing = Event()

    def start(self) -> None:
        """Begins to listen, in a thread of its own."""
        Thread(target=self._run, name="gpuq-events", daemon=True).start()

    def close(self) -> None:
        """Ends the stream, within a second."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            stream = self._listen()
            if stream is None:
                self._closing.wait(AGAIN_S)
                self._tell()
                continue
            try:
                self._hear(stream)
            finally:
                stream.close()

    def _hear(self, stream: EventStream) -> None:
        """Until the stream ends. What happened before it began, and that it ended, has to be looked for as well."""
        heard: object = True
        while not self._closing.is_set():
            if heard:
                self._tell()
                self._closing.wait(TOLD_S)
            try:
                heard = stream.frames(LOOK_S)
            except EOFError:
                self._tell()
                self._closing.wait(TOLD_S)
                return

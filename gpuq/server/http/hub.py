"""One reader of the event rows for all who listen in this process.

Whoever writes calls the notifier behind the commit, in this process at once and from another one through Redis. The hub
then reads what is new, makes each frame once, and hands it to every listener whom it is for. While somebody listens it
looks by itself as well, once a second: that is the truth, the calls are only for speed. Listeners read no rows but
those from before they came.

What a listener has not taken yet is bounded. One that falls behind further is let go; it comes back with the id of the
last event that it has seen (`Last-Event-ID`) and is told the rest from the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from gpuq.domain.events import Event
from gpuq.engine.context import Context
from gpuq.errors import GpuqError
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)

# Seconds: between two looks that nobody asked for, and at least between any two.
LOOK_S = 1.0
BURST_S = 0.01
AT_ONCE = 1000
# Frames and bytes that a listener may leave lying.
MOST_FRAMES = 20_000
MOST_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it is sent."""

    id: int
    job_id: int
    frame: bytes


class Listener:
    """One stream's place at the hub; used on the event loop alone. `since`: the events after this id are handed over,
    earlier ones are in the record. `only`: of these jobs; None is all. `drop` ends a connection that is not read."""

    def __init__(self, only: frozenset[int] | None, drop: Callable[[], None]) -> None:
        self.only = only
        self.since = 0
        self.closing = False
        self._drop = drop
        self._told: deque[Told] = deque()
        self._bytes = 0
        self._woken = asyncio.Event()

    def push(self, told: Sequence[Told]) -> None:
        """Those of these events that it wants, for its next `take`."""
        wanted = told if self.only is None else [one for one in told if one.job_id in self.only]
        if not wanted or self.closing:
            return
        self._told.extend(wanted)
        self._bytes += sum(len(one.frame) for one in wanted)
        if len(self._told) > MOST_FRAMES or self._bytes > MOST_BYTES:
            log.debug("a listener that does not read is let go")
            self._told.clear()
            self.close()
            self._drop()
        self._woken.set()

    def wake(self) -> None:
        """Something else than an event is to be looked at."""
        self._woken.set()

    def close(self) -> None:
        """Ends the stream, now or at its next step."""
        self.closing = True
        self._woken.set()

    async def rest(self, seconds: float) -> bool:
        """Until there is something to take or to look at, at most that long; whether there was."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        if not self.closing:
            self._woken.clear()
        return True

    def take(self) -> list[Told]:
        """What has come since the last time."""
        told = list(self._told)
        self._told.clear()
        self._bytes = 0
        return told


class EventHub:
    """See the top of the module. `frame` makes the bytes of an event."""

    def __init__(self, ctx: Context, frame: Callable[[Event], bytes]) -> None:
        self._ctx = ctx
        self._frame = frame
        self._listeners: set[Listener] = set()
        # Those who listen and those who are about to.
        self._present = 0
        self._position: int | None = None
        self._called = False
        self._woken: asyncio.Event | None = None
        self._reading: asyncio.Lock | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @contextlib.asynccontextmanager
    async def listening(self, listener: Listener) -> AsyncIterator[Listener]:
        """From now on the listener is told; its `since` says from where. Raises DatabaseUnavailable."""
        self._start()
        try:
            # What others have written up to now is past for it, and is not to be told as new.
            await self._look()
            listener.since = self._position or 0
            self._listeners.add(listener)
            yield listener
        finally:
            self._listeners.discard(listener)
            self._present -= 1
            if not self._present:
                self._stop()

    def _start(self) -> None:
        self._present += 1
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._woken = woken = asyncio.Event()
            self._reading = asyncio.Lock()
            self._called = False
            self._unsubscribe()
            self._unsubscribe = self._ctx.notifier.subscribe(lambda topic: self._hear(topic, loop, woken))
            self._task = loop.create_task(self._run(woken))

    def _stop(self) -> None:
        self._unsubscribe()
        self._unsubscribe = lambda: None
        if self._task is not None:
            self._task.cancel()
            self._ending = self._task
        self._task = self._position = None

    async def settled(self) -> None:
        """When the reader of listeners that are all gone has ended."""
        if self._ending is not None:
            await asyncio.wait([self._ending])

    def _hear(self, topic: Topic, loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
        """On any thread. One call into the loop is enough for any number of topics."""
        if topic is Topic.EVENTS and not self._called:
            self._called = True
            # The loop may have ended since; whoever publishes has no part in that.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(woken.set)

    async def _run(self, woken: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await woken.wait()
            woken.clear()
            # Before the look: what is written from here on calls again.
            self._called = False
            try:
                await self._look()
            except GpuqError as error:
                log.debug("listeners are not told for now: %s", error.message)
            except Exception:
                # The place in the record is kept, so the next look tells what this one did not.
                log.exception("the events could not be read")
            await asyncio.sleep(BURST_S)

    async def _look(self) -> None:
        """Tells the listeners what is new. One at a time, so that nothing is told twice or out of order."""
        assert self._reading is not None
        async with self._reading:
            if self._position is None:
                self._position = await run_in_threadpool(self._newest)
                return
            while True:
                found = await run_in_threadpool(self._read, self._position)
                if found:
                    self._position = found[-1].id
                    for listener in tuple(self._listeners):
                        listener.push(found)
                if len(found) < AT_ONCE:
                    return

    def _newest(self) -> int:
        with self._ctx.records.read() as reader:
            return reader.last_event_id()

    def _read(self, after_id: int) -> list[Told]:
        with self._ctx.records.read() as reader:
            events = reader.events(after_id=after_id, limit=AT_ONCE)
        return list(self.told(events))

    def told(self, events: Iterable[Event]) -> Iterable[Told]:
        """As they are sent."""
        return (Told(event.id, event.job_id, self._frame(event)) for event in events)

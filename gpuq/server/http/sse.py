"""Server-sent events: the format, and how a listener is woken and let go.

Woken by the notifier where there is one to hear; what another process wrote (a supervisor's log, a command that
works straight on the database) is looked for at a slow pace while somebody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gpuq.errors import GpuqError, Refused
from gpuq.ports.notify import Notifier, Topic

log = logging.getLogger(__name__)

# Seconds: how long a listener goes without a sign of life, and how long topics that come in a burst are gathered.
HEARTBEAT_S = 15.0
BURST_S = 0.01

SSE: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
}


def frame(event: str, data: object, event_id: str | None = None) -> bytes:
    """One event; JSON in ASCII, so that no line break or odd byte of the data is one of the format."""
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n".encode("ascii")


class Wakener:
    """One listener's sleep: until the notifier calls, the daemon goes down, or the clock says so."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heard = False
        self._said_at = self._loop.time()
        self.closing = False

    def hear(self, topic: Topic) -> None:
        """On any thread. One call into the loop is enough for any number of topics."""
        if not self._heard:
            self._heard = True
            # The loop may have ended since; whoever publishes has no part in that.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._woken.set)

    def close(self) -> None:
        """Ends the stream that rests here, now or at its next rest."""
        self.closing = True
        self._woken.set()

    async def rest(self, seconds: float) -> None:
        """Returns after a notification, or after `seconds`. Notifications of one burst wake it once."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        # What comes in a burst is looked at once.
        await asyncio.sleep(BURST_S)
        self._heard = False
        if not self.closing:
            self._woken.clear()

    def said(self) -> None:
        self._said_at = self._loop.time()

    def must_speak(self) -> bool:
        """Whether the listener has been left in silence for too long."""
        if self._loop.time() - self._said_at < HEARTBEAT_S:
            return False
        self.said()
        return True


class Streams:
    """The open streams of one daemon, which would otherwise keep it from going down."""

    def __init__(self) -> None:
        self._open: set[Wakener] = set()
        self._closing = False

    def close(self) -> None:
        """On the event loop: every stream ends at its next step."""
        self._closing = True
        for wakener in self._open:
            wakener.close()

    @contextlib.asynccontextmanager
    async def listening(self, notifier: Notifier) -> AsyncIterator[Wakener]:
        """A wakener that is woken by notifications, and by the daemon's end, until the block is left."""
        wakener = Wakener()
        if self._closing:
            wakener.close()
        self._open.add(wakener)
        unsubscribe = notifier.subscribe(wakener.hear)
        try:
            yield wakener
        finally:
            self._open.discard(wakener)
            unsubscribe()


async def _streams(request: Request) -> Streams:
    streams: Streams | None = request.app.state.streams
    if streams is None:
        raise Refused("streams need a running daemon", hint="start it with `gpuq up -d`, or poll /jobs/{id}/log")
    return streams


Open = Annotated[Streams, Depends(_streams)]


class EventStream(StreamingResponse):
    """Ends its generator when the listener is gone, not when the garbage collector comes by: the generator holds a
    subscription."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        super().__init__(frames, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._frames.aclose()


def respond(frames: AsyncGenerator[bytes, None]) -> EventStream:
    return EventStream(_told(frames))


async def _told(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The answer has begun, so a failure can only be said in the stream itself."""
    async with contextlib.aclosing(frames):
        try:
            async for piece in frames:
                yield piece
        except GpuqError as error:
            yield frame("error", {"code": error.code, "message": error.message, "hint": error.hint})
        except Exception:
            log.exception("a stream failed")
            yield frame("error", {"code": "internal", "message": "gpuq failed; this is a bug", "hint": None})

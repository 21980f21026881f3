"""Server-sent events: the format, and what all streams of a daemon share."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gpuq.domain.events import Event
from gpuq.engine.context import Context
from gpuq.errors import GpuqError, Refused
from gpuq.server.http.hub import EventHub, Listener
from gpuq.server.http.log_watch import LogWatch
from gpuq.server.http.peer import ABORT

log = logging.getLogger(__name__)

# Seconds that a listener goes without a sign of life.
HEARTBEAT_S = 15.0

SSE: dict[str, Any] = {
    "response_class": StreamingResponse,
    "responses": {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
}


def frame(event: str, data: object, event_id: str | None = None) -> bytes:
    """One event; JSON in ASCII, so that no line break or odd byte of the data is one of the format."""
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n".encode("ascii")


def event_frame(event: Event) -> bytes:
    return frame("job", event.to_json(), str(event.id))


class Streams:
    """The open streams of one daemon, which would otherwise keep it from going down, and what they share: one reader of
    events, one eye on the logs that grow."""

    def __init__(self, ctx: Context) -> None:
        self.hub = EventHub(ctx, event_frame)
        self.logs = LogWatch()
        self._open: set[Listener] = set()
        self._closing = False

    def close(self) -> None:
        """On the event loop: every stream ends at its next step."""
        self._closing = True
        for listener in self._open:
            listener.close()

    async def settled(self) -> None:
        """After `close`, when the streams have ended: what they shared has, too."""
        await self.logs.close()
        await self.hub.settled()

    @contextlib.asynccontextmanager
    async def listening(
        self, only: frozenset[int] | None = None, drop: Callable[[], None] = lambda: None
    ) -> AsyncIterator[Listener]:
        """A listener that is told of events, and of the daemon's end, until the block is left."""
        listener = Listener(only, drop)
        if self._closing:
            listener.close()
        self._open.add(listener)
        try:
            async with self.hub.listening(listener):
                yield listener
        finally:
            self._open.discard(listener)


async def _streams(request: Request) -> Streams:
    streams: Streams | None = request.app.state.streams
    if streams is None:
        raise Refused("streams need a running daemon", hint="start it with `gpuq up -d`, or poll /jobs/{id}/log")
    return streams


Open = Annotated[Streams, Depends(_streams)]


class EventStream(StreamingResponse):
    """Ends its generator when the listener is gone, not when the garbage collector comes by: the generator holds a
    place at the hub."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        super().__init__(frames, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._frames.aclose()


def dropping(request: Request) -> Callable[[], None]:
    """Ends the connection of a request whose answer is not read."""
    drop: Callable[[], None] = request.scope.get("extensions", {}).get(ABORT, lambda: None)
    return drop


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

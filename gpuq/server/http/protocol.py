"""uvicorn's protocol with bounds: what a connection may send before anybody knows who it is, and how long it may take.

A header has at most 64 KiB and is complete within 10 s, counted from the connection or from its first byte; an idle
connection is closed after 75 s; a body may take 75 s, and a second more for each 64 KiB that came. Beyond that the
answer is 431 or 408, and the connection ends. A client that does not read what it asked for is cut off. What is within
bounds pays one addition for each piece of data; clocks run only where a request, or its answer, does not pass in one
piece.
"""

from __future__ import annotations

import json
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections import deque
from http import HTTPStatus
from typing import Any

from httptools import parse_url
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gpuq.server.http.connections import Connections, Source, source_of
from gpuq.server.http.peer import ABORT, EXTENSION, GONE, PeerProtocol

MAX_HEADER = 64 * 1024
HEADER_S = 10.0
KEEP_ALIVE_S = 75
BODY_S = 75.0
# Bytes a second of a body, beyond the first 75 s.
BODY_RATE = 64 * 1024
# Bytes of a body that are thrown away after the answer, so that the client comes to read it.
MAX_IGNORED = 128 * 1024 * 1024
# Seconds in which what a refused client still sends is thrown away: a connection that is closed with unread data is
# reset, and the answer is lost.
LINGER_S = 1.0
# An answer that is not read takes memory here: each of so many seconds at least a mebibyte is to be taken of it, while
# more than four of them wait.
READ_S = 30.0
READ_BYTES = 1024 * 1024
SMALL_ANSWER = 4 * 1024 * 1024

_MALFORMED = "what came is not HTTP/1.1"


class _TooLarge(Exception):
    pass


class BoundedProtocol(PeerProtocol):
    """One connection. `connections` counts those of all."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self._source: Source | None = None
        self._refused = self._gone = False
        # Bytes: of this request's header, of its body, and those that came since the parser made something of any.
        self._header_size = self._body_size = self._unparsed = 0
        self._in_header = self._in_body = False
        self._clock: TimerHandle | None = None
        self._body_began = 0.0
        # Bytes of answers that the transport holds for the client, as they were counted last.
        self._unread = 0
        self._reading: TimerHandle | None = None
        # Requests whose answers are not complete, in their order: more than one only for a client that pipelines.
        self._open: deque[RequestResponseCycle] = deque()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Counts it, or turns it away."""
        super().connection_made(transport)
        self.extensions[GONE] = self._is_gone
        self.extensions[ABORT] = transport.abort
        source = source_of(self.extensions.get(EXTENSION), self.client)
        if self._all.admit(source):
            self._source = source
            self._clock = self.loop.call_later(HEADER_S, self._header_is_late)
        else:
            hint = "close some, or wait until others end"
            self._refuse(503, "unavailable", "too many connections are open", hint, linger_s=0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells every request that is being answered."""
        self._gone = True
        self._stop_clock()
        self._count_unread(0)
        if self._source is not None:
            self._all.leave(self._source)
            self._source = None
        # uvicorn tells the last request of a pipeline only; the one that is being answered would read on.
        for cycle in self._open:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._open.clear()
        self.pipeline.clear()
        super().connection_lost(exc)

    def _is_gone(self) -> bool:
        """Any thread: whether nobody waits for an answer any more."""
        return self._gone

    # -- what comes in --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hands it to the parser, and looks at the bounds behind."""
        if self._refused:
            return
        self._unparsed += len(data)
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._unparsed > MAX_HEADER:
            self._header_is_large()
        elif self._clock is None and (self._in_header or self._in_body):
            self._start_clock()
        elif self._in_body and self._body_size > MAX_IGNORED and self.cycle.response_complete:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        self._header_size = self._unparsed = 0
        self._in_header = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field, whole."""
        # After a body in chunks fields may follow, which are none of the request's header any more.
        if self._in_header:
            super().on_header(name, value)
        # As they were sent: with a colon and a line's end.
        self._count(len(name) + len(value) + 4)

    def _count(self, size: int) -> None:
        self._header_size += size
        self._unparsed = 0
        if self._header_size > MAX_HEADER:
            raise _TooLarge

    def on_headers_complete(self) -> None:
        """The request goes on its way; its body may come later."""
        self._stop_clock()
        self._in_header = False
        self._in_body = True
        self._body_size = self._unparsed = 0
        if not self.url.startswith(b"/"):
            self._name_host_of_url()
        super().on_headers_complete()
        while self._open and self._open[0].response_complete:
            self._open.popleft()
        self._open.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_size += len(body)
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request's last byte."""
        self._stop_clock()
        self._in_body = False
        self._unparsed = 0
        super().on_message_complete()

    def _name_host_of_url(self) -> None:
        """`GET http://other/ HTTP/1.1` is meant for that host, whatever the header says: it counts as a second one."""
        url = parse_url(self.url)
        host = url.host or b""
        if b":" in host:
            host = b"[" + host + b"]"
        if url.port:
            host += b":%d" % url.port
        if [value for name, value in self.headers if name == b"host"] != [host]:
            self.headers.append((b"host", host))

    # -- clocks ---------------------------------------------------------------------------------------------------

    def _start_clock(self) -> None:
        if self._in_header:
            self._clock = self.loop.call_later(HEADER_S, self._header_is_late)
        else:
            self._body_began = self.loop.time()
            self._clock = self.loop.call_later(BODY_S, self._look_at_body)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _header_is_late(self) -> None:
        self._clock = None
        if not self._in_header:
            # Not a byte came, or the next request has not begun: nothing that could be answered.
            self.transport.close()
            return
        if self.flow.read_paused:
            # We do not read on before an earlier request of this connection is answered.
            self._start_clock()
            return
        message = f"the request's header was not complete within {HEADER_S:g} s"
        self._refuse(408, "timeout", message, "send it again, in one piece")

    def _look_at_body(self) -> None:
        left = self._body_began + BODY_S + self._body_size / BODY_RATE - self.loop.time()
        if self.flow.read_paused:
            left = max(left, BODY_S)
        if left > 0:
            self._clock = self.loop.call_later(left, self._look_at_body)
            return
        self._clock = None
        message = f"the request's body comes too slowly: {BODY_S:g} s, and a second more for each 64 KiB"
        self._refuse(408, "timeout", message, "send less at once")

    # -- what goes out --------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The transport holds more than the client has taken at once. Without the room for that the connection ends."""
        super().pause_writing()
        if self._source is not None and not self._gone:
            self._count_unread(self.transport.get_write_buffer_size())
            if self._all.reads_too_little(self._source, self._unread):
                self.transport.abort()
            else:
                self._reading = self.loop.call_later(READ_S, self._look_at_reading)

    def resume_writing(self) -> None:
        """The client has taken nearly all."""
        super().resume_writing()
        self._count_unread(0)

    def _look_at_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left > max(SMALL_ANSWER, self._unread - READ_BYTES):
            self.transport.abort()
            return
        self._count_unread(left)
        self._reading = self.loop.call_later(READ_S, self._look_at_reading)

    def _count_unread(self, size: int) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        if self._source is not None and size != self._unread:
            self._all.hold(self._source, size - self._unread)
            self._unread = size

    # -- refusals -------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this for whatever the parser does not take."""
        if self._header_size > MAX_HEADER:
            self._header_is_large()
        else:
            self._refuse(400, "malformed", _MALFORMED, "send an HTTP/1.1 request")

    def _header_is_large(self) -> None:
        message = f"the request's header is larger than {MAX_HEADER // 1024} KiB"
        self._refuse(431, "header_too_large", message, "send what is long in the body")

    def _refuse(self, status: int, code: str, message: str, hint: str, linger_s: float = LINGER_S) -> None:
        """An answer without a request that could be handed on, and the end of the connection."""
        self._refused = True
        self._stop_clock()
        begun = [cycle for cycle in self._open if not cycle.response_complete]
        own = self.cycle if self._in_body else None
        answered = own is not None and own.response_complete
        if answered or any(cycle is not own or cycle.response_started for cycle in begun):
            # It would be taken for the answer to another request.
            self.transport.close()
            return
        for cycle in begun:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(_answer(status, code, message, hint))
        if linger_s and self.transport.can_write_eof():
            self.transport.write_eof()
            self._clock = self.loop.call_later(linger_s, self.transport.close)
        else:
            self.transport.close()


def _answer(status: int, code: str, message: str, hint: str) -> bytes:
    body = json.dumps({"error": {"code": code, "message": message, "hint": hint}}).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
    head += "retry-after: 1\r\n" if status == 503 else ""
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body

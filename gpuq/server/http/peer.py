"""Who is at the other end of a Unix socket: the kernel's word, read once per connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gpuq.server.http.joined_writes import JoinedWrites

# Key of `scope["extensions"]`; absent for a connection that came over TCP.
EXTENSION = "gpuq.peer"
# Likewise: a function for any thread that says whether the client has gone. Absent where there is no connection.
GONE = "gpuq.gone"

# And one, for the event loop, that ends the connection at once, whatever has not been read.
ABORT = "gpuq.abort"

_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as it was at that moment."""

    pid: int
    uid: int
    gid: int


def peer_of(transport: asyncio.BaseTransport) -> Peer | None:
    """None for anything but a Unix socket."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(raw))


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which puts the peer into the scope of every request of the connection."""

    extensions: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = peer_of(transport)
        self.extensions = {} if peer is None else {EXTENSION: peer}
        super().connection_made(transport)
        self._answers = JoinedWrites(transport, self.loop)

    def on_headers_complete(self) -> None:
        """The request goes on its way, and its answer is written in one piece."""
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._answers  # type: ignore[assignment]

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self.extensions

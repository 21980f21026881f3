"""Listening to the daemon's server-sent events on a connection of their own, so that nobody has to ask again and again
whether something has moved."""

from __future__ import annotations

import json
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Any

# Seconds: for the head of the answer, and after which a daemon that says nothing at all is taken for gone; it says that
# it is alive every 15 s.
OPEN_S = 10.0
SILENT_S = 60.0


class EventStream:
    """`frames` gives what has come. Raises EOFError, from the start too, when there is no such stream or it ends."""

    def __init__(self, sock: socket.socket, target: str, headers: Mapping[str, str]) -> None:
        self._sock = sock
        self._raw = b""
        self._text = b""
        self._heard_at = time.monotonic()
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        try:
            sock.settimeout(OPEN_S)
            sock.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
            self._open()
        except (OSError, EOFError, ValueError, IndexError) as error:
            self.close()
            raise EOFError(str(error)) from None

    def _open(self) -> None:
        while b"\r\n\r\n" not in self._raw:
            self._receive(OPEN_S)
        head, _, self._raw = self._raw.partition(b"\r\n\r\n")
        if int(head.split(b" ", 2)[1]) != 200 or b"text/event-stream" not in head.lower():
            raise ValueError("no stream of events")
        self._chunked = b"chunked" in head.lower()

    def fileno(self) -> int:
        """For `select` and its like."""
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def frames(self, seconds: float) -> list[tuple[str, Any]]:
        """(event, data) of what has come, waiting at most `seconds` for the first; empty when nothing has."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._decode()
                if found := self._complete():
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                if time.monotonic() - self._heard_at > SILENT_S:
                    raise EOFError("the daemon has been silent for too long")
                self._receive(min(left, SILENT_S))
            except TimeoutError:
                continue
            except (OSError, EOFError, ValueError) as error:
                self.close()
                raise EOFError(str(error)) from None

    def _receive(self, seconds: float) -> None:
        self._sock.settimeout(max(0.001, seconds))
        data = self._sock.recv(65536)
        if not data:
            raise EOFError("the daemon closed the connection")
        self._heard_at = time.monotonic()
        self._raw += data

    def _decode(self) -> None:
        """Moves whole chunks of the answer to the text of events."""
        if not self._chunked:
            self._text, self._raw = self._text + self._raw, b""
        while self._chunked:
            size_text, line_end, rest = self._raw.partition(b"\r\n")
            if not line_end:
                return
            size = int(size_text.split(b";")[0], 16)
            if size == 0:
                raise EOFError("the stream has ended")
            if len(rest) < size + 2:
                return
            self._text += rest[:size]
            self._raw = rest[size + 2 :]

    def _complete(self) -> list[tuple[str, Any]]:
        whole, end, rest = self._text.rpartition(b"\n\n")
        if not end:
            return []
        self._text = rest
        found: list[tuple[str, Any]] = []
        for block in whole.split(b"\n\n"):
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line[1:])
            if b"data" in fields:
                found.append((fields.get(b"event", b"message").decode(), json.loads(fields[b"data"])))
        return found

"""HTTP/1.1 to the daemon, over its Unix socket or over TCP.

Over the Unix socket the protocol is written out here: http.client costs 35 ms of import (ssl, email), more than
the rest of `gpuq status` together.
"""

from __future__ import annotations

import errno
import os
import socket
from _thread import _local

from gpuq.errors import DaemonUnreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO, Protocol

    from gpuq.client.stream import EventStream

    class Transport(Protocol):
        def request(
            self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, fresh: bool = False
        ) -> Reply:
            """One exchange. `fresh`: not on a connection that has idled, which the daemon may be closing.

            Raises DaemonUnreachable when nothing was sent, ConnectionLost when something may have been."""

        def listen(self, target: str, headers: Mapping[str, str]) -> EventStream | None:
            """A stream of events, on a connection of its own; None where there is none to be had."""

        def close(self) -> None: ...


# Longer than any answer takes: a batch of 100,000 jobs, or a write that waits for a busy database.
TIMEOUT_S = 120.0


class ConnectionLost(Exception):
    """The connection broke after the request went out: it may have been carried out, or not."""


class Reply:
    """`headers` have lower-case names."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


def _who_starts_it(path: str) -> str:
    try:
        ours = os.stat(os.path.dirname(path)).st_uid == os.geteuid()
    except OSError:
        ours = True
    if ours:
        return "start it with `gpuq up -d`"
    return "ask whoever looks after that daemon; a `gpuq up` of yours would start another queue on the same GPUs"


class UnixTransport:
    """One kept-alive connection a thread, so threads may share a transport."""

    def __init__(self, path: str, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._local = _local()
        # Set by a failed connect: nobody listens, so no daemon runs on this home.
        self.absent = False

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, fresh: bool = False
    ) -> Reply:
        if fresh:
            self.close()
        connection: tuple[socket.socket, IO[bytes]] | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        sock, file = connection
        lines = [f"{method} {target} HTTP/1.1", "Host: gpuq", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            sock.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
            reply = _read_reply(file)
        except TimeoutError:
            self.close()
            raise DaemonUnreachable(
                f"the daemon did not answer within {self._timeout_s:g} s", hint="look at its log, or `gpuq doctor`"
            ) from None
        except (OSError, EOFError, ValueError, IndexError) as error:
            self.close()
            raise ConnectionLost(str(error) or type(error).__name__) from None
        except BaseException:
            # A Ctrl-C half way through an answer: the rest of it must not be taken for the next one.
            self.close()
            raise
        if reply.headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    def listen(self, target: str, headers: Mapping[str, str]) -> EventStream | None:
        from gpuq.client.stream import EventStream

        try:
            sock, file = self._connect()
            file.close()
            return EventStream(sock, target, {"Host": "gpuq", **headers})
        except (DaemonUnreachable, EOFError):
            return None

    def peer_pid(self) -> int:
        """The daemon's process id, as the kernel knows it."""
        if getattr(self._local, "connection", None) is None:
            self._local.connection = self._connect()
        raw = self._local.connection[0].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(raw[:4], "little")

    def close(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            connection[1].close()
            connection[0].close()

    def _connect(self) -> tuple[socket.socket, IO[bytes]]:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Where many knock at once, a connection has to wait for its turn; one that has a timeout of Python's is refused
        # instead. (Seconds and microseconds, as the kernel takes them.)
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, max(1, int(self._timeout_s)).to_bytes(8, "little") + bytes(8)
        )
        try:
            sock.connect(self._path)
            sock.settimeout(self._timeout_s)
        except OSError as error:
            sock.close()
            self.absent = error.errno in {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}
            if self.absent:
                raise DaemonUnreachable(f"no daemon answers on {self._path}", hint=_who_starts_it(self._path)) from None
            reason = error.strerror or str(error)
            hint = "`gpuq doctor` looks into it"
            if error.errno == errno.EACCES:
                hint = "the daemon belongs to another user, who does not let you in"
            elif "too long" in str(error):
                from gpuq.linux import SOCKET_PATH_MAX

                hint = f"a Unix socket's path has at most {SOCKET_PATH_MAX} bytes: choose a shorter GPUQ_HOME"
            raise DaemonUnreachable(f"cannot connect to {self._path}: {reason}", hint=hint) from None
        return sock, sock.makefile("rb")


def _read_reply(file: IO[bytes]) -> Reply:
    """Raises EOFError when the connection ends early, ValueError or IndexError for what is not HTTP."""
    status = int(_line(file).split(b" ", 2)[1])
    headers: dict[str, str] = {}
    while line := _line(file):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if status in {204, 304}:
        return Reply(status, headers, b"")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts: list[bytes] = []
        while size := int(_line(file).split(b";")[0], 16):
            parts.append(_exactly(file, size))
            _line(file)
        while _line(file):
            pass
        return Reply(status, headers, b"".join(parts))
    if "content-length" in headers:
        return Reply(status, headers, _exactly(file, int(headers["content-length"])))
    headers["connection"] = "close"
    return Reply(status, headers, file.read())


def _line(file: IO[bytes]) -> bytes:
    line = file.readline(65536)
    if not line.endswith(b"\n"):
        raise EOFError("the daemon closed the connection")
    return line.rstrip(b"\r\n")


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("the daemon closed the connection")
    return data

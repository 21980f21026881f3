"""HTTP(S) over TCP with a bearer token, for a daemon that runs with `--listen`."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Mapping

from gpuq.client.address import Address
from gpuq.client.stream import EventStream
from gpuq.client.transport import TIMEOUT_S, ConnectionLost, Reply
from gpuq.errors import DaemonUnreachable


class TcpTransport:
    """One kept-alive connection a thread, so threads may share a transport."""

    def __init__(self, address: Address, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._local = threading.local()

    def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, fresh: bool = False
    ) -> Reply:
        if fresh:
            self.close()
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        token = self._address.token
        authorised = {**headers, "Authorization": f"Bearer {token}"} if token else dict(headers)
        try:
            connection.request(method, target, body=body, headers=authorised)
            answer = connection.getresponse()
            data = answer.read()
        except TimeoutError:
            self.close()
            raise DaemonUnreachable(f"{self._address.text} did not answer within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ConnectionLost(str(error) or type(error).__name__) from None
        except BaseException:
            # A Ctrl-C half way through an answer: the rest of it must not be taken for the next one.
            self.close()
            raise
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, data)

    def listen(self, target: str, headers: Mapping[str, str]) -> EventStream | None:
        """A stream of events, on a connection of its own; None where there is none to be had."""
        try:
            sock = self._connect().sock
            host = self._address.host
            sent = {
                "Host": f"[{host}]:{self._address.port}" if ":" in host else f"{host}:{self._address.port}",
                **headers,
            }
            if self._address.token:
                sent["Authorization"] = f"Bearer {self._address.token}"
            return EventStream(sock, target, sent)
        except (DaemonUnreachable, EOFError):
            return None

    def close(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._address.host, self._address.port, timeout=self._timeout_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise DaemonUnreachable(
                f"cannot connect to {self._address.text}: {error.strerror or error}",
                hint="is the daemon up with --listen, and GPUQ_SERVER right?",
            ) from None
        return connection

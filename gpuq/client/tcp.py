"""HTTP(S) over TCP with a bearer token, for a daemon that runs with `--listen`.

Over https the certificate is always verified: by the CA of GPUQ_CA_FILE, else by those that the system trusts."""

from __future__ import annotations

import http.client
import os
import ssl
import threading
from collections.abc import Mapping

from gpuq.client.address import Address
from gpuq.client.stream import EventStream
from gpuq.client.transport import TIMEOUT_S, ConnectionLost, Reply
from gpuq.errors import ConfigError, DaemonUnreachable

# OpenSSL's numbers of what is wrong with a certificate.
_NOT_YET, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64


class TcpTransport:
    """One kept-alive connection a thread, so threads may share a transport."""

    def __init__(self, address: Address, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._local = threading.local()
        self._tls = _verifying(address.ca_file) if address.scheme == "https" else None

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
        host, port = self._address.host, self._address.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=self._timeout_s)
            if self._tls is None
            else http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        )
        try:
            connection.connect()
        except ssl.SSLError as error:
            connection.close()
            raise _no_tls(self._address, error) from None
        except OSError as error:
            connection.close()
            raise DaemonUnreachable(
                f"cannot connect to {self._address.text}: {error.strerror or error}",
                hint="is the daemon up with --listen, and GPUQ_SERVER right?",
            ) from None
        return connection


def _verifying(ca_file: str | None) -> ssl.SSLContext:
    """Verifies certificate and name. Raises ConfigError for a `ca_file` that is none."""
    path = os.path.expanduser(ca_file) if ca_file else None
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        why = "has no certificate in PEM form"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    raise ConfigError(f"GPUQ_CA_FILE: {path} {why}", hint="it begins with -----BEGIN CERTIFICATE-----") from None


def _no_tls(address: Address, error: ssl.SSLError) -> DaemonUnreachable:
    """What is wrong, and who can mend it."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return DaemonUnreachable(
            f"{address.text} does not speak TLS as it should: {(error.reason or str(error)).replace('_', ' ').lower()}",
            hint="is it the port of the TLS proxy? The daemon itself speaks http:// only",
        )
    why, hint = {
        _EXPIRED: ("has expired", "whoever looks after the server has to renew it"),
        _NOT_YET: ("is not valid yet", "is the clock of this machine right?"),
        **dict.fromkeys(
            (_OTHER_NAME, _OTHER_ADDRESS),
            (f"is not for the name {address.host}", "GPUQ_SERVER has to name the server as its certificate does"),
        ),
    }.get(
        error.verify_code,
        (
            f"is not trusted: {error.verify_message}",
            "GPUQ_CA_FILE=FILE names the CA that signed it (PEM); ask whoever looks after the server for that file",
        ),
    )
    return DaemonUnreachable(f"{address.text}: its certificate {why}; nothing was sent", hint=hint)

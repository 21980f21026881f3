"""One client's way to the daemon: the transport, repeating what may be repeated, and errors as exceptions."""

from __future__ import annotations

import json
import time
from _thread import allocate_lock

from gpuq.client import address as addresses
from gpuq.client.transport import ConnectionLost, Reply, UnixTransport
from gpuq.errors import DaemonUnreachable, GpuqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Self

    from gpuq.client.stream import EventStream
    from gpuq.client.transport import Transport

# Seconds before each new try after a lost connection: time for a daemon to be restarted.
RETRY_DELAYS = (0.0, 0.1, 0.3, 1.0, 2.0)


class Session:
    """`is_direct`: no daemon runs, so calls work straight on the database."""

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        direct: bool = True,
        on_direct: Callable[[], None] | None = None,
    ) -> None:
        self.address = addresses.find(server, token)
        self.is_direct = False
        self._may_go_direct = direct and not self.address.explicit
        self._on_direct = on_direct
        # Whose answers have been heard is asked again: another daemon's jobs have the same numbers.
        self._has_answered = False
        # Names of secrets that did not go along, because the daemon is of a release that keeps none.
        self.left_out: list[str] = []
        self._machine_is_down = False
        self._switching = allocate_lock()
        self._transport = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def require_daemon(self, what: str) -> None:
        """Raises DaemonUnreachable, naming `what` cannot be done, unless a daemon answers."""
        before, self._may_go_direct = self._may_go_direct, False
        try:
            if self.is_direct:
                raise DaemonUnreachable("")
            self.send("GET", "/healthz")
        except DaemonUnreachable as error:
            if self._machine_is_down or self.address.explicit or not (self.is_direct or self.nobody_listens):
                raise
            raise DaemonUnreachable(
                f"no daemon is running on this home, and {what} needs one", hint="start it with `gpuq up -d`"
            ) from error
        finally:
            self._may_go_direct = before

    def daemon_pid(self) -> int | None:
        """By the kernel's word; None over TCP and without a daemon. Raises DaemonUnreachable."""
        return self._transport.peer_pid() if isinstance(self._transport, UnixTransport) else None

    @property
    def is_remote(self) -> bool:
        """Whether the daemon may be on another machine: it is reached over TCP."""
        return self.address.scheme != "unix"

    @property
    def nobody_listens(self) -> bool:
        """The last call found no daemon on this home's socket."""
        return isinstance(self._transport, UnixTransport) and self._transport.absent

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The decoded answer of any route; for what has no method here. Options as for `send`."""
        return self.decode(self.send(method, path, **options))

    def listen(self, path: str, *, last_event_id: str | None = None, **query: object) -> EventStream | None:
        """Server-sent events of a route; None without a daemon, or where it has no place for one more listener."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        return self._transport.listen(path + _query(query), headers)

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool = False,
        accept: Sequence[int] = (),
    ) -> Reply:
        """One call, made again after a lost connection when it is a GET or `repeat` says that twice is as once.

        Raises the error that the answer carries; a status in `accept` is no error.
        """
        target = path + _query(query)
        data = b"" if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})} if data else dict(headers or {})
        reply = self._exchange(method, target, sent, data, repeat or method == "GET")
        if reply.status >= 400 and reply.status not in accept:
            raise _error(reply)
        return reply

    def _exchange(self, method: str, target: str, headers: dict[str, str], data: bytes, repeat: bool) -> Reply:
        lost: ConnectionLost | None = None
        for delay in (0.0, *RETRY_DELAYS) if repeat else (0.0,):
            if delay:
                time.sleep(delay)
            transport = self._transport
            try:
                reply = transport.request(method, target, headers, data, fresh=not repeat)
                self._has_answered = True
                return reply
            except ConnectionLost as error:
                lost = error
            except DaemonUnreachable as error:
                # After a lost connection the daemon may be on its way back; else nobody is there at all.
                if lost is not None and delay != RETRY_DELAYS[-1]:
                    continue
                with self._switching:
                    if self._transport is transport and not (lost is None and self._go_to_machine()):
                        if not self._go_direct():
                            raise error
                        return self._directly(method, target, headers, data)
                # What this thread or another has found in its place.
                return self._exchange(method, target, headers, data, repeat)
        raise DaemonUnreachable(
            f"the connection to the daemon broke ({lost})",
            hint="the request may or may not have been carried out: look with `gpuq status` before repeating it",
        )

    def _directly(self, method: str, target: str, headers: dict[str, str], data: bytes) -> Reply:
        """The first exchange without a daemon."""
        reply = self._transport.request(method, target, headers, data)
        # Not before: where the home itself is wrong, that is the whole story.
        if self._on_direct is not None:
            self._on_direct()
        return reply

    def _go_to_machine(self) -> bool:
        """Nobody listens in the own home: whether the machine's daemon does, which every further call goes to then.
        Raises DaemonUnreachable when the machine has one and it is down: another queue must not be used unnoticed."""
        if self._has_answered or not self.nobody_listens:
            return False
        sockets = addresses.machine_sockets(self.address)
        for path in sockets:
            transport = UnixTransport(path, of_root=True)
            try:
                transport.peer_pid()
            except DaemonUnreachable:
                if not transport.absent:
                    raise
                continue
            self._transport = transport
            before = self.address
            self.address = addresses.Address(before.home, f"unix://{path}", None)
            self.address.status_format = before.status_format
            self.address.env_keep, self.address.env_secret = before.env_keep, before.env_secret
            self._may_go_direct = False
            return True
        if sockets and self.address.home != self.address.machine_home:
            self._machine_is_down = True
            raise DaemonUnreachable(
                f"this machine's gpuq is down: nobody listens on {' or on '.join(sockets)}",
                hint="whoever looks after the machine starts it, as root: `gpuq up -d`. "
                f"GPUQ_HOME={self.address.home} before a command uses a queue of your own instead",
            )
        return False

    def _go_direct(self) -> bool:
        if not (self._may_go_direct and self.nobody_listens):
            return False
        from gpuq.client.local import PipeTransport

        self._transport = PipeTransport()
        self.is_direct = True
        return True

    def _connect(self) -> Transport:
        if self.address.scheme == "unix":
            return UnixTransport(self.address.path)
        from gpuq.client.tcp import TcpTransport

        return TcpTransport(self.address)

    def decode(self, reply: Reply) -> Any:
        """The JSON of an answer; None for an empty one."""
        if not reply.body:
            return None
        try:
            return json.loads(reply.body)
        except ValueError:
            raise GpuqError(
                f"{self.address.text} did not answer as a gpuq daemon does", hint="is GPUQ_SERVER right?"
            ) from None

    def _dict(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.call(method, path, **options)
        return answer

    def _list(self, method: str, path: str, **options: Any) -> list[Any]:
        answer: list[Any] = self.call(method, path, **options)
        return answer


def _query(values: Mapping[str, object] | None) -> str:
    given = [(name, value) for name, value in (values or {}).items() if value is not None]
    if not given:
        return ""
    return "?" + "&".join(f"{name}={_quote(str(value))}" for name, value in given)


def _quote(text: str) -> str:
    """Percent-encoding; urllib.parse costs 12 ms of import."""
    if text.isascii() and text.replace("_", "").replace(",", "").replace("-", "").replace(".", "").isalnum():
        return text
    return "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or byte in b"-._~," else f"%{byte:02X}"
        for byte in text.encode()
    )


def _error(reply: Reply) -> GpuqError:
    """The error that an answer carries, as the class that its code names."""
    from gpuq.client.errors import from_reply

    return from_reply(reply.status, reply.body)

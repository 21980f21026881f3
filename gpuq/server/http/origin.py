"""What a web page may make its visitor's browser ask of this server: nothing.

A browser carries requests to any address that a page names, also to a port of loopback behind which `ssh -L` or a proxy
has put our Unix socket, where the caller is whoever started that. Two checks keep pages of others out. Each request
must name a host that this server is known by, since a page whose own name suddenly means our address (DNS rebinding)
still says its own name. And a request that changes something must come from a page of ours, in the order of Go's
net/http CrossOriginProtection: `Sec-Fetch-Site`, else `Origin` against `Host`; with neither it is no browser.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gpuq.errors import CrossOrigin, GpuqError, Misdirected
from gpuq.server.http.error_handlers import failure, response_of
from gpuq.server.http.peer import EXTENSION

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_AUTHORITY = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9_.-]*)(?::\d{1,5})?")
_ORIGIN = re.compile(rb"https?://([^/]+)")
_KNOWN_AT_ONCE = 64


class Hosts:
    """The names that this server goes by; ports do not count, since a forwarded one differs from ours."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {_plain(name) for name in (*LOOPBACK, *names)}

    def add(self, name: str) -> None:
        """Any thread."""
        self._names = self._names | {_plain(name)}

    def include(self, host: bytes, local_address: str | None, *, on_socket: bool, browser: bool) -> bool:
        """Whether `host`, a Host header in lower case, names this server.

        `local_address`: the one that was connected to, for TCP. On the Unix socket (`on_socket`) any single word does
        (`curl --unix-socket PATH http://x/…`), and an empty one: no name that somebody may register is a single word.
        A request with a browser's headers came through a forwarded port, and names that.
        """
        match = _AUTHORITY.fullmatch(host)
        if match is None:
            return False
        name = _plain(match[1].decode())
        if on_socket and not browser and "." not in name and "[" not in name:
            return True
        return name in self._names or (bool(name) and local_address is not None and _plain(local_address) == name)


def _plain(name: str) -> str:
    """In lower case, without the dot of a full name; an address as it is usually written, IPv6 in brackets."""
    name = name.strip().lower().removesuffix(".")
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return name
    return f"[{address}]" if address.version == 6 else str(address)


def hosts_of(node: str, listen: str | None, listeners: Iterable[socket.socket], more: Iterable[str]) -> Hosts:
    """The node's names, the host of `--listen`, the addresses of the sockets, and `more`.

    The full name of the machine is asked for behind, where it listens on TCP: that may take the time of a dead name
    server. It is what the machine's own configuration calls it, never what an address is said to stand for.
    """
    own = socket.gethostname()
    names = {node, own, own.partition(".")[0], *more}
    addresses = [listener.getsockname()[0] for listener in listeners if listener.family != socket.AF_UNIX]
    names.update(address for address in addresses if not ip_address(address).is_unspecified)
    if listen is not None and (host := listen.rpartition(":")[0].strip("[]")):
        names.add(host)
    hosts = Hosts(name for name in names if not _unspecified(name))
    if addresses:
        threading.Thread(target=_add_full_name, args=(hosts, own), name="gpuq-full-name", daemon=True).start()
    return hosts


def _unspecified(name: str) -> bool:
    try:
        return ip_address(name.strip("[]")).is_unspecified
    except ValueError:
        return not name


def _add_full_name(hosts: Hosts, own: str) -> None:
    try:
        found = socket.getaddrinfo(own, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except OSError:
        return
    for *_, full_name, _ in found:
        if full_name:
            hosts.add(full_name)


class _Asked:
    """What the headers of one request say about who made it. What stands there twice is not trusted."""

    __slots__ = ("body", "content_type", "fetch_site", "from_browser", "host", "hosts", "origin")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.host = b""
        self.hosts = 0
        self.origin: bytes | None = None
        self.fetch_site: bytes | None = None
        self.content_type = b""
        self.from_browser = self.body = False
        for name, value in headers:
            if name == b"host":
                self.host = value.strip().lower()
                self.hosts += 1
            elif name == b"origin":
                self.origin = value.strip().lower() if self.origin is None else b"null"
                self.from_browser = True
            elif name == b"sec-fetch-site":
                self.fetch_site = value.strip().lower() if self.fetch_site is None else b"cross-site"
                self.from_browser = True
            elif name == b"content-type":
                self.content_type = value
            elif name == b"content-length":
                self.body = self.body or value.strip() != b"0"
            elif name == b"transfer-encoding":
                self.body = True

    @property
    def cross_origin(self) -> bool:
        if self.origin == b"null":
            return True
        if self.fetch_site:
            return self.fetch_site not in {b"same-origin", b"none"}
        if not self.origin:
            return False
        match = _ORIGIN.fullmatch(self.origin)
        return match is None or match[1] != self.host

    def may_send(self, path: str) -> bool:
        """Whether a browser may send such a body there: JSON, and to the pages, which take no other, their forms."""
        media_type = self.content_type.partition(b";")[0].strip().lower()
        return media_type == (b"application/x-www-form-urlencoded" if path.startswith("/ui/") else b"application/json")


class OriginCheck:
    """The outermost of all: before the caller is known and before a body is read. No answer ever has a CORS header."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts
        # (Host, the address that was connected to, whether it is the Unix socket, whether a browser asks): what was
        # found to be ours. All clients of one machine say the same few.
        self._known: set[tuple[bytes, str | None, bool, bool]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = _Asked(scope["headers"])
        if asked.hosts != 1 and not (asked.hosts == 0 and scope["http_version"] == "1.0"):
            wrong = "more than one Host header" if asked.hosts else "no Host header"
            answer: Response = failure(400, "malformed", wrong, "HTTP/1.1 wants one: `Host: localhost`")
        elif (refusal := self._refusal(scope, asked)) is not None:
            answer = response_of(refusal)
        elif (
            asked.from_browser
            and asked.body
            and scope["method"] not in SAFE_METHODS
            and not asked.may_send(scope["path"])
        ):
            answer = failure(
                415, "unsupported_media_type", "a body is JSON", "send the header `Content-Type: application/json`"
            )
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope, asked: _Asked) -> GpuqError | None:
        on_socket = EXTENSION in scope["extensions"]
        local_address = None if on_socket or not scope["server"] else scope["server"][0]
        key = (asked.host, local_address, on_socket, asked.from_browser)
        if key not in self._known and asked.hosts:
            if not self._hosts.include(asked.host, local_address, on_socket=on_socket, browser=asked.from_browser):
                return Misdirected(
                    f"this server does not go by the name {asked.host.decode('latin-1')[:200]!r}",
                    hint="ask for it by one of its own names, or list that one in GPUQ_WEB_HOSTS",
                )
            if len(self._known) < _KNOWN_AT_ONCE:
                self._known.add(key)
        if scope["method"] not in SAFE_METHODS and asked.cross_origin:
            return CrossOrigin(
                "a page of another origin may not change anything here",
                hint="open this server's own page; a program sends neither Origin nor Sec-Fetch-Site",
            )
        return None

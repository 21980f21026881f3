"""The sockets, and uvicorn's protocol on them.

uvicorn's own server looks ten times a second whether it should stop; this one is told, and so costs nothing while
nobody asks for anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

from uvicorn.config import Config
from uvicorn.server import ServerState

from gpuq.errors import Refused, UsageError
from gpuq.linux import SOCKET_PATH_MAX
from gpuq.server.app import Application
from gpuq.server.http.connections import Connections
from gpuq.server.http.origin import OriginCheck, hosts_of
from gpuq.server.http.protocol import KEEP_ALIVE_S, BoundedProtocol

log = logging.getLogger(__name__)

BACKLOG = 1024
# Answers under way get this long to finish when the daemon stops; then they are cut off.
LAST_ANSWERS_S = 1.0
# How often it is asked whether clients still find the socket. A file that the daemon's home is known by.
SOCKET_LOOK_S = 2.0
HOME_MARK = "daemon.lock"


def unix_socket(path: Path) -> socket.socket:
    """Bound and listening. A file left by a dead daemon is replaced, so the caller must hold the home's lock.

    Everybody may connect to root's, since the kernel names the user of each caller; to another's only its owner.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise Refused(
            f"the socket's path is longer than {SOCKET_PATH_MAX} bytes: {path}",
            hint="choose a shorter GPUQ_HOME, or link to it from a short path",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        # From the first moment on nobody else may connect; the mask is the process's, so it is put back at once.
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
        if os.geteuid() == 0:
            path.chmod(0o666)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Refused(f"cannot listen on {path}: {error.strerror}", hint=_socket_hint(error, path)) from None
    listener.setblocking(False)
    return listener


def _socket_hint(error: OSError, path: Path) -> str:
    if error.errno in {errno.EISDIR, errno.ENOTDIR} or path.is_dir():
        return "something else stands in its place: move that away"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{path.parent} has to be a folder of yours that takes writes: see `ls -ld`, or set GPUQ_HOME"
    return "is GPUQ_HOME on a local disk?"


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT` or `:PORT` (every address). Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and int(port) < 65536) or (":" in host and host[0] != "["):
        raise UsageError(f"--listen {text!r} is not HOST:PORT", hint="write 127.0.0.1:8470 or [::1]:8470")
    return host.strip("[]"), int(port)


def tcp_sockets(text: str) -> list[socket.socket]:
    """One for each address that the host's name stands for. Raises UsageError, Refused."""
    host, port = parse_address(text)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UsageError(f"--listen {text}: {error.strerror}", hint="write an address of this machine") from None
    opened: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            # Port 0 is any free one, but the same for every address.
            bound = (address[0], opened[0].getsockname()[1] if opened else port, *address[2:])
            opened.append(_tcp_socket(family, bound))
    except OSError as error:
        for listener in opened:
            listener.close()
        hint = "is it an address of this machine? `ip address` lists them"
        if error.errno == errno.EADDRINUSE:
            hint = "another program listens there: choose another port, or find it with `ss -ltnp`"
        elif error.errno == errno.EACCES:
            hint = "ports below 1024 are root's: choose a higher one"
        raise Refused(f"cannot listen on {text}: {error.strerror}", hint=hint) from None
    return opened


def _tcp_socket(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket as clients write it: `unix://…` or `http://…`."""
    if listener.family == socket.AF_UNIX:
        return f"unix://{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def run(
    app: Application,
    listeners: list[socket.socket],
    when_up: Callable[[Callable[[], None]], None],
    listen: str | None = None,
) -> None:
    """Serves until it is stopped, and a second longer for the last answers. `when_up` is called on the loop once every
    socket answers, with the function that stops the serving; that one may be called from any thread. `listen`: what
    was asked for by `--listen`, whose host is one of the names of this server."""
    settings = app.state.ctx.settings
    config = Config(
        OriginCheck(app, hosts_of(settings.node, listen, listeners, settings.web_host_names)),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    loop = _loop()
    loop.run_until_complete(_serve(app, config, listeners, when_up))
    if left := asyncio.all_tasks(loop):
        # A thread cannot be cancelled. Closing the loop would wait for it, so the loop is left as it is.
        log.warning("%d answers under way were cut off", len(left))
        return
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _serve(
    app: Application,
    config: Config,
    listeners: list[socket.socket],
    when_up: Callable[[Callable[[], None]], None],
) -> None:
    loop = asyncio.get_running_loop()
    state = ServerState()
    end = asyncio.Event()

    connections = Connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0], frozenset({0, os.geteuid()}))

    def protocol() -> BoundedProtocol:
        return BoundedProtocol(config, state, {}, loop, connections=connections)

    servers: list[asyncio.Server] = []
    files: list[SocketFile] = []
    for listener in listeners:
        if listener.family == socket.AF_UNIX:
            files.append(await SocketFile.open(listener, protocol))
        else:
            servers.append(await loop.create_server(protocol, sock=listener))
    watch = [asyncio.ensure_future(file.keep()) for file in files]
    try:
        when_up(lambda: _told_to_stop(loop, end))
        await end.wait()
    finally:
        for task in watch:
            task.cancel()
        for server in [*servers, *(file.server for file in files)]:
            server.close()
        for listener in listeners:
            listener.close()
        await _hang_up(app, state)


class SocketFile:
    """A Unix socket that is listened on, and made anew when somebody has removed its file: without that no client would
    find the daemon, and nobody could start another one."""

    def __init__(self, path: Path, protocol: Callable[[], BoundedProtocol], server: asyncio.Server) -> None:
        self.server = server
        self._path = path
        self._protocol = protocol
        self._made = self._look()
        self._failed = False

    @classmethod
    async def open(cls, listener: socket.socket, protocol: Callable[[], BoundedProtocol]) -> SocketFile:
        """For a socket that is bound and listening already."""
        server = await asyncio.get_running_loop().create_unix_server(protocol, sock=listener)
        return cls(Path(listener.getsockname()), protocol, server)

    async def keep(self) -> None:
        """Until it is cancelled. What is connected stays so."""
        while True:
            await asyncio.sleep(SOCKET_LOOK_S)
            # The whole home may be away; what stands in its place then is not ours.
            if self._look() != self._made and self._path.with_name(HOME_MARK).exists():
                await self._make_again()

    async def _make_again(self) -> None:
        try:
            listener = unix_socket(self._path)
        except Refused as error:
            if not self._failed:
                log.error("%s is gone and cannot be made again: %s", self._path, error.message)
            self._failed = True
            return
        self.server.close()
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(self._protocol, sock=listener)
        self._made, self._failed = self._look(), False
        log.warning("%s was gone: made again", self._path)

    def _look(self) -> tuple[int, int] | None:
        try:
            seen = self._path.lstat()
        except OSError:
            return None
        return seen.st_dev, seen.st_ino


def _told_to_stop(loop: asyncio.AbstractEventLoop, end: asyncio.Event) -> None:
    loop.call_soon_threadsafe(end.set)


async def _hang_up(app: Application, state: ServerState) -> None:
    """Streams end, idle connections close, answers under way are finished, what is left is cut off."""
    app.state.streams.close()
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(list(state.tasks), timeout=LAST_ANSWERS_S)
    for task in list(state.tasks):
        task.cancel()
    for connection in list(state.connections):
        connection.transport.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app.state.streams.settled(), LAST_ANSWERS_S)
    # One turn of the loop, in which the transports send what they hold.
    await asyncio.sleep(0)

"""The processes of gpuq: everything at once (`up`), or one of its parts."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from gpuq import mounts, wiring
from gpuq.config_file import MACHINE_SOCKET
from gpuq.engine.context import Context
from gpuq.engine.file_lock import FileLock
from gpuq.errors import UsageError
from gpuq.home import prepare_home
from gpuq.linux import keep_large_blocks_apart, raise_descriptor_limit
from gpuq.observe import log as daemon_log
from gpuq.server import machine_socket
from gpuq.server.process.detach import Interrupted
from gpuq.server.process.service_manager import ServiceManager
from gpuq.settings import Settings
from gpuq.wiring import Role, Services

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Threads that serve requests at once; a SQL connection each, and none is left idle for long.
WORKERS = 16
# Seconds after which a busy thread makes room. Python's own 5 ms are as long as a whole dispatch.
SWITCH_S = 0.0005


class DaemonStop:
    """Whether the daemon is to go down, and how; `manager` is told when it is up, and when it begins to stop."""

    def __init__(self, manager: ServiceManager) -> None:
        self.stop_jobs = False
        self.manager = manager
        self._down = threading.Event()
        self._tell: Callable[[], None] = lambda: None

    def on_stop(self, tell: Callable[[], None]) -> None:
        """Sets what is called at the stop; called at once when that has already begun."""
        self._tell = tell
        if self._down.is_set():
            tell()

    def down(self, stop_jobs: bool = False) -> None:
        """Any thread."""
        self.stop_jobs = self.stop_jobs or stop_jobs
        if not self._down.is_set():
            self.manager.stopping()
        self._down.set()
        self._tell()

    def wait(self) -> None:
        self._down.wait()


def run(
    settings: Settings,
    roles: Collection[Role],
    *,
    listen: str | None = None,
    when_ready: Callable[[list[str]], None],
    tell: Callable[[str], None] | None = None,
) -> None:
    """Until SIGTERM, SIGINT or `POST /shutdown`. Jobs that run go on unless the shutdown says otherwise.

    `when_ready` gets the lines that say what runs; `tell`, if it takes long to get there, why. Raises AlreadyRunning
    for a second daemon on this home, and whatever kept a part from starting; whatever was started before is stopped
    again.
    """
    if listen is not None and "server" not in roles:
        raise UsageError("--listen is for `gpuq up` and `gpuq server`")
    daemon_log.set_up(settings.log_level)
    sys.setswitchinterval(SWITCH_S)
    raise_descriptor_limit()
    going = DaemonStop(ServiceManager.of())
    with _interruptible(going), ExitStack() as stack:
        prepare_home(settings.home)
        if "server" in roles:
            lock = FileLock(settings.home / "daemon.lock", "a daemon for this home")
            lock.acquire()
            stack.callback(lock.release)
        # By itself first, so that whoever waits hears how far it is.
        wiring.database().ensure(settings.database_url, tell)
        ctx = wiring.open_context(settings, roles=roles)
        mounts.note(settings.home)
        stack.callback(_close, ctx)
        stack.callback(_stop_jobs_if_told, ctx, going)
        if "agent" in roles:
            ctx.gpus.claim()
        services = wiring.start_services(ctx, roles)
        stack.callback(services.stop)
        if "server" in roles:
            _serve(ctx, services, going, listen, stack, when_ready)
        else:
            _wait(ctx, going, roles, when_ready)


@contextmanager
def _interruptible(going: DaemonStop) -> Iterator[None]:
    """Until the serving has its own handlers, a signal ends the start in good order, children included."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        # Where Python drops an exception (a finalizer, a callback), the start goes on to its end and stops there.
        going.down()
        raise Interrupted(signum)

    before = {each: signal.signal(each, interrupt) for each in STOP_SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _serve(
    ctx: Context,
    services: Services,
    going: DaemonStop,
    listen: str | None,
    stack: ExitStack,
    when_ready: Callable[[list[str]], None],
) -> None:
    # Imported here: the agent already works while this takes its quarter of a second.
    from gpuq.server import listen as listening
    from gpuq.server.app import create_app

    listeners: list[socket.socket] = [listening.unix_socket(ctx.settings.socket_path)]
    stack.callback(ctx.settings.socket_path.unlink, missing_ok=True)
    listeners.extend(_machine_socket(ctx.settings, listening.unix_socket, stack))
    if listen is not None:
        listeners.extend(listening.tcp_sockets(listen))
    app = create_app(ctx, agent=services.agent, on_shutdown=going.down)

    app.state.addresses = _for_browsers(ctx.node, [listening.address_of(listener) for listener in listeners])

    def when_up(stop: Callable[[], None]) -> None:
        going.on_stop(stop)
        loop = asyncio.get_running_loop()
        for each in STOP_SIGNALS:
            loop.add_signal_handler(each, going.down)
        _limit_workers()
        _settle()
        when_ready(_addresses(ctx, [listening.address_of(listener) for listener in listeners]))
        going.manager.ready()

    listening.run(app, listeners, when_up, listen)
    _ignore_signals()
    app.submission.close()
    log.info("stopping")


def _machine_socket(settings: Settings, bind: Callable[[Path], socket.socket], stack: ExitStack) -> list[socket.socket]:
    """The machine's address, if it is this daemon's to have."""
    if not machine_socket.is_for(settings):
        return []
    found = machine_socket.listen(Path(MACHINE_SOCKET), bind)
    if found is None:
        return []
    listener, remove = found
    stack.callback(remove)
    return [listener]


def _wait(ctx: Context, going: DaemonStop, roles: Collection[Role], when_ready: Callable[[list[str]], None]) -> None:
    for each in STOP_SIGNALS:
        signal.signal(each, lambda signum, frame: going.down())
    _settle()
    when_ready([f"gpuq {' and '.join(sorted(roles))} on {ctx.node}, pid {os.getpid()}, home {ctx.home}"])
    going.manager.ready()
    going.wait()
    _ignore_signals()
    log.info("stopping")


def _ignore_signals() -> None:
    """On the way down a second signal must not leave children behind; `kill -9` still works."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def _limit_workers() -> None:
    import anyio.to_thread

    anyio.to_thread.current_default_thread_limiter().total_tokens = WORKERS


def _settle() -> None:
    """What was imported stays for good: the collector need not walk over it again and again. And a submission of
    20,000 jobs must not start it every 700 objects, which would take as long as storing them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    keep_large_blocks_apart()


def _addresses(ctx: Context, addresses: list[str]) -> list[str]:
    gpus = ctx.gpus.inventory()
    simulated = " (simulated)" if any(gpu.simulated for gpu in gpus) else ""
    lines = [
        f"gpuq is up: {', '.join(addresses)}",
        f"  home {ctx.home}, pid {os.getpid()}",
        f"  {len(gpus)} GPUs{simulated}" if gpus else f"  no GPU: {ctx.gpus.why_empty() or 'none was found'}",
    ]
    if any(_exposed(address) for address in addresses):
        lines.append("  tokens cross the network unencrypted: put a TLS proxy in front, or listen on 127.0.0.1")
    return lines


def _for_browsers(node: str, addresses: list[str]) -> list[str]:
    """Those over TCP; "every address of this machine" by its name."""
    found = [address for address in addresses if address.startswith("http")]
    return [address.replace("//0.0.0.0:", f"//{node}:").replace("//[::]:", f"//{node}:") for address in found]


def _exposed(address: str) -> bool:
    return not address.startswith(("unix://", "http://127.", "http://[::1]"))


def _stop_jobs_if_told(ctx: Context, going: DaemonStop) -> None:
    if going.stop_jobs:
        from gpuq.server.process.stop_all import stop_jobs

        stop_jobs(ctx)


def _close(ctx: Context) -> None:
    ctx.launcher.close()
    ctx.gpus.close()
    ctx.records.close()


def report(lines: list[str]) -> None:
    """Writes the lines to stderr."""
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()

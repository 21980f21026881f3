"""`gpuq up`, `down`, and the daemon's parts alone."""

from __future__ import annotations

import os
import sys
import time

from gpuq.cli.connect import say
from gpuq.cli.parse.options import Args
from gpuq.errors import DaemonUnreachable, GpuqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuq.client.calls import Calls

# A daemon that has been asked to stop ends what it has begun, and no more.
STOP_S = 60.0
# A daemon whose socket was removed makes it again meanwhile, and one that is starting listens.
SOCKET_S = 5.0


def up(args: Args) -> int:
    return _become(args, "up")


def server(args: Args) -> int:
    return _become(args, "server")


def agent(args: Args) -> int:
    return _become(args, "agent")


def maintain(args: Args) -> int:
    return _become(args, "maintain")


def _become(args: Args, what: str) -> int:
    """This process turns into the daemon, so that whoever started it signals and watches the right one."""
    listen = args.text("listen") if args.given("listen") else None
    options = ["--detach"] if args.flag("detach") else []
    options += ["--listen", listen] if listen is not None else []
    sys.stdout.flush()
    # -P: a redis.py in the directory where somebody types `gpuq up` is not the library.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "gpuq.server", what, *options])


def down(args: Args) -> int:
    """Stops the daemon and waits for its end; running jobs go on unless `--stop-jobs` is given."""
    from gpuq.client.calls import Calls

    client = Calls(direct=False)
    stop_jobs = args.flag("stop_jobs")
    try:
        watcher = _ask(client, stop_jobs)
    except DaemonUnreachable:
        if client.address.explicit or not client.nobody_listens:
            raise
        if stop_jobs and os.path.isdir(client.address.home):
            _refuse_to_leave_jobs()
        say("gpuq: no daemon is running on this home")
        return 0
    if stop_jobs:
        say("gpuq: stopping the running jobs; each has its grace")
    _wait_for_end(client, watcher, None if stop_jobs else STOP_S)
    say("gpuq: the daemon has stopped" + ("" if stop_jobs else "; running jobs go on"))
    return 0


def _ask(client: Calls, stop_jobs: bool) -> int | None:
    """Asks it to stop; what `_watch` gives. Raises DaemonUnreachable: where nobody listens on the home's socket, and
    also nobody holds its lock, no daemon runs."""
    deadline = time.monotonic() + SOCKET_S
    while True:
        try:
            watcher = _watch(client)
            client.call("POST", "/shutdown", body={"stop_jobs": stop_jobs})
            return watcher
        except DaemonUnreachable:
            if client.address.explicit or not client.nobody_listens:
                raise
            pid = _holder(client.address.home)
            if pid is None:
                raise
            if time.monotonic() > deadline:
                raise DaemonUnreachable(
                    f"a daemon runs here (pid {pid}) and does not listen on {client.address.path}: not stopped",
                    hint=f"look at its log; `kill {pid}` ends it in good order, and running jobs go on",
                ) from None
        time.sleep(0.2)


def _holder(home: str) -> str | None:
    """The PID that stands in the lock of a daemon, while a process holds that lock."""
    import fcntl

    try:
        fd = os.open(os.path.join(home, "daemon.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(fd)
    return None


def _refuse_to_leave_jobs() -> None:
    """Raises DaemonUnreachable when jobs run that only a daemon could stop and put back in line."""
    from gpuq.client.calls import Calls

    running = Calls().call("GET", "/stats")["running"]
    if running:
        raise DaemonUnreachable(
            f"no daemon is running on this home that could stop its jobs; as far as is known {running} still run",
            hint="`gpuq up -d` first, then this again; `gpuq cancel` ends jobs for good",
        )


def _watch(client: Calls) -> int | None:
    """A descriptor that becomes readable when the daemon's process ends; None for one on another machine."""
    pid = client.daemon_pid()
    return None if pid is None else os.pidfd_open(pid)


def _wait_for_end(client: Calls, watcher: int | None, timeout_s: float | None) -> None:
    """Raises GpuqError when it takes longer than `timeout_s` seconds (None: as long as it takes)."""
    if watcher is not None:
        import select

        poller = select.poll()
        poller.register(watcher, select.POLLIN)
        ended = bool(poller.poll(None if timeout_s is None else timeout_s * 1000))
        os.close(watcher)
    else:
        ended = _poll_for_end(client, timeout_s)
    if not ended:
        raise GpuqError(
            f"the daemon was told to stop and is still there after {timeout_s:g} s",
            hint="its log says what it waits for",
        )


def _poll_for_end(client: Calls, timeout_s: float | None) -> bool:
    """Over TCP there is no process to watch: until nobody answers any more."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while deadline is None or time.monotonic() < deadline:
        try:
            client.call("GET", "/healthz")
        except DaemonUnreachable:
            return True
        time.sleep(0.2)
    return False

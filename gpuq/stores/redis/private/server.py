"""The private redis-server of one home: a child of the daemon, on a Unix socket that only its owner can reach.

It keeps nothing on disk, because everything in it can be read back from SQL. It dies with the daemon, also when
that is killed with SIGKILL; should one be left over all the same, the next daemon shuts it down first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import redis

from gpuq.errors import AlreadyRunning, HotStoreUnavailable
from gpuq.linux import PR_SET_PDEATHSIG, SOCKET_PATH_MAX, lock_file
from gpuq.stores.redis.private import orphaned_server, redis_binary

START_S = 10.0
LOG_MAX_BYTES = 1_000_000

# Becomes redis-server, with the same process id. PR_SET_PDEATHSIG: the kernel ends it when its parent ends.
# A parent that is gone already sends nothing, hence the second look.
_LAUNCH = f"""
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, int(signal.SIGKILL))
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{{sys.argv[2]}} is no program that runs here: {{error.strerror}}")
"""


def socket_path(home: Path) -> Path:
    """`home/redis/redis.sock`; when that is too long for a socket, a folder of this user named by a hash of the home
    under XDG_RUNTIME_DIR or /tmp."""
    usual = home.absolute() / "redis" / "redis.sock"
    if len(os.fsencode(usual)) <= SOCKET_PATH_MAX:
        return usual
    name = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:16]
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        path = Path(base or "/nonexistent") / f"gpuq-{os.geteuid()}-{name}" / "redis.sock"
        if base and Path(base).is_dir() and len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            return path
    raise HotStoreUnavailable(
        f"no folder with a path short enough for a socket was found for {home}",
        hint="set GPUQ_HOME to a shorter path, or GPUQ_REDIS_URL to a running Redis",
    )


def private_url(home: Path) -> str:
    """The address of this home's private Redis, running or not."""
    return f"unix://{quote(str(socket_path(home)))}"


class PrivateRedis:
    """Safe to share between threads. `server_program` is a path; without it the program is looked up at each start."""

    def __init__(self, home: Path, *, server_program: str | None = None) -> None:
        self.socket = socket_path(home)
        self.url = private_url(home)
        self._folder = home.absolute() / "redis"
        self._program = server_program
        self._guard = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock_fd: int | None = None
        self._spawner: ThreadPoolExecutor | None = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Returns when it answers. Raises HotStoreUnavailable (no program, or it will not start: its last words are
        in the message) and AlreadyRunning (another daemon has this home's). Running already: does nothing."""
        with self._guard:
            if self.pid is not None:
                return
            self._own_folders()
            self._lock()
            try:
                orphaned_server.end(self.socket, self._record)
                self._spawn()
            except BaseException:
                self._unlock()
                raise

    def ensure(self) -> bool:
        """Starts it again when it has died; true when it did, and everything in it is gone. Cheap when all is well."""
        with self._guard:
            if self.pid is not None:
                return False
            self.start()
            return True

    def stop(self) -> None:
        """Ends it, with everything in it. A second call does nothing."""
        with self._guard:
            if self._child is not None:
                self._end_child(self._child)
                self._child = None
            if self._lock_fd is not None:
                for path in (self.socket, self._record):
                    path.unlink(missing_ok=True)
                self._unlock()
            if self._spawner is not None:
                self._spawner.shutdown()
                self._spawner = None

    @property
    def _record(self) -> Path:
        return self._folder / "instance.json"

    @property
    def _log(self) -> Path:
        return self._folder / "redis.log"

    def _own_folders(self) -> None:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        for folder in {self._folder, self.socket.parent}:
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = folder.lstat()
            # In a folder that others can write to (/tmp) somebody may have been there first.
            if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
                raise HotStoreUnavailable(
                    f"{folder} is not a folder of ours, so the private Redis cannot keep its socket there",
                    hint="remove it, or set GPUQ_REDIS_URL to a running Redis",
                )
            folder.chmod(0o700)

    def _lock(self) -> None:
        if self._lock_fd is not None:
            return
        try:
            self._lock_fd = lock_file(self._folder / "lock")
        except BlockingIOError:
            raise AlreadyRunning(
                f"another daemon runs the private Redis of {self._folder.parent}",
                hint="use that daemon, or end it with `gpuq down`",
            ) from None

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _spawn(self) -> None:
        if self._spawner is None:
            # The kernel counts the thread that started the child as its parent, so this one stays for as long.
            self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpuq-redis")
        server = self._program or redis_binary.find()
        if self._log.exists() and self._log.stat().st_size > LOG_MAX_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as output:
            child = self._spawner.submit(self._popen, server, output.fileno()).result()
        self._child = child
        try:
            orphaned_server.note(self._record, child.pid, self.socket)
            self._wait_until_ready(child, server)
        except BaseException:
            self._end_child(child)
            self._child = None
            raise

    def _popen(self, server: str, output: int) -> subprocess.Popen[bytes]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "databases": "1",
            "hz": "1",
            "dynamic-hz": "no",
            "loglevel": "warning",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), server, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            # Ctrl-C in the daemon's terminal is for the daemon, which still needs Redis while it winds up.
            start_new_session=True,
        )

    def _wait_until_ready(self, child: subprocess.Popen[bytes], program: str) -> None:
        deadline = time.monotonic() + START_S
        with contextlib.closing(orphaned_server.client(self.socket)) as client:
            while child.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(redis.RedisError, OSError):
                    client.ping()
                    return
                time.sleep(0.003)
        ended = f"ended with {child.returncode}" if child.returncode is not None else f"was silent for {START_S:.0f} s"
        redis_binary.require_new_enough(program)
        raise HotStoreUnavailable(
            f"the private redis-server ({program}) {ended}: {self._last_words()}",
            hint=f"see {self._log}; `{program} --version` has to answer; or set GPUQ_REDIS_URL to a running Redis",
        )

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return " / ".join(line.strip() for line in lines[-3:]) or "it said nothing"

    @staticmethod
    def _end_child(child: subprocess.Popen[bytes]) -> None:
        # Our own child, not waited for yet: its process id cannot have gone to another. It has nothing to save, and
        # would notice a SIGTERM only at its next tick, up to a second later.
        if child.poll() is None:
            child.kill()
            child.wait()

"""The fork server as the daemon's child: started when first needed, started again when it died."""

from __future__ import annotations

import array
import errno
import json
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence

from gpuq.domain import failpoints
from gpuq.linux import descriptor_limit_before

_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
_PYTHON = (sys.executable, "-I", "-S", "-X", "utf8")
# For the interpreter of a relocated Python, and for tests; nothing else of the daemon's environment concerns the
# supervisors.
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", failpoints.VARIABLE)
_SEND_TIMEOUT_S = 10
_CLOSE_TIMEOUT_S = 10.0
_TRIES = 3


def _files() -> tuple[str, str]:
    """The limit that this process was started with, which is what jobs get: a daemon raises its own, and programs that
    use select() go wrong with more than 1024 files."""
    before = descriptor_limit_before()
    return "--files", str(resource.getrlimit(resource.RLIMIT_NOFILE)[0] if before is None else before)


def _private(path: str, flags: int) -> int:
    """What supervisors write there may name what jobs do, like the daemon's own log."""
    return os.open(path, flags, 0o600)


class ForkServer:
    """Thread-safe. `messages_path`: where its stderr goes, appended to; None is nowhere. `groups`: the folder and the
    kinds of its control groups (see cgroup.py); None: none are made. `jobs`: the folder of all attempts of the home."""

    def __init__(
        self,
        messages_path: str | None = None,
        groups: tuple[str, Sequence[str]] | None = None,
        jobs: str | None = None,
    ) -> None:
        self._messages_path = messages_path
        self._options = [] if groups is None else ["--groups", groups[0], "--kinds", ",".join(groups[1])]
        self._options += [] if jobs is None else ["--jobs", jobs]
        self._mutex = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._served = -1

    @property
    def pid(self) -> int | None:
        """None while none runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Before the first launch, so that no job waits for a Python to start. Raises OSError."""
        with self._mutex:
            self._connected()

    def launch(self, run_dir: str, fds: tuple[int, ...]) -> None:
        """Hands over lock, log and report pipe, and as a fourth the job's secrets, if it has some. The caller closes
        its own copies at once.

        Raises OSError when the message was certainly not delivered. A server that dies with the message still
        unread drops the descriptors: the report pipe ends and the lock is free, as for any job that never started.
        """
        message = json.dumps({"dir": os.path.abspath(run_dir)}).encode()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        with self._mutex:
            for left in range(_TRIES, 0, -1):
                try:
                    self._connected().sendmsg([message], ancillary, socket.MSG_NOSIGNAL)
                    return
                except BlockingIOError:
                    raise OSError(errno.EAGAIN, "the fork server takes no launches") from None
                except (BrokenPipeError, ConnectionError):
                    # Nobody holds the other end any more, so nothing of this message has been taken.
                    self._abandon()
                    if left == 1:
                        raise

    def close(self) -> None:
        """Waits until the server has taken all that it was handed; it ends by itself after its last supervisor. May
        be called twice."""
        with self._mutex:
            self._abandon()

    def _connected(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            # Its crew may still hold the socket, but takes nothing from it any more.
            self._abandon()
        if self._socket is not None:
            return self._socket
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_TIMEOUT_S, 0))
            self._spawn(theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours
        return ours

    def _spawn(self, fd: int) -> None:
        served, served_end = os.pipe2(os.O_CLOEXEC)
        try:
            with open(self._messages_path or os.devnull, "ab", opener=_private) as output:
                self._process = subprocess.Popen(
                    [*_PYTHON, _MAIN, "--fd", str(fd), "--served", str(served_end), *_files(), *self._options],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                    cwd="/",
                    pass_fds=(fd, served_end),
                    # A Ctrl-C in the daemon's terminal is not for the jobs.
                    start_new_session=True,
                )
        except BaseException:
            os.close(served)
            raise
        finally:
            os.close(served_end)
        self._served = served

    def _abandon(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is None:
            return
        poll = select.poll()
        poll.register(self._served, 0)
        if not poll.poll(_CLOSE_TIMEOUT_S * 1000):
            # Stuck in a fork or in the kernel. It is our own child, not yet reaped, so the PID is its own.
            process.kill()
        os.close(self._served)
        # With supervisors at work it lives on; whenever it ends, as long as we live, it is reaped.
        threading.Thread(target=process.wait, name="gpuq-fork-server-end", daemon=True).start()

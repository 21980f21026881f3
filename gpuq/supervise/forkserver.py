"""The fork server: pays for a Python start once, so that no job pays for it.

One message a launch on a SOCK_SEQPACKET pair: `{"dir": attempt folder}` with three descriptors, the held lock, the
log and the report pipe. Each message forks one supervisor. The server answers nothing: what became of a launch is
told by the report pipe, the lock and the attempt folder, which also hold when the server dies in the middle.
When the daemon is gone it serves what is still in the socket and ends; its supervisors do not notice.
"""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import sys

from gpuq.supervise import kernel, shim

MESSAGE_BYTES = 16 * 1024
DESCRIPTORS = 3
_FD_BYTES = array.array("i").itemsize


def serve(fd: int) -> None:
    """Returns when the other end is closed. Must run in a process with a single thread."""
    _plain_signals()
    kernel.set_name(b"gpuq-supervisor")
    os.chdir("/")
    connection = socket.socket(fileno=fd)
    # What is there now is shared by every supervisor; a collection would only touch and so copy it.
    gc.collect()
    gc.freeze()
    gc.disable()
    while True:
        data, received, _, _ = connection.recvmsg(
            MESSAGE_BYTES, socket.CMSG_SPACE(DESCRIPTORS * _FD_BYTES), socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return
        _launch(connection, data, _descriptors(received))


def _launch(connection: socket.socket, data: bytes, fds: list[int]) -> None:
    try:
        run_dir = json.loads(data)["dir"]
        if len(fds) != DESCRIPTORS:
            raise ValueError(f"{len(fds)} descriptors instead of {DESCRIPTORS}")
        pid = os.fork()
    except (OSError, ValueError, KeyError, TypeError) as error:
        # The descriptors are closed below, so the daemon reads the end of the report pipe and finds the lock free.
        sys.stderr.write(f"gpuq supervise: a launch failed: {error}\n")
        sys.stderr.flush()
        pid = -1
    if pid == 0:
        _be_supervisor(connection, run_dir, fds)
    for fd in fds:
        os.close(fd)


def _be_supervisor(connection: socket.socket, run_dir: str, fds: list[int]) -> None:
    """Runs in the forked process and never returns."""
    try:
        connection.close()
        lock_fd, log_fd, report_fd = fds
        shim.supervise(run_dir, lock_fd, log_fd, report_fd)
    except Exception:  # noqa: BLE001 - it has been written to the exit record; this is for whoever debugs it
        sys.excepthook(*sys.exc_info())
    finally:
        # Not the interpreter's way out: it would run the server's own clean-up in this process.
        os._exit(0)


def _descriptors(received: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in received:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return list(fds)


def _plain_signals() -> None:
    """Every signal at its default or handled, none ignored as the daemon may have had it: the jobs inherit that.

    The exception is SIGCHLD, so that the kernel reaps ended supervisors; each supervisor handles it itself.
    """
    kernel.block_exactly(())
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        kernel.default_action(signum)
    for signum in (signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        kernel.on_signal(signum, kernel.do_nothing)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)

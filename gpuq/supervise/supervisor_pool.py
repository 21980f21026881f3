"""A member of the fork server's crew: waits for a launch, supervises it to its end, waits for the next."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Sequence

from gpuq.supervise import cgroup, kernel, shim
from gpuq.supervise.crash_record import CrashRecord
from gpuq.supervise.unconfirmed import UnconfirmedEnds

# What a member says to the fork server: its serial number and one of these.
TAKEN, IDLE, OVER = 0, 1, 2
_MESSAGE = struct.Struct("=IB")
MESSAGE_BYTES = _MESSAGE.size

LAUNCH_BYTES = 16 * 1024
# Of a launch; one more for a job that has secrets.
DESCRIPTORS = 3
_MOST_DESCRIPTORS = DESCRIPTORS + 1
_FD_BYTES = array.array("i").itemsize
# Nothing is known to leak; this bounds what nobody knows.
_ATTEMPTS = 200
# A supervisor that nobody needed for so long gives its memory back.
_PARKED_S = 60


def messages(data: bytes) -> Iterator[tuple[int, int]]:
    return _MESSAGE.iter_unpack(data)


class PooledSupervisor:
    """`status_fd`: the pipe to the fork server. `tokens_fd`: one byte for each that may wait for another attempt.
    `will`: what the fork server reads when this process is killed. `places`: where it may make a control group."""

    def __init__(
        self,
        serial: int,
        connection: socket.socket,
        status_fd: int,
        tokens_fd: int,
        will: CrashRecord,
        places: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._serial = serial
        self._places = places
        self._will = will
        self._connection: socket.socket | None = connection
        self._connection_fd = connection.fileno()
        self._status_fd = status_fd
        self._tokens_fd = tokens_fd
        self._poll = select.epoll()
        # Exclusive: one launch wakes one member.
        self._poll.register(connection, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        # No event is asked for, so epoll reports only the hang-up: the fork server is gone.
        self._poll.register(status_fd, 0)
        self._ends = UnconfirmedEnds(self._poll)

    def serve_and_exit(self) -> None:
        """Runs in the forked process and never returns. Only the exit code 0 says that nothing of a job is left."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            os.setsid()
            kernel.become_subreaper()
            # Now, when nobody waits for it, and once for all the attempts that it is going to run.
            group = cgroup.enter(self._places)
            self._serve(group)
            self._ends.close()
            code = 0
            self._clear(group)
        except Exception:  # noqa: BLE001 - the exit record has it; this is for whoever debugs it
            sys.excepthook(*sys.exc_info())
        finally:
            # Not the interpreter's way out: it would run the server's own clean-up in this process.
            os._exit(code)

    def _serve(self, group: cgroup.Cgroup | None) -> None:
        for number in range(_ATTEMPTS):
            taken = self._take(_PARKED_S if number else None)
            if taken is None:
                return
            self._say(TAKEN)
            run_dir, (lock_fd, log_fd, report_fd, *secrets_fd) = taken
            fit = shim.supervise(
                run_dir,
                lock_fd,
                log_fd,
                report_fd,
                self._status_fd,
                self._let_go,
                self._will,
                group,
                self._ends,
                *secrets_fd,
            )
            if not fit or not self._may_park():
                return
            self._say(IDLE)

    def _take(self, timeout_s: int | None) -> tuple[str, list[int]] | None:
        """The next launch; None when there is nothing to wait for any more."""
        while self._connection is not None:
            due_s = self._ends.wait_s()
            ready = [fd for fd, _ in self._poll.poll(timeout_s if due_s is None else due_s)]
            if self._status_fd in ready:
                self._let_go()
                return None
            if self._connection_fd not in ready:
                if not ready and due_s is None:
                    return None
                self._ends.look()
                continue
            try:
                data, received, _, _ = self._connection.recvmsg(
                    LAUNCH_BYTES,
                    socket.CMSG_SPACE(_MOST_DESCRIPTORS * _FD_BYTES),
                    socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT,
                )
            except BlockingIOError:
                # Another one was faster.
                continue
            if not data:
                self._say(OVER)
                return None
            fds = _descriptors(received)
            if DESCRIPTORS <= len(fds) <= _MOST_DESCRIPTORS:
                return json.loads(data)["dir"], fds
            for fd in fds:
                os.close(fd)
        return None

    def _let_go(self) -> None:
        """Without a fork server nobody would be there for a launch that is still to come."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _clear(self, group: cgroup.Cgroup | None) -> None:
        """Without a fork server nobody else removes the group."""
        if group is not None and self._connection is None:
            with contextlib.suppress(OSError):
                if not group.left:
                    group.leave()
                group.remove()

    def _may_park(self) -> bool:
        try:
            return bool(os.read(self._tokens_fd, 1))
        except BlockingIOError:
            return False

    def _say(self, what: int) -> None:
        try:
            os.write(self._status_fd, _MESSAGE.pack(self._serial, what))
        except BrokenPipeError:
            self._let_go()


def _descriptors(received: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in received:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return list(fds)

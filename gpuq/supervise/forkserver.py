"""The fork server: pays for a Python start once, so that no job pays for it.

The daemon holds one end of a SOCK_SEQPACKET pair, a small crew of processes the other. One message a launch,
`{"dir": attempt folder}`, with three descriptors: the held lock, the log and the report pipe. An idle member takes it
and is that attempt's supervisor until its end; then it waits for another, or leaves when enough others wait. This
process only sees to it that at least one member is idle. Taking a supervisor up again instead of forking one a job
halves the cost of a launch: a fresh fork has to copy every page that Python looks at.

Nobody answers: what became of a launch is told by the report pipe, the lock and the attempt folder, which also hold
when any of these processes dies in the middle. When the daemon is gone, what is still in the socket is served, and
the idle ones end. When this process is gone, the busy ones let go of the socket, so that no launch waits in it
unseen. Supervisors at work do not notice either.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys

from gpuq.supervise import crew, kernel

# How many supervisors may wait for another attempt, besides a fresh one.
PARKED = 2


def serve(fd: int) -> None:
    """Returns when the other end is closed. Must run in a process with a single thread."""
    _plain_signals()
    kernel.set_name(b"gpuq-supervisor")
    os.chdir("/")
    # It came through an exec; no job may have it.
    os.set_inheritable(fd, False)
    server = _Server(socket.socket(fileno=fd))
    # What is there now is shared by the whole crew; a collection would only touch and so copy it.
    gc.collect()
    gc.freeze()
    gc.disable()
    while not server.over:
        server.turn()


class _Server:
    """Members are known by a serial number, because a PID is given again once its process is reaped."""

    def __init__(self, connection: socket.socket) -> None:
        self.over = False
        self._connection = connection
        self._serial = 0
        self._serials: dict[int, int] = {}
        self._idle: set[int] = set()
        self._parked: set[int] = set()
        self._status, self._status_end = os.pipe2(os.O_CLOEXEC)
        self._tokens, self._tokens_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.write(self._tokens_end, bytes(PARKED))
        self._wake, wake_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._status, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def turn(self) -> None:
        if not self._idle:
            self._add_member()
        ready = {fd for fd, _ in self._poll.poll()}
        if self._status in ready:
            self._hear()
        if self._wake in ready:
            os.read(self._wake, 4096)
            self._reap()

    def _add_member(self) -> None:
        self._serial += 1
        try:
            pid = os.fork()
        except OSError as error:
            # No processes or no memory. The launch waits in the socket, and the daemon sees that it is not reported.
            sys.stderr.write(f"gpuq supervise: cannot fork: {error}\n")
            sys.stderr.flush()
            self._poll.poll(1000)
            return
        if pid == 0:
            os.close(self._status)
            os.close(self._wake)
            crew.Member(self._serial, self._connection, self._status_end, self._tokens).serve_and_exit()
        self._serials[pid] = self._serial
        self._idle.add(self._serial)

    def _hear(self) -> None:
        for serial, said in crew.messages(os.read(self._status, 64 * crew.MESSAGE_BYTES)):
            if said == crew.OVER:
                self.over = True
            elif said == crew.TAKEN:
                self._idle.discard(serial)
                self._unpark(serial)
            elif serial in self._serials.values():
                self._idle.add(serial)
                self._parked.add(serial)

    def _unpark(self, serial: int) -> None:
        if serial in self._parked:
            self._parked.discard(serial)
            os.write(self._tokens_end, b"\0")

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            serial = self._serials.pop(pid)
            self._idle.discard(serial)
            self._unpark(serial)


def _plain_signals() -> None:
    """Every signal at its default or handled, none ignored as the daemon may have had it: the jobs inherit that."""
    kernel.block_exactly(())
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        kernel.default_action(signum)
    for signum in (signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        kernel.on_signal(signum, kernel.do_nothing)

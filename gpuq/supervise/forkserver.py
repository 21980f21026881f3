"""The fork server: pays for a Python start once, so that no job pays for it.

The daemon holds one end of a SOCK_SEQPACKET pair, a small crew of processes the other. One message a launch,
`{"dir": folder of the records}`, with three descriptors: the held lock, the log and the report pipe. An idle member
takes it and is that attempt's supervisor until its end; then it waits for another, or leaves when enough others wait.
This process only sees to it that a few members are idle. Taking a supervisor up again instead of forking one a job
halves the cost of a launch: a fresh fork has to copy every page that Python looks at. And a fresh one enters its
control group first, for which the kernel makes it wait ten milliseconds or more: meanwhile another takes the launch.

Nobody answers: what became of a launch is told by the report pipe, the lock and the records, which also hold
when any of these processes dies in the middle. When the daemon is gone, what is still in the socket is served, and
the idle ones end. When this process is gone, the busy ones let go of the socket, so that no launch waits in it
unseen. Supervisors at work do not notice either.

This process outlives the daemon as long as a supervisor is at work: it is the heir of each (see crash_record.py).
A dead supervisor stays a zombie until its last will is executed, so that others see that its end is not settled. The
job of a supervisor that was killed, which becomes a child of this process with all that descends from it, is killed at
once: nothing runs unsupervised. A supervisor that was stopped (SIGSTOP), by its own job perhaps, is continued: the
kernel tells this process, its parent, so that nobody has to look.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence

from gpuq.linux import look
from gpuq.supervise import cgroup, cgroup_folders, kernel, processes, supervisor_pool
from gpuq.supervise.crash_record import CrashRecord, exit_code_of, recover
from gpuq.supervise.hunt import children, hunt
from gpuq.supervise.last_word import AWAY_S
from gpuq.supervise.orphans import Orphans

# How many supervisors may wait for another attempt, besides fresh ones.
PARKED = 16
# At least so many are idle, parked or fresh.
READY = 2
_DISK_AGAIN_MS = 1000
_AGAIN_MAX_MS = 15_000
_GROUPS_AGAIN_MS = 10
# A supervisor stands still for so long before it is continued: a job that stops it again and again costs little.
_CONTINUE_AFTER_S = 0.25
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def serve(fd: int, served_fd: int, groups: str = "", kinds: Sequence[str] = cgroup_folders.KINDS) -> None:
    """Returns when the other end is closed and no supervisor is left. `served_fd` is closed when the other end is and
    all that it sent was taken. `groups`: the name of the folder for control groups of these kinds; empty: none are
    made. Must run in a process with a single thread."""
    _plain_signals()
    kernel.set_name(kernel.NAME)
    os.chdir("/")
    # It came through an exec; no job may have it.
    os.set_inheritable(fd, False)
    os.set_inheritable(served_fd, False)
    kernel.become_subreaper()
    places = cgroup_folders.available(groups, kinds) if groups else []
    server = _Server(socket.socket(fileno=fd), served_fd, places)
    # What is there now is shared by the whole crew; a collection would only touch and so copy it.
    gc.collect()
    gc.freeze()
    gc.disable()
    while not server.finished:
        server.turn()
    cgroup_folders.remove(places)


class _Server:
    """Members are known by a serial number, because a PID is given again once its process is reaped."""

    def __init__(self, connection: socket.socket, served_fd: int, places: Sequence[tuple[str, str]] = ()) -> None:
        self._places = places
        # Control groups of dead supervisors that something may be left in.
        self._groups: list[cgroup.Cgroup] = []
        self._over = False
        self._connection = connection
        self._served_fd = served_fd
        self._serial = 0
        self._serials: dict[int, int] = {}
        self._wills: dict[int, CrashRecord] = {}
        self._orphans = Orphans()
        # Supervisors whose will is to be executed, and when each was found dead.
        self._dead: dict[int, float] = {}
        self._again_ms = 0
        self._orphaned = False
        # Members that stand still, and when they are continued (on the clock since boot).
        self._stopped: dict[int, float] = {}
        self._stops_told: set[int] = set()
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

    @property
    def finished(self) -> bool:
        return self._over and not self._serials and not self._orphaned and not self._groups

    @property
    def _few_are_idle(self) -> bool:
        return len(self._idle) < READY and not self._over

    def turn(self) -> None:
        if self._few_are_idle:
            self._add_member()
        pause = _GROUPS_AGAIN_MS if self._groups else self._again_ms or None
        if self._few_are_idle:
            # One a turn, so that what happens meanwhile is heard.
            pause = 0
        ready = {fd for fd, _ in self._poll.poll(self._continue_stopped(pause))}
        if self._wake in ready:
            os.read(self._wake, 4096)
        if self._wake in ready or self._dead or self._groups:
            self._reap()
        if self._status in ready:
            self._hear()

    def _add_member(self) -> None:
        self._serial += 1
        will = CrashRecord()
        try:
            pid = os.fork()
        except OSError as error:
            # No processes or no memory. The launch waits in the socket, and the daemon sees that it is not reported.
            sys.stderr.write(f"gpuq supervise: cannot fork: {error}\n")
            sys.stderr.flush()
            will.close()
            self._poll.poll(1000)
            return
        if pid == 0:
            os.close(self._status)
            os.close(self._wake)
            os.close(self._served_fd)
            supervisor_pool.PooledSupervisor(
                self._serial, self._connection, self._status_end, self._tokens, will, self._places
            ).serve_and_exit()
        self._serials[pid] = self._serial
        self._wills[pid] = will
        self._idle.add(self._serial)

    def _hear(self) -> None:
        for serial, said in supervisor_pool.messages(os.read(self._status, 64 * supervisor_pool.MESSAGE_BYTES)):
            if said == supervisor_pool.OVER:
                self._retire()
                return
            if said == supervisor_pool.TAKEN:
                self._idle.discard(serial)
                self._unpark(serial)
            elif serial in self._serials.values():
                self._idle.add(serial)
                self._parked.add(serial)

    def _unpark(self, serial: int) -> None:
        if serial in self._parked:
            self._parked.discard(serial)
            os.write(self._tokens_end, b"\0")

    def _retire(self) -> None:
        """To the crew this process is gone; it stays for those at work, as their heir only."""
        self._over = True
        self._poll.unregister(self._status)
        os.close(self._status)
        os.close(self._served_fd)
        self._connection.close()

    def _reap(self) -> None:
        self._collect()
        self._see_stopped()
        self._clear_groups()
        if self._orphaned:
            # `_collect` notes how they end. Before any will is executed: a job may end by itself until it is killed.
            hunt(self._collect, self._serials)
        self._settle()
        if self._orphaned:
            self._orphaned = self._has_orphans()

    def _see_stopped(self) -> None:
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)
            except ChildProcessError:
                return
            if seen is None:
                return
            # What a dead supervisor left is stopped on purpose, by `hunt`.
            if seen.si_pid in self._serials:
                self._stopped.setdefault(seen.si_pid, kernel.since_boot() + _CONTINUE_AFTER_S)

    def _continue_stopped(self, pause: int | None) -> int | None:
        """How many milliseconds, at most `pause`, there are until one is to be continued; those whose time has come
        are."""
        if not self._stopped:
            return pause
        now = kernel.since_boot()
        for pid in [pid for pid, at in self._stopped.items() if at <= now]:
            del self._stopped[pid]
            process = look(pid) if pid in self._serials else None
            if process is not None and process.stopped:
                # Our child, not reaped yet: the number is nobody else's.
                os.kill(pid, signal.SIGCONT)
                self._tell_of_stop(pid)
        left = [math.ceil((at - now) * 1000) for at in self._stopped.values()]
        return min([*left, *([] if pause is None else [pause])], default=None)

    def _tell_of_stop(self, pid: int) -> None:
        """Once of each, for a job may do it all the time."""
        serial = self._serials[pid]
        if serial not in self._stops_told:
            self._stops_told.add(serial)
            sys.stderr.write(f"gpuq supervise: supervisor {pid} was stopped; it is continued\n")
            sys.stderr.flush()

    def _clear_groups(self) -> None:
        """Ends what dead supervisors left in their groups, and removes these."""
        left = [group for group in self._groups if not group.remove()]
        for group in left:
            with contextlib.suppress(OSError):
                group.kill()
        self._groups = left

    def _has_orphans(self) -> bool:
        return any(
            process.parent == os.getpid() and process.pid not in self._serials and process.living
            for process in processes.everything().values()
        )

    def _collect(self) -> None:
        """Reaps what has ended, apart from supervisors, which stay zombies until their last will is executed."""
        while (seen := self._next_ended()) is not None:
            serial = self._serials.get(seen.si_pid)
            if serial is None:
                self._orphans.note(seen)
                os.waitpid(seen.si_pid, 0)
                continue
            # Killed or failed, it may have left its job behind, whether or not the disk takes its will now.
            self._orphaned = self._orphaned or exit_code_of(seen) != 0
            # The PID is its own until it is reaped.
            self._groups += cgroup.of_supervisor(self._places, seen.si_pid, processes.start_of(seen.si_pid))
            self._idle.discard(serial)
            if not self._over:
                self._unpark(serial)
            if exit_code_of(seen) == 0 and self._wills[seen.si_pid].read() is None:
                self._bury(seen.si_pid)
            else:
                self._dead[seen.si_pid] = kernel.since_boot()

    def _next_ended(self) -> os.waitid_result | None:
        """A child that has ended and is in no book yet. Of all children the kernel shows the same one again and again,
        so beside zombies that have to wait each is asked for by its number."""
        with contextlib.suppress(ChildProcessError):
            if not self._dead:
                return os.waitid(os.P_ALL, 0, _LOOK)
            for pid in children() or list(self._serials):
                if pid not in self._dead and (seen := os.waitid(os.P_PID, pid, _LOOK)) is not None:
                    return seen
        return None

    def _settle(self) -> None:
        """Executes the wills of dead supervisors and reaps these. One that cannot be executed now, with a disk that is
        full or a home that is away, keeps no other waiting."""
        self._again_ms = min(2 * self._again_ms, _AGAIN_MAX_MS) if self._again_ms else _DISK_AGAIN_MS
        for pid, died_at in list(self._dead.items()):
            if not self._inherit(pid) and kernel.since_boot() - died_at < AWAY_S:
                continue
            del self._dead[pid]
            self._bury(pid)
        if not self._dead:
            self._again_ms = 0

    def _bury(self, supervisor: int) -> None:
        self._wills.pop(supervisor).close()
        self._stops_told.discard(self._serials.pop(supervisor))
        os.waitpid(supervisor, 0)

    def _inherit(self, supervisor: int) -> bool:
        """False while the record of its end cannot be written."""
        last = self._wills[supervisor].read()
        return last is None or recover(last, self._orphans.last_end_of(last.get("pid"), last.get("pid_start")))


def _plain_signals() -> None:
    """Every signal at its default or handled, none ignored as the daemon may have had it: the jobs inherit that."""
    kernel.block_exactly(())
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        kernel.default_action(signum)
    for signum in (signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        kernel.on_signal(signum, kernel.do_nothing)

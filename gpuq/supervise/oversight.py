"""Looking at supervisors from outside, continuing those that stand still, and ending an attempt in place of one.

Nothing of this costs anything while nobody looks: a look reads what /proc has of one process, and a supervisor is asked
whether it listens by a nudge in its control FIFO, which it reads at once if it does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
import time

from gpuq.domain.job import Launched
from gpuq.domain.oversight import Family, Sight, SupervisorState
from gpuq.linux import Process, look
from gpuq.supervise import bundle, cgroup, cgroup_folders, family, kernel, processes, stop
from gpuq.supervise.server_process import ForkServer
from gpuq.supervise.stand_in import StandIn

_PLACES_S = 60.0


class ProcOversight:
    """The `Oversight` of the ports. `groups`: the name of the folder of this home's control groups, None without. For
    one thread, apart from `family`, and whoever runs as the user of the supervisors, or as root."""

    def __init__(self, server: ForkServer, groups: str | None) -> None:
        self._server = server
        self._groups = groups
        self._stand_ins: dict[str, StandIn] = {}
        self._places: list[tuple[str, str]] = []
        self._places_until = float("-inf")

    def is_well(self, known: Launched) -> bool:
        """See the port."""
        supervisor, main = look(known.supervisor_pid), look(known.pid)
        still = supervisor is not None and supervisor.start == known.supervisor_start and supervisor.stopped
        return not still and not _is_zombie(main, known.pid_start)

    def look(self, run_dir: str, known: Launched | None) -> Sight:
        """See the port. Raises OSError when the records cannot be read."""
        records = bundle.records_of(run_dir)
        supervisor = _known_or_found(records, known)
        if supervisor is None:
            state = SupervisorState.GONE if known is not None else SupervisorState.UNSEEN
            return Sight(state, taken_over=bundle.taken_over(records))
        state = SupervisorState.STANDS_STILL if supervisor.stopped else SupervisorState.RUNS
        if not supervisor.living:
            state = SupervisorState.GONE
        unread = _unread(records)
        if not unread and state is not SupervisorState.GONE:
            with contextlib.suppress(OSError):
                stop.nudge(records)
        return Sight(
            state,
            supervisor.pid,
            supervisor.start,
            unread=unread,
            main_ended=known is not None and _is_zombie(look(known.pid), known.pid_start),
            taken_over=bundle.taken_over(records),
        )

    def family(self, known: Launched) -> Family | None:
        """See the port."""
        if self._is_grouped(known):
            return Family([], grouped=True)
        seen = family.seen_of(known)
        return None if seen is None else Family(seen)

    def resume(self, sight: Sight) -> None:
        """See the port."""
        supervisor = _of(sight)
        if supervisor is None:
            return
        self._resume_parent(supervisor)
        for group in self._groups_of(supervisor):
            with contextlib.suppress(OSError):
                group.thaw()
        processes.send(supervisor, signal.SIGCONT)

    def resume_fork_server(self) -> bool:
        """See the port."""
        return self._server.pid is not None and _resume_server(self._server.pid)

    def take_over(
        self, run_dir: str, token: str, known: Launched | None, *, reason: str | None, grace_s: float
    ) -> float | None:
        """See the port."""
        stand_in = self._stand_ins.get(token)
        if stand_in is None:
            records = bundle.records_of(run_dir)
            supervisor = _known_or_found(records, known)
            if supervisor is None or not supervisor.living:
                return None
            groups = list(self._groups_of(supervisor))
            stand_in = StandIn(records, token, supervisor, known, groups, reason, grace_s)
            self._stand_ins[token] = stand_in
        self._resume_parent(stand_in.supervisor)
        again_s = stand_in.step(grace_s)
        if again_s is None:
            del self._stand_ins[token]
        return again_s

    def _resume_parent(self, supervisor: Process) -> None:
        """A fork server that stands still collects nobody; it may be one of an earlier daemon."""
        now = look(supervisor.pid)
        if now is not None and now.start == supervisor.start:
            _resume_server(now.parent)

    def _is_grouped(self, known: Launched) -> bool:
        key = (known.supervisor_pid, known.supervisor_start)
        if self._groups is None:
            return False
        if any(cgroup.of_supervisor(self._places, *key)):
            return True
        # A fork server that was started since may have made its folder elsewhere.
        now = time.monotonic()
        if now < self._places_until:
            return False
        self._places_until = now + _PLACES_S
        with contextlib.suppress(OSError):
            self._places = cgroup_folders.found(self._groups)
        return any(cgroup.of_supervisor(self._places, *key))

    def _groups_of(self, supervisor: Process) -> list[cgroup.Cgroup]:
        if self._groups is None:
            return []
        try:
            places = cgroup_folders.found(self._groups)
        except OSError:
            return []
        return list(cgroup.of_supervisor(places, supervisor.pid, supervisor.start))


def _resume_server(pid: int) -> bool:
    """Continues a fork server of ours that was stopped; whether it was."""
    server = look(pid)
    if server is None or not server.stopped:
        return False
    if processes.name_of(pid) != kernel.NAME or processes.user_of(server) != os.geteuid():
        return False
    return processes.send(server, signal.SIGCONT)


def _of(sight: Sight) -> Process | None:
    process = None if sight.pid is None else look(sight.pid)
    return process if process is not None and process.start == sight.start else None


def _is_zombie(process: Process | None, start: int) -> bool:
    return process is not None and process.start == start and not process.living


def _known_or_found(records: str, known: Launched | None) -> Process | None:
    """By what it reported; one that has reported nothing by the lock, which only it has open."""
    if known is not None:
        process = look(known.supervisor_pid)
        return process if process is not None and process.start == known.supervisor_start else None
    try:
        lock = os.stat(os.path.join(records, bundle.LOCK), follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    holders = {
        process.pid: process
        for process in processes.everything().values()
        if process.living
        and processes.name_of(process.pid) == kernel.NAME
        and processes.user_of(process) == os.geteuid()
        and _has_open(process.pid, (lock.st_dev, lock.st_ino))
    }
    # A child that has not become the job's program yet has what its parent has.
    return next((process for process in holders.values() if process.parent not in holders), None)


def _has_open(pid: int, file: tuple[int, int]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                seen = os.stat(f"{folder}/{name}")
                if (seen.st_dev, seen.st_ino) == file:
                    return True
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return False


def _unread(records: str) -> bool:
    """Whether something lies in the control FIFO."""
    path = os.path.join(records, bundle.CONTROL)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    finally:
        os.close(fd)
    return bool(count)

"""A control group for each supervisor and its job, where the machine gives one: what is in it can be ended for certain.

A supervisor enters its group while it waits for a launch. So its jobs are born there and nothing is moved when one
starts, which takes the kernel ten milliseconds; it leaves the group when it has to kill all that is in it. The group is
called `PID-START` after the supervisor's process, in a folder `gpuq-…` of this home's below the group that the fork
server itself is in. A process in it belongs to the attempt which that supervisor runs, and once the supervisor is dead,
everything in its group is left over from a dead attempt.

Two kinds are known: groups of version 2, which have `cgroup.kill` since Linux 5.14 and can be frozen before, and the
freezer of version 1. They belong to whom the daemon runs as: a job of another user cannot leave its group.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence

from gpuq.linux import look
from gpuq.supervise import processes
from gpuq.supervise.cgroup_folders import FREEZER, KINDS, V2, available, folder_name, found, make, remove, subfolders

_MEANS = {V2: "control groups (version 2)", FREEZER: "control groups (the freezer of version 1)"}
_PAUSE_S = 0.005
_FREEZE_S = 1.0


class Cgroup:
    """One group: `path` is its folder, `left` says that the process which made it has left it. Its methods raise
    OSError when the kernel refuses."""

    __slots__ = ("kind", "left", "parent", "path")

    def __init__(self, kind: str, parent: str, name: str) -> None:
        self.kind = kind
        self.parent = parent
        self.path = os.path.join(parent, name)
        self.left = False

    def enter(self) -> None:
        """Moves this process, which must have a single thread, into the group."""
        _move_into(self.kind, self.path)

    def leave(self) -> None:
        """Moves this process into the folder's own group, so that `kill` does not reach it."""
        _move_into(self.kind, self.parent)
        self.left = True

    def members(self) -> list[int]:
        """PIDs, without zombies and without those that this PID namespace does not show."""
        try:
            with open(os.path.join(self.path, "cgroup.procs"), "rb") as file:
                return [pid for pid in map(int, file.read().split()) if pid > 0]
        except OSError as error:
            # Removed before, or between the two calls.
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return []
            raise

    def kill(self) -> None:
        """SIGKILL to all that is in it; nothing forks itself out of its way. This process must not be in it."""
        if self.kind == V2:
            try:
                _write(os.path.join(self.path, "cgroup.kill"), b"1")
                return
            except FileNotFoundError:
                pass
        self._kill_frozen()

    def thaw(self) -> None:
        """Lets go on what was frozen: a group of version 2 is its user's, and so is that switch."""
        name, go_on = ("cgroup.freeze", b"0") if self.kind == V2 else ("freezer.state", b"THAWED")
        with contextlib.suppress(FileNotFoundError):
            _write(os.path.join(self.path, name), go_on)

    def remove(self) -> bool:
        """False while there is something in it."""
        try:
            os.rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _kill_frozen(self) -> None:
        name, freeze, thaw = (
            ("cgroup.freeze", b"1", b"0") if self.kind == V2 else ("freezer.state", b"FROZEN", b"THAWED")
        )
        switch = os.path.join(self.path, name)
        try:
            give_up = time.monotonic() + _FREEZE_S
            _write(switch, freeze)
            while not self._frozen() and time.monotonic() < give_up:
                time.sleep(_PAUSE_S / 5)
            for pid in self.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        finally:
            # Only then do they die of it.
            with contextlib.suppress(FileNotFoundError):
                _write(switch, thaw)

    def _frozen(self) -> bool:
        name, sign = ("cgroup.events", b"frozen 1") if self.kind == V2 else ("freezer.state", b"FROZEN")
        with open(os.path.join(self.path, name), "rb") as file:
            return sign in file.read()


def enter(places: Sequence[tuple[str, str]]) -> Cgroup | None:
    """Moves this process into a new group of its own, in the first of the places where that can be done."""
    me = os.getpid()
    name = f"{me}-{processes.start_of(me)}"
    for kind, parent in places:
        group = Cgroup(kind, parent, name)
        try:
            make(parent)
            make(group.path)
            group.enter()
        except OSError:
            group.remove()
            continue
        return group
    return None


def end_all_in(group: Cgroup | None) -> None:
    """SIGKILL to all in the supervisor's own group but the supervisor, which leaves it before. Does nothing without a
    group, or when the kernel refuses: then the hunt for descendants has to do."""
    if group is None:
        return
    with contextlib.suppress(OSError):
        if not group.left:
            group.leave()
        group.kill()


def of_supervisor(places: Sequence[tuple[str, str]], pid: int, start: int) -> Iterator[Cgroup]:
    """The groups, at most one of each kind, that this supervisor may have made."""
    for kind, parent in places:
        group = Cgroup(kind, parent, f"{pid}-{start}")
        if os.path.isdir(group.path):
            yield group


def members_left_by(folder: str, pid: int, start: int) -> list[int]:
    """PIDs in the groups, of whatever kind, that a supervisor of this home has made which is dead now."""
    groups = [Cgroup(kind, parent, f"{pid}-{start}") for kind, parent in found(folder)]
    return [member for group in groups for member in group.members()]


def left_over(folder: str) -> list[Cgroup]:
    """The groups of dead supervisors of this home, wherever its fork servers were."""
    groups = []
    for kind, parent in found(folder):
        for name in subfolders(parent):
            pid, _, start = name.partition("-")
            if not pid.isdecimal() or not start.isdecimal():
                continue
            supervisor = look(int(pid))
            if supervisor is None or supervisor.start != int(start) or not supervisor.living:
                groups.append(Cgroup(kind, parent, name))
    return groups


def end_left_over(folder: str, *, timeout_s: float = 10.0) -> int:
    """Kills what dead supervisors left in their groups, and removes these. Returns how many processes there were.

    Raises TimeoutError, naming the PIDs, when some are still there after `timeout_s`: stuck in the kernel.
    """
    seen: set[int] = set()
    give_up = time.monotonic() + timeout_s
    while groups := [group for group in left_over(folder) if not group.remove()]:
        members = [pid for group in groups for pid in group.members()]
        seen.update(members)
        if time.monotonic() > give_up:
            pids = ", ".join(map(str, members))
            raise TimeoutError(f"processes of a dead attempt cannot be ended: {pids or 'in ' + groups[0].path}")
        for group in groups:
            with contextlib.suppress(OSError):
                group.kill()
        time.sleep(_PAUSE_S)
    return len(seen)


def usable(kinds: Sequence[str] = KINDS) -> str | None:
    """The kind of group that a supervisor started by this process would have, found out by making one; None: none."""
    folder = f"gpuq-try-{os.getpid()}"
    places = available(folder, kinds)
    try:
        return _kind_entered(places) if places else None
    finally:
        remove(places)


def means(home: str) -> str | None:
    """For people: what kind the groups of this home's supervisors are, or would be of those that this process starts;
    None: there are none."""
    try:
        made = found(folder_name(home))
    except OSError:
        made = []
    kind = made[0][0] if made else usable()
    return None if kind is None else _MEANS[kind]


def _kind_entered(places: Sequence[tuple[str, str]]) -> str | None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            group = enter(places)
            if group is not None:
                group.leave()
                group.remove()
                os.write(write_end, group.kind.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        return os.read(read_end, 64).decode() or None
    finally:
        os.close(read_end)
        os.waitpid(pid, 0)


def _move_into(kind: str, folder: str) -> None:
    """Moving a process with all its threads has to wait until no processor is in the middle of a fork. Version 1 can
    move a thread by itself, without that; ours has no other."""
    _write(os.path.join(folder, "cgroup.procs" if kind == V2 else "tasks"), b"0")


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)

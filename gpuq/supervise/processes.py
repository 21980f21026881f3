"""Processes as /proc shows them. A PID names nothing by itself: it is always paired with its start time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from gpuq.linux import Process, look

# Among the fields of /proc/PID/stat that follow the name.
_EXIT_CODE = 49


def name_of(pid: int) -> bytes:
    """Empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def start_of(pid: int) -> int:
    """Raises ProcessLookupError when there is no such process."""
    process = look(pid)
    if process is None:
        raise ProcessLookupError(f"no process {pid}")
    return process.start


def everything() -> dict[int, Process]:
    """All processes that this user may see, by PID, zombies included."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def descendants(roots: Iterable[int], table: dict[int, Process]) -> list[Process]:
    """All living descendants of these PIDs, parents before children; the roots themselves are left out.

    A zombie has none: its children have already been given to the next subreaper.
    """
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    seen = set(roots)
    line = list(seen)
    for parent in line:
        for child in children.get(parent, ()):
            if child.pid not in seen and child.living:
                seen.add(child.pid)
                line.append(child.pid)
                found.append(child)
    return found


def send(process: Process, signum: int) -> bool:
    """Signals exactly this process. False when it is gone; True when it was reached or may not be (it lives)."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        # A kernel or a sandbox without pidfds: look at the start time as late as possible.
        return _send_by_number(process, signum)
    try:
        # The descriptor names one process for ever; the start time says that it is the one that was meant.
        now = look(process.pid)
        if now is None or now.start != process.start or not now.living:
            return False
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    finally:
        os.close(fd)
    return True


def _send_by_number(process: Process, signum: int) -> bool:
    now = look(process.pid)
    if now is None or now.start != process.start or not now.living:
        return False
    try:
        os.kill(process.pid, signum)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def catches(process: Process, signum: int) -> bool:
    """Whether the program has a handler for this signal. False when that cannot be read."""
    try:
        with open(f"/proc/{process.pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return False


def end_of_zombie(pid: int, start: int) -> int | None:
    """How a process ended that nobody has reaped yet, as os.waitstatus_to_exitcode; None for any other, and where the
    kernel does not say."""
    process = look(pid)
    if process is None or process.start != start or process.living:
        return None
    try:
        # Those whom it does not tell an end read 0. What it would refuse them is what a zombie has not: a directory.
        os.readlink(f"/proc/{pid}/cwd")
    except FileNotFoundError:
        pass
    except (ProcessLookupError, PermissionError):
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return os.waitstatus_to_exitcode(int(fields[_EXIT_CODE]))


def carries(process: Process, entry: bytes) -> bool:
    """Whether `NAME=value` stands in the environment that the process was started with."""
    try:
        with open(f"/proc/{process.pid}/environ", "rb") as file:
            return entry in file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def user_of(process: Process) -> int | None:
    """The real user of the process, which a set-user-id program does not change. None when it is gone."""
    try:
        with open(f"/proc/{process.pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return None

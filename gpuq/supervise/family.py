"""What descends from a supervisor, seen from outside: for what is left of its job should it die.

The kernel lists the children of a thread, so that a look reads what belongs to the job and nothing else.
"""

from __future__ import annotations

import os

from gpuq.domain.job import Launched
from gpuq.linux import look
from gpuq.supervise import processes

# A look is bounded, and so is what is stored of it.
MOST = 64
_READ = 1 << 16


def seen_of(known: Launched) -> list[tuple[int, int]] | None:
    """PID and start time of what lives below the supervisor, without the job's main process; the nearest first, because
    who has lost its parent is a child of the supervisor. At most 64 of them. None when the supervisor does not live, or
    died meanwhile: what it had is anywhere then."""
    found = _below(known)
    supervisor = look(known.supervisor_pid)
    alive = supervisor is not None and supervisor.start == known.supervisor_start and supervisor.living
    return found if alive else None


def _below(known: Launched) -> list[tuple[int, int]]:
    found: dict[tuple[int, int], None] = {}
    line = [known.supervisor_pid]
    for parent in line:
        for pid in _children(parent):
            process = look(pid)
            # Its number may have been given again since it was listed.
            if process is None or not process.living or process.parent != parent:
                continue
            line.append(pid)
            if process.key != (known.pid, known.pid_start):
                found[process.key] = None
                if len(found) == MOST:
                    return list(found)
    return list(found)


def _children(pid: int) -> list[int]:
    """Of all its threads; without CONFIG_PROC_CHILDREN from a list of everything."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            fd = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
            try:
                found += map(int, os.read(fd, _READ).rpartition(b" ")[0].split())
            finally:
                os.close(fd)
    except FileNotFoundError:
        if look(pid) is not None and not os.path.exists("/proc/thread-self/children"):
            return [child.pid for child in processes.everything().values() if child.parent == pid]
    except (ProcessLookupError, PermissionError):
        pass
    return found

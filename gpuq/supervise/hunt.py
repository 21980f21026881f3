"""Ending descendants that fork faster than a list of all processes is read, where no control group holds them.

Each is stopped first (SIGSTOP), until a whole look finds none that runs: what is stopped neither forks nor sees the
others die. Then all are killed. Whoever loses its parent becomes a child of the subreaper, and the list of one's own
children is read in microseconds: a process that forks a child and ends, again and again, is caught there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection

from gpuq.linux import Process
from gpuq.supervise import processes

_AT_MOST_S = 0.5
_RUNS = ("R", "S")
# Looks at the children between two looks at all processes.
_QUICK_LOOKS = 50


def hunt(reap: Callable[[], object], spare: Collection[int] = ()) -> None:
    """Kills every descendant of this process, a subreaper with one thread, except the PIDs to `spare` and what
    descends from those. What still forked when the time of one hunt was over is left to the next. `reap` collects
    children that have ended: a list that is full of zombies is long."""
    give_up = time.monotonic() + _AT_MOST_S
    caught: set[int] = set()
    while True:
        _catch_children(caught, spare, reap)
        found = _descendants(spare)
        running = [process for process in found if process.state in _RUNS]
        for process in running:
            processes.send(process, signal.SIGSTOP)
        if not running or time.monotonic() > give_up:
            break
    for process in _descendants(spare) if running else found:
        processes.send(process, signal.SIGKILL)
    reap()


def _catch_children(caught: set[int], spare: Collection[int], reap: Callable[[], object]) -> None:
    """Until a look finds no new one, or for a while."""
    for _ in range(_QUICK_LOOKS):
        fresh = [pid for pid in children() if pid not in caught and pid not in spare]
        if not fresh:
            return
        for pid in fresh:
            # Our own child, not reaped yet: the number is nobody else's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        caught.update(fresh)
        reap()


def children() -> list[int]:
    """Of this process, zombies included; none where the kernel does not list them (CONFIG_PROC_CHILDREN)."""
    me = os.getpid()
    try:
        fd = os.open(f"/proc/{me}/task/{me}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        # Each number has a blank after it. What is cut off is read with the next look.
        return [int(word) for word in os.read(fd, 1 << 16).rpartition(b" ")[0].split()]
    finally:
        os.close(fd)


def _descendants(spare: Collection[int]) -> list[Process]:
    table = {pid: process for pid, process in processes.everything().items() if pid not in spare}
    return processes.descendants([os.getpid()], table)

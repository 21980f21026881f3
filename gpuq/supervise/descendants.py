"""The job's processes as its supervisor signals them: the main one, and everything that descends from it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from gpuq.linux import Process
from gpuq.supervise import processes
from gpuq.supervise.hunt import hunt

# New processes can appear while the others are being signalled.
_TERMINATE_ROUNDS = 3


class Family:
    """`main` is the PID of the job's main process, which is the number of its process group too. Only the subreaper
    above it may use this: whoever loses its parent becomes that one's child, so that nobody gets out of sight."""

    def __init__(self, main: int) -> None:
        self._main = main
        self._terminated: set[tuple[int, int]] = set()

    def notify(self, signum: int) -> None:
        """To the outermost processes that handle the signal, so that a shell around the program does not die of
        it and workers that inherited the handler do not run it a second time; to the main process when none does.
        The main process must not be reaped yet."""
        table = processes.everything()
        main = table.get(self._main)
        if main is None:
            return
        reached = False
        line = [main]
        for process in line:
            if process.living and processes.catches(process, signum):
                reached = processes.send(process, signum) or reached
            else:
                line += [child for child in table.values() if child.parent == process.pid]
        if not reached:
            processes.send(main, signum)

    def terminate(self) -> None:
        """SIGTERM once to each; one that is stopped is woken to hear it."""
        for _ in range(_TERMINATE_ROUNDS):
            fresh = [process for process in descendants() if process.key not in self._terminated]
            if not fresh:
                return
            for process in fresh:
                self._terminated.add(process.key)
                processes.send(process, signal.SIGTERM)
                if process.stopped:
                    processes.send(process, signal.SIGCONT)

    def kill(self, *, main_reaped: bool, reap: Callable[[], object]) -> None:
        """SIGKILL. The whole group in one call first: a fork bomb is faster than a list of its processes. `reap`
        collects those that have ended."""
        me = os.getpid()
        # The number of the group is still the job's while a child that is not reaped yet belongs to it.
        if not main_reaped or any(process.parent == me and process.group == self._main for process in descendants()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._main, signal.SIGKILL)
        hunt(reap)


def descendants() -> list[Process]:
    """Of this process, living ones only."""
    return processes.descendants([os.getpid()], processes.everything())

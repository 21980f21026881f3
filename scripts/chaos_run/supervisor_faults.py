"""Supervisors that stand still, and those that die together with the server that forked them."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import processes

if TYPE_CHECKING:
    from faults import Fault, Faults


class SupervisorFaults:
    """Kinds for `faults.Faults`, which keeps what is broken and what was noted."""

    def __init__(self, core: Faults) -> None:
        self._core = core
        self._box = core.box
        self._random = core.random

    def kinds(self) -> dict[str, tuple[int, Fault]]:
        return {
            "supervisor suspended for good": (6, self._suspend),
            "SIGKILL fork server and supervisors at once": (4, self._kill_both),
        }

    def _suspend(self) -> bool:
        """Nobody here wakes it again."""
        busy = [(one, runs) for one in self._box.supervisors() if (runs := self._box.runs_of(one))]
        if not busy:
            return False
        supervisor, runs = self._random.choice(busy)
        self._box.note(f"{time.time():.3f} suspended pid {supervisor.pid} of {runs}")
        return processes.kill(supervisor, signal.SIGSTOP)

    def _kill_both(self) -> bool:
        """What its jobs leave behind has nobody who would end it."""
        server = self._box.fork_server()
        supervisors = self._box.supervisors()
        if server is None or not supervisors:
            return False
        processes.kill(server, signal.SIGSTOP)
        for supervisor in self._random.sample(supervisors, self._random.randint(1, len(supervisors))):
            self._core.end_supervisor(supervisor)
        return processes.kill(server)

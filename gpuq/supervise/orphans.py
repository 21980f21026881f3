"""How processes ended that a dead supervisor left to this one: by PID and start time, for a PID is given again."""

from __future__ import annotations

import collections
import os

from gpuq.supervise import processes
from gpuq.supervise.crash_record import exit_code_of

# The end of an orphan matters until the death of its supervisor is seen, which is at the same moment.
_KEPT = 64
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


class Orphans:
    """Exit codes of children that ended before anybody asked for them, by pid and start time; the oldest go first."""

    def __init__(self) -> None:
        self._ends: collections.OrderedDict[tuple[int, int], int] = collections.OrderedDict()

    def note(self, seen: os.waitid_result) -> None:
        """Of a child that has ended and is not reaped yet."""
        self._ends[(seen.si_pid, processes.start_of(seen.si_pid))] = exit_code_of(seen)
        if len(self._ends) > _KEPT:
            self._ends.popitem(last=False)

    def end_of(self, pid: object, start: object) -> int | None:
        """None when it has not ended, or was never ours."""
        if not isinstance(pid, int) or not isinstance(start, int):
            return None
        if (pid, start) in self._ends:
            return self._ends[(pid, start)]
        try:
            seen = os.waitid(os.P_PID, pid, _LOOK)
        except ChildProcessError:
            return None
        return exit_code_of(seen) if seen is not None and processes.start_of(pid) == start else None

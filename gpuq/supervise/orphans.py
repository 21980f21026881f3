"""How processes ended that a dead supervisor left to this one: by PID and start time, for a PID is given again."""

from __future__ import annotations

import collections
import os
import select

from gpuq.linux import look
from gpuq.supervise import processes
from gpuq.supervise.crash_record import exit_code_of

# The end of an orphan matters until the death of its supervisor is seen, which is at the same moment.
_KEPT = 64
_MOMENT_MS = 1000
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

    def last_end_of(self, pid: object, start: object) -> int | None:
        """As `end_of`, after a moment for one that was killed just now: it may have ended by itself before."""
        code = self.end_of(pid, start)
        if code is None and isinstance(pid, int) and isinstance(start, int):
            orphan = look(pid)
            if orphan is not None and (orphan.start, orphan.parent) == (start, os.getpid()):
                # Our own child, not reaped yet: the number is nobody else's.
                _await_end(pid)
                code = self.end_of(pid, start)
        return code

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


def _await_end(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(_MOMENT_MS)
    os.close(fd)

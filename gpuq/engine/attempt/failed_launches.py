"""Which job cannot be launched although others can: it waits alone then, and keeps nobody else waiting.

That something is in the way of one job only (its folder, its spec, what its user's processes may have) is not to be
seen in what fails. It shows in what happens around it: the same job fails again, and others have started in between.
"""

from __future__ import annotations

from collections import OrderedDict

# After so many failures in a row.
IN_A_ROW = 3
# The oldest are forgotten.
_KEPT = 1000


class FailedLaunches:
    """One agent's. A daemon that is started anew counts from the beginning."""

    def __init__(self) -> None:
        self._starts = 0
        # Job id → how many failures with a start of others before each but the first, and the starts at the last.
        self._failures: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def failed(self, job_id: int) -> int:
        """How many times in a row it has failed alone, counted from the failure that shows it; 0: the machine may be
        the cause as well."""
        times, starts = self._failures.pop(job_id, (0, -1))
        times += self._starts > starts
        self._failures[job_id] = (times, self._starts)
        if len(self._failures) > _KEPT:
            self._failures.popitem(last=False)
        return max(0, times - IN_A_ROW + 1)

    def started(self, job_id: int) -> None:
        """Its process runs."""
        self._starts += 1
        self._failures.pop(job_id, None)

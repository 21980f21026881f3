"""What supervisors say through the report pipes of their attempts, line by line, and when those pipes end.

First that the job's process exists. Then, only where the end cannot be written down at once (no room, no folder), the
exit record itself: whoever reads knows the end while the supervisor goes on trying.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import threading

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Result
from gpuq.supervise import bundle, statements
from gpuq.supervise.report_ends import ReportEnds

_REPORT_BYTES = 16 * 1024
# Ends that were told and not written: the agent has each in its ledger by then.
_TOLD = 4096


class ReportPipes:
    """Of one launcher. Safe to use from several threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ends = ReportEnds()
        self._told: collections.OrderedDict[str, Result] = collections.OrderedDict()

    def hear(self, fd: int) -> Launched | None:
        """What has been said since the last time; an end is kept for `told`. None at the end of the pipe, and for
        another kind of descriptor, on which nothing is said. Raises OSError."""
        launched = None
        try:
            said = os.read(fd, _REPORT_BYTES)
        except OSError as error:
            # A pidfd, of an attempt that was adopted.
            if error.errno == errno.EINVAL:
                return None
            raise
        for line in said.split(b"\n"):
            record = bundle.parsed(line) if line else None
            if record is not None and "outcome" in record:
                self._note_end(record)
            elif record is not None:
                launched = launched or statements.launched(record)
        if launched is not None:
            self._ends.remember(launched, fd)
        return launched

    def told(self, token: str) -> Result | None:
        """The end of the attempt with this token, if its supervisor had to tell it."""
        with self._mutex:
            return self._told.get(token)

    def watch(self, running: Launched) -> tuple[bool, int | None]:
        """Whether this attempt reported here, and a descriptor, the caller's, that becomes readable at its end."""
        end, over = self._ends.find(running)
        return end is not None or over, end

    def sort_out(self) -> None:
        """Closes what is kept of attempts that are over."""
        self._ends.sort_out()

    def take(self, running: Launched) -> int:
        """The descriptor of this attempt's report, the caller's from now on; -1 when it is not kept any more."""
        return self._ends.take(running)

    def close(self) -> None:
        """Forgets all pipes. May be called twice."""
        self._ends.close()

    def _note_end(self, record: dict[str, object]) -> None:
        token = bundle.text(record, "token")
        with contextlib.suppress(bundle.BadRecord):
            result = statements.result(record)
            with self._mutex:
                if token:
                    self._told[token] = result
                if len(self._told) > _TOLD:
                    self._told.popitem(last=False)

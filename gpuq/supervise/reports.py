"""What supervisors say through the report pipes of their attempts, line by line, and when those pipes end.

First that the job's process exists. Then, only where the end cannot be written down at once (no room, no folder), the
exit record itself: whoever reads knows the end while the supervisor goes on trying.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import select
import threading

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Result
from gpuq.supervise import bundle, statements

_REPORT_BYTES = 16 * 1024
# Ended attempts that `watch` still knows; it is asked right after the report.
_REMEMBERED = 1024
# Ends that were told and not written: the agent has each in its ledger by then.
_TOLD = 4096
_SORTED_OUT = 8


class ReportPipes:
    """Of one launcher. Safe to use from several threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ends: dict[tuple[int, int], int] = {}
        self._sort_out_at = _SORTED_OUT
        self._over: collections.deque[tuple[int, int]] = collections.deque(maxlen=_REMEMBERED)
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
            # The pipe ends with the attempt, while its supervisor may go on to another one.
            self._remember_end(launched, fd)
        return launched

    def told(self, token: str) -> Result | None:
        """The end of the attempt with this token, if its supervisor had to tell it."""
        with self._mutex:
            return self._told.get(token)

    def watch(self, running: Launched) -> tuple[bool, int | None]:
        """Whether this attempt reported here, and a descriptor, the caller's, that becomes readable at its end."""
        key = (running.pid, running.pid_start)
        with self._mutex:
            end = self._ends.get(key)
            if end is not None:
                return True, os.dup(end)
            return key in self._over, None

    def take(self, running: Launched) -> int:
        """The descriptor of this attempt's report, the caller's from now on; -1 when it is not kept any more."""
        with self._mutex:
            return self._ends.pop((running.pid, running.pid_start), -1)

    def close(self) -> None:
        """Forgets all pipes. May be called twice."""
        with self._mutex:
            for fd in self._ends.values():
                os.close(fd)
            self._ends.clear()

    def _note_end(self, record: dict[str, object]) -> None:
        token = bundle.text(record, "token")
        with contextlib.suppress(bundle.BadRecord):
            result = statements.result(record)
            with self._mutex:
                if token:
                    self._told[token] = result
                if len(self._told) > _TOLD:
                    self._told.popitem(last=False)

    def _remember_end(self, launched: Launched, fd: int) -> None:
        key = (launched.pid, launched.pid_start)
        with self._mutex:
            try:
                self._ends[key] = os.dup(fd)
            except OSError:
                # No descriptor is left. The report itself must not be lost for it: who watches asks the lock.
                self._over.append(key)
                return
            if len(self._ends) >= self._sort_out_at:
                self._sort_out()

    def _sort_out(self) -> None:
        """Closes the pipes of what is over: now and then, for looking at all of them costs time for each."""
        poll = select.poll()
        for known in self._ends.values():
            poll.register(known, select.POLLIN)
        ended = {known for known, _ in poll.poll(0)}
        for fd in ended:
            os.close(fd)
        self._over.extend(key for key, known in self._ends.items() if known in ended)
        self._ends = {key: known for key, known in self._ends.items() if known not in ended}
        self._sort_out_at = 2 * len(self._ends) + _SORTED_OUT

"""A second descriptor of the report pipe of each attempt that this process started, for whoever asks later when it is
over. The pipe ends with the attempt, while its supervisor may go on to another one."""

from __future__ import annotations

import collections
import os
import select
import threading

from gpuq.domain.job import Launched

# Ended attempts that are still known to have ended; it is asked right after the report.
_REMEMBERED = 1024


class ReportEnds:
    """Safe to use from several threads. An attempt is known by its process."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ends: dict[tuple[int, int], int] = {}
        # Who tells that a pipe has ended; made with the first.
        self._poll: select.epoll | None = None
        self._over: collections.deque[tuple[int, int]] = collections.deque(maxlen=_REMEMBERED)

    def remember(self, launched: Launched, fd: int) -> None:
        """`fd` stays the caller's. Without a descriptor to spare it counts as over: who watches asks the lock."""
        key = (launched.pid, launched.pid_start)
        with self._mutex:
            self._sort_out()
            own = -1
            try:
                if self._poll is None:
                    self._poll = select.epoll()
                own = os.dup(fd)
                # Nothing is asked for: epoll tells of the hang-up alone.
                self._poll.register(own, 0)
            except OSError:
                if own >= 0:
                    os.close(own)
                self._over.append(key)
                return
            self._ends[key] = own

    def sort_out(self) -> None:
        """Closes the pipes of what is over."""
        with self._mutex:
            self._sort_out()

    def find(self, running: Launched) -> tuple[int | None, bool]:
        """A descriptor, the caller's, that becomes readable at the attempt's end, or None; and whether it is known to
        have ended."""
        key = (running.pid, running.pid_start)
        with self._mutex:
            self._sort_out()
            end = self._ends.get(key)
            return (None if end is None else os.dup(end)), key in self._over

    def take(self, running: Launched) -> int:
        """The descriptor of this attempt, the caller's from now on; -1 when there is none (any more)."""
        with self._mutex:
            fd = self._ends.pop((running.pid, running.pid_start), -1)
            if fd >= 0 and self._poll is not None:
                self._poll.unregister(fd)
            return fd

    def close(self) -> None:
        """May be called twice."""
        with self._mutex:
            for fd in self._ends.values():
                os.close(fd)
            self._ends.clear()
            if self._poll is not None:
                self._poll.close()
                self._poll = None

    def _sort_out(self) -> None:
        if self._poll is None or not (ended := {fd for fd, _ in self._poll.poll(0)}):
            return
        for fd in ended:
            # The agent's own descriptor is the same open pipe, so closing this one would not take it out.
            self._poll.unregister(fd)
            os.close(fd)
        self._over.extend(key for key, known in self._ends.items() if known in ended)
        self._ends = {key: known for key, known in self._ends.items() if known not in ended}

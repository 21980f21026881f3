"""Ends of attempts that are told to the daemon and of which it has not said yet that SQL has them.

An end that SQL has committed survives a loss of power there, so its exit record need not: two fsyncs are left out of
every job. They are made up for when the daemon does not confirm the end soon, or is gone. No crash of a process loses a
record that is written; a loss of power in these milliseconds makes the attempt one that was lost.

The report pipe is a socket, on which the daemon answers. What it has confirmed nobody reads any more: the supervisor
clears the records away (see spares.py), while nobody waits for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

from gpuq.supervise import bundle, kernel, spares

# What the daemon answers: the end is confirmed, and the records are of use to later attempts, or are not.
KEEP, REMOVE = b"+", b"-"
# Far longer than the commit of an end takes, and about as long as a busy disk takes for an fsync.
_CONFIRM_S = 0.05
_AGAIN_S = 1.0
_SUFFIX = ".records"


class _End:
    """`sync_at`: when its record is to be made durable, on the clock since boot."""

    __slots__ = ("records", "report", "sync_at")

    def __init__(self, records: str, report: socket.socket) -> None:
        self.records = records
        self.report = report
        self.sync_at = kernel.since_boot() + _CONFIRM_S


class UnconfirmedEnds:
    """Of one supervisor. `poll`: reports each confirmation while the supervisor waits for a launch."""

    def __init__(self, poll: select.epoll) -> None:
        self._poll = poll
        self._ends: list[_End] = []
        self._written: str | None = None

    def note(self, records: str) -> None:
        """The exit record is written there, and not durable."""
        self._written = records

    def take_over(self, records: str, report_fd: int) -> bool:
        """Tells the daemon that the attempt is over, when its end was noted; the descriptor is this object's then. The
        lock must be free."""
        if self._written != records:
            return False
        self._written = None
        try:
            report = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=report_fd)
        except OSError:
            # A daemon of the previous release, which listens on a pipe and confirms nothing.
            _made_durable(records)
            return False
        self._ends.append(_End(records, report))
        with contextlib.suppress(OSError):
            report.shutdown(socket.SHUT_WR)
            self._poll.register(report_fd, select.EPOLLIN)
        return True

    def wait_s(self) -> float | None:
        """Seconds until a record has to be made durable; None: none has."""
        at = min((end.sync_at for end in self._ends), default=None)
        return None if at is None else max(0.0, at - kernel.since_boot())

    def look(self) -> None:
        """Does what is due, and never waits but for the disk."""
        if self._ends:
            self._ends = [end for end in self._ends if not _settled(end)]

    def close(self) -> None:
        """Waits as long as `wait_s` says, then makes everything durable: the process ends."""
        while (left_s := self.wait_s()) is not None:
            poll = select.poll()
            for end in self._ends:
                poll.register(end.report, select.POLLIN)
            poll.poll(left_s * 1000)
            self.look()


def _settled(end: _End) -> bool:
    """Whether nothing more is to be done for it."""
    try:
        said = end.report.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        if kernel.since_boot() >= end.sync_at:
            if _made_durable(end.records):
                # Who confirms it later finds nobody here, and clears the records away without us.
                end.report.close()
                return True
            end.sync_at = kernel.since_boot() + _AGAIN_S
        return False
    except OSError:
        said = b""
    if said:
        clear(end.records, keep=said == KEEP)
    else:
        _made_durable(end.records)
    end.report.close()
    return True


def _made_durable(records: str) -> bool:
    try:
        fd = os.open(os.path.join(records, bundle.EXIT), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        bundle.sync_folder(records)
    except (FileNotFoundError, NotADirectoryError):
        # It was confirmed to somebody else, or the folder was deleted.
        return True
    except OSError:
        return False
    return True


def clear(records: str, *, keep: bool) -> None:
    """Takes away the records of an attempt whose end SQL has, as far as that goes: nobody reads what is left of them.
    `keep`: for a later attempt."""
    if not records.endswith(_SUFFIX):
        # The previous release had them in the job's own folder.
        return
    with contextlib.suppress(OSError):
        if keep:
            spares.put_records(records)
            return
        for name in os.listdir(records):
            os.unlink(os.path.join(records, name))
        os.rmdir(records)

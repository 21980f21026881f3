"""Ending what is left of an attempt whose supervisor died: processes that went their own way, away from it."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Collection

from gpuq.domain.attempt_mark import MARK, mark_of
from gpuq.linux import Process
from gpuq.supervise import processes

_PAUSE_S = 0.05


def sweep(
    token: str,
    session: int | None = None,
    session_start: int | None = None,
    *,
    owner: int | None = None,
    timeout_s: float = 10.0,
    seen: Collection[tuple[int, int]] = (),
) -> int:
    """SIGKILLs every process of the attempt until none is left; returns how many there were.

    A process belongs to it when its environment carries the attempt's mark, when it is in the attempt's session, or
    when an ancestor of it does so. A session counts only if its leader has the start time `session_start` (clock
    ticks since boot) or a process in it carries the mark: a number alone may be somebody else's by now. Mark and
    leader count only on a process of `owner`, the job's user (None: ours): the mark is no secret from that user, who
    could get it into another's process and so have root end that one. So does one of those in `seen`, by PID and start
    time, which were seen below the attempt's supervisor.
    Raises TimeoutError, naming the PIDs, when some are still there after `timeout_s`: stuck in the kernel, or not
    this user's to kill. The GPU is not free then.
    """
    entry = f"{MARK}={mark_of(token)}".encode()
    found: set[tuple[int, int]] = set()
    give_up = time.monotonic() + timeout_s
    while left := strays(entry, session, session_start, owner, seen):
        found.update(process.key for process in left)
        if time.monotonic() > give_up:
            pids = ", ".join(str(process.pid) for process in left)
            raise TimeoutError(f"processes of a dead attempt cannot be ended: {pids}")
        watched = [fd for process in left if (fd := _kill(process)) is not None]
        _wait(watched)
    return len(found)


def strays(
    entry: bytes,
    session: int | None,
    session_start: int | None,
    owner: int | None = None,
    seen: Collection[tuple[int, int]] = (),
) -> list[Process]:
    """All living processes of the attempt; `entry` is its mark as `NAME=value`, `owner` and `seen` as for `sweep`."""
    table = processes.everything()
    me = os.getpid()
    owner = os.geteuid() if owner is None else owner
    marked = {
        pid
        for pid, process in table.items()
        if process.living and pid != me and processes.carries(process, entry) and processes.user_of(process) == owner
    }
    if session is not None:
        members = {pid for pid, process in table.items() if process.session == session and process.living and pid != me}
        leader = table.get(session)
        known = (
            leader is not None
            and session_start is not None
            and leader.start == session_start
            and processes.user_of(leader) == owner
        )
        if known or marked & members:
            marked |= members
    marked |= {pid for pid, start in seen if pid in table and table[pid].start == start and table[pid].living}
    offspring = processes.descendants(marked, table)
    return [table[pid] for pid in sorted(marked)] + [process for process in offspring if process.pid != me]


def _kill(process: Process) -> int | None:
    """SIGKILL, and a descriptor that becomes readable at the end, where the kernel gives one."""
    if not processes.send(process, signal.SIGKILL):
        return None
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        return None


def _wait(fds: list[int]) -> None:
    """For one end, or a moment: what died may have left new children behind."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    poll.poll(_PAUSE_S * 1000)
    for fd in fds:
        os.close(fd)

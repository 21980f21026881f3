"""What people are told of a full disk: how much is free, and which job's output takes most of it."""

from __future__ import annotations

import collections
import os

from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.disk_reserve import Room

# Of this agent's attempts, those that have ended meanwhile too: their output is still there.
_REMEMBERED = 256


class RecentOutputs:
    """The logs of the newest attempts that an agent has tracked."""

    def __init__(self) -> None:
        self._logs: collections.deque[tuple[int, str, str]] = collections.deque(maxlen=_REMEMBERED)

    def note(self, tracked: TrackedAttempt) -> None:
        """An attempt that is new to the agent."""
        self._logs.append((tracked.job.id, tracked.job.user, tracked.log_path))

    def largest(self) -> str | None:
        """`job 7 (alice): 120 MiB`; None when no output takes a MiB."""
        sizes = ((_mib(path), job_id, user) for job_id, user, path in self._logs)
        mib, job_id, user = max(sizes, default=(0, 0, ""))
        return f"job {job_id} ({user}): {mib} MiB" if mib else None


def told(room: Room, home: str | os.PathLike[str], largest: str | None) -> str:
    """The sentence for reasons, logs and health checks."""
    most = f"; the largest output is that of {largest}" if largest else ""
    return f"the disk of {home} is full: {room.text}{most}"


def _mib(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512 // 2**20
    except OSError:
        return 0

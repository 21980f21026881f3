"""How much a job may write to its log, and how often that is looked at: a value that knows neither file nor clock.

Looked at and not enforced by the kernel: RLIMIT_FSIZE would limit every file that the job writes, its checkpoints too.
"""

from __future__ import annotations

import os

REASON = "output_limit"
# What is left of the limit cannot be written faster than this, in bytes a second; a page cache takes about as much.
FASTEST_RATE = 2 * 1024**3
FIRST_LOOK_S = 0.05
# While nothing is written: the looks at a log that is close to its limit cost less than 0.01 % of a core.
QUIET_LOOK_S = 1.0
LATEST_LOOK_S = 60.0
# For a program to notice that it is being stopped; the log grows meanwhile.
GRACE_S = 5.0
# So much beyond its limit it has no grace left.
_TOO_MUCH = 1.25


def written_bytes(log: os.stat_result) -> int:
    """What a log takes of the disk. The smaller of its length and its blocks: a hole in it takes no room, what the file
    system compresses takes less, and what XFS allocates ahead of a growing file is not the job's."""
    return min(log.st_size, log.st_blocks * 512)


class OutputLimit:
    """Of one attempt; `limit_bytes` None or 0: there is none. Times are seconds on the supervisor's own clock."""

    __slots__ = ("_at", "_limit", "_pause_s", "_size")

    def __init__(self, limit_bytes: int | None, now: float) -> None:
        self._limit = limit_bytes or 0
        self._size = 0
        self._pause_s = FIRST_LOOK_S
        self._at = self._next(now) if self._limit else None

    def wait_s(self, now: float) -> float | None:
        """Seconds until the log is to be looked at; None: never."""
        return None if self._at is None else max(0.0, self._at - now)

    def due(self, now: float) -> bool:
        """Whether the log is to be looked at now."""
        return self._at is not None and now >= self._at

    def grace_s(self, size: int, now: float) -> float | None:
        """At a look that finds `size` bytes: None while they may stay; otherwise the job has to stop, and has so many
        seconds to do so, 0 when it wrote far more."""
        self._pause_s = FIRST_LOOK_S if size != self._size else min(2 * self._pause_s, QUIET_LOOK_S)
        self._size = size
        self._at = self._next(now)
        if size <= self._limit:
            return None
        return GRACE_S if size <= _TOO_MUCH * self._limit else 0.0

    def _next(self, now: float) -> float:
        """Not before so much can have been written: far from the limit an idle job costs few looks a minute."""
        earliest_s = (self._limit - self._size) / FASTEST_RATE
        return now + min(max(earliest_s, self._pause_s), LATEST_LOOK_S)


def size_text(size: int) -> str:
    """Bytes for people: `20 GiB`, `1.5 MiB`."""
    for unit, one in (("TiB", 1024**4), ("GiB", 1024**3)):
        if size >= one:
            return f"{round(size / one, 1):g} {unit}"
    return f"{round(size / 1024**2, 1):g} MiB"


def told(limit_bytes: int) -> str:
    """The sentence that goes with an attempt that was stopped for it."""
    return f"output exceeded {size_text(limit_bytes)} (GPUQ_MAX_OUTPUT)"

"""Room on the disk of GPUQ_HOME that no job can take: what keeps submissions and cancels possible when it is full.

Two kinds. A file of no content gives its blocks back when the disk is full, for exit records, stop requests and the
database; jobs that go on writing may take them too. And the write-ahead log of SQLite has its first blocks allocated in
advance, so that the database can write when not a block is left. While the reserve is out, nothing is started.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpuq import linux

log = logging.getLogger(__name__)

NAME = "reserve"
MAX_BYTES = 32 * 2**20
# A disk with so much room is not looked at again for a second: each look lets go of the interpreter's lock in the
# middle of a write. One that fills up within that second still finds the blocks of the database's log.
AMPLE_BYTES = 16 * MAX_BYTES
AMPLE_S = 1.0
# Of a small disk no more than a sixteenth; half as much of it again for the log of the database.
_SHARE = 16


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of a disk: what users may still write, and what `full` is measured by. `reserve`: how large it should be;
    `held`: it is there."""

    free: int
    reserve: int
    held: bool

    @property
    def full(self) -> bool:
        """Too little is left for anything new; what is left is for what runs already."""
        return self.free < self._low

    @property
    def low(self) -> bool:
        """Full, or just not any more: the reserve is out, and there is no room for it and some more."""
        return self.full or (not self.held and self.free < self.reserve + 2 * self._low)

    @property
    def _low(self) -> int:
        return self.reserve // 4

    @property
    def text(self) -> str:
        """What is free, for people."""
        return f"{self.free / 2**20:.1f} MiB are free"


def look(home: Path) -> Room:
    """Of the disk that `home` lies on. Raises OSError."""
    found = os.statvfs(home)
    reserve = min(MAX_BYTES, found.f_blocks * found.f_frsize // _SHARE)
    # For root too: what is kept back for root no job of a user can write to.
    return Room(found.f_bavail * found.f_frsize, reserve, _blocks_of(home / NAME) >= reserve)


class DiskReserve:
    """Of one home. `wal`: the log of its SQLite database, None for another one. Any thread; every process of gpuq on
    this home may release the reserve, the agent keeps it. `monotonic`: a clock in seconds."""

    def __init__(self, home: Path, wal: Path | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._home = home
        self._path = str(home)
        self._wal = wal
        # A file system that cannot allocate in advance is asked once.
        self._possible = True
        self._wal_kept = wal is None
        self._monotonic = monotonic
        # Until then there is ample room; and likewise for what was found when the reserve was looked at.
        self._ample_until = float("-inf")
        self._kept: tuple[float, Room | None] = (float("-inf"), None)

    def make_room(self) -> None:
        """Before every write to the database: gives the reserve back if the disk is full. Costs microseconds, and next
        to nothing while there is ample room."""
        now = self._monotonic()
        if now < self._ample_until:
            return
        with contextlib.suppress(OSError):
            found = os.statvfs(self._path)
            free = found.f_bavail * found.f_frsize
            if free >= AMPLE_BYTES:
                self._ample_until = now + AMPLE_S
            elif free < MAX_BYTES and look(self._home).full:
                self._release()

    def keep(self) -> Room | None:
        """Takes the reserve when there is room for it and gives it back when the disk is full; how much room there is
        then, or was within the last second if it was ample. None: the disk does not tell."""
        now = self._monotonic()
        until, found = self._kept
        if now < until:
            return found
        try:
            room = look(self._home)
            if room.held and self._wal_kept and not room.full:
                # As nearly always: asked with every plan.
                if room.free >= AMPLE_BYTES:
                    self._kept = now + AMPLE_S, room
                return room
            if room.full:
                self._release()
            elif not room.low and self._possible:
                self._take(room.reserve)
            return look(self._home)
        except OSError as error:
            log.debug("the disk of %s does not tell how full it is: %s", self._home, error)
            return None

    def _take(self, size: int) -> None:
        try:
            _allocate(self._home / NAME, size, os.O_CREAT)
            if self._wal is not None and self._wal.exists():
                _allocate(self._wal, size // 2)
                self._wal_kept = True
        except OSError as error:
            self._possible = linux.can_allocate(error)
            if not self._possible:
                log.info("no room is kept for a full disk: the file system of %s cannot", self._home)

    def _release(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._home / NAME).unlink()
            log.error("the disk of %s is full: what was kept back for that is given free", self._home)


def _allocate(path: Path, size: int, flags: int = 0) -> None:
    """Nothing to do for a file that has its blocks. The length stays: SQLite reads its log by that."""
    if _blocks_of(path) >= size:
        return
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        linux.allocate(fd, size)
    finally:
        os.close(fd)


def _blocks_of(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0

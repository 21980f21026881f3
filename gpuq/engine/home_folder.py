"""Whether the home is still where it was: a disk may go away, and leave nothing behind, or an empty folder."""

from __future__ import annotations

import os
from pathlib import Path


class HomeFolder:
    """`mark`: a file of the home that this process holds, and in which its PID stands. It must be there now."""

    def __init__(self, mark: Path) -> None:
        self._home = mark.parent
        self._mark = mark
        self._key = self._look()

    def why_away(self) -> str | None:
        """A sentence for people; None while all is well. One system call."""
        try:
            key = self._look()
            # Disks that come back, and some file systems at any time, number their files anew.
            if key != self._key and not self._is_ours():
                return f"another folder is in the place of {self._home}; restart gpuq if that is meant"
        except OSError as error:
            return f"{self._home} is away: {error.strerror}"
        self._key = key
        return None

    def _look(self) -> tuple[int, int]:
        seen = self._mark.stat()
        return seen.st_dev, seen.st_ino

    def _is_ours(self) -> bool:
        with self._mark.open("rb") as file:
            return file.read(32).strip() == str(os.getpid()).encode()

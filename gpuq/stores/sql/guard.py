"""Keeps a daemon from going on with a database that is not its home's any more.

An open SQLite file that is removed, or has another moved over it, lives on for whoever has it open: what a daemon
answered from then on would be gone with its next start. The same holds when another folder takes the place of the one
that it is in: a disk that is mounted there, or the mount point of one that is not any more. And a PostgreSQL database
can go back to an older dump under a daemon, which would give the same job ids again. From then on each question and
each write is refused as with a database that is away: running jobs go on, nothing starts, `gpuq up` says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpuq.errors import DatabaseUnavailable
from gpuq.stores.sql.core.engine import Database

_HINT = "stop the daemon (`gpuq down`; running jobs go on); then `gpuq up` says what can be done"


class DatabaseGuard:
    """Of one database, from its making on, for any number of threads. `is_ours`: whether this folder of a SQLite
    file is the one of before although it has another number, as on a disk that was away and is back."""

    def __init__(self, database: Database, is_ours: Callable[[Path], bool] = lambda _: False) -> None:
        self._why: str | None = None
        self._is_ours = is_ours
        self._path = database.path
        self._file = self._folder = None
        if self._path is not None:
            self._file, self._folder = _identity(self._path), _identity(self._path.parent)
        make_room = database.make_room
        database.check = self.check

        def before_a_write() -> None:
            self.check()
            make_room()

        database.make_room = before_a_write

    def refuse(self, why: str) -> None:
        """For good: `why` is told to people."""
        self._why = why

    def check(self) -> None:
        """Raises DatabaseUnavailable when it is not the database of before. A file that is away with its folder is."""
        if self._why is not None:
            raise DatabaseUnavailable(self._why, hint=_HINT)
        if self._path is None or self._file is None or _identity(self._path) == self._file:
            return
        folder = _identity(self._path.parent)
        if folder == self._folder:
            raise DatabaseUnavailable("the database file was removed or replaced under the running daemon", hint=_HINT)
        if folder is not None and not self._is_ours(self._path.parent):
            raise DatabaseUnavailable(
                f"another folder is in the place of {self._path.parent}: is its disk mounted?",
                hint="mount it; if the other folder is meant, restart the daemon (running jobs go on)",
            )


def _identity(path: Path) -> tuple[int, int] | None:
    """None when it is not there, or cannot be seen."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino

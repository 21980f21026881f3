"""Keeps a daemon from going on with a database that is not its home's any more.

An open SQLite file that is removed, or has another moved over it, lives on for whoever has it open: what a daemon
answered from then on would be gone with its next start. And a PostgreSQL database can go back to an older dump under a
daemon, which would give the same job ids again. From then on each question and each write is refused as with a database
that is away: running jobs go on, nothing starts, and `gpuq up` says what to do.
"""

from __future__ import annotations

import os
import weakref

from gpuq.errors import DatabaseUnavailable
from gpuq.stores.sql.core.engine import Database

_HINT = "stop the daemon (`gpuq down`; running jobs go on); then `gpuq up` says what can be done"


class DatabaseGuard:
    """Of one database, from its making on, for any number of threads."""

    def __init__(self, database: Database) -> None:
        self._why: str | None = None
        # Only a name for the file: closing any other descriptor of it would drop SQLite's locks.
        self._fd = -1 if database.path is None else os.open(database.path, os.O_PATH | os.O_CLOEXEC)
        if self._fd >= 0:
            weakref.finalize(database, os.close, self._fd)
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
        """Raises DatabaseUnavailable when it is not the database of before. A file that is away with its home is."""
        if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
            self._why = "the database file was removed or replaced under the running daemon"
        if self._why is not None:
            raise DatabaseUnavailable(self._why, hint=_HINT)

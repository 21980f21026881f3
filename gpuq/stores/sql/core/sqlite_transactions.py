"""Connections to SQLite that are kept, and a transaction on each: without the engine's bookkeeping, which costs several
times as much as beginning and ending the transaction."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Connect = Callable[[], sqlite3.Connection]

# Of connections that nobody reads on now; each has a page cache of its own.
_KEPT = 8
_FREE_PAGES = "PRAGMA shrink_memory"


class SqliteWriter:
    """A connection kept for writing. One thread at a time."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Committed when the block ends well. Raises sqlite3.Error."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.commit()
        except BaseException:
            self._undo(connection)
            raise

    def _undo(self, connection: sqlite3.Connection) -> None:
        try:
            # A full disk may have ended the transaction already; then this does nothing.
            connection.rollback()
        except sqlite3.Error:
            self.close()

    def spare_memory(self) -> None:
        """Between two transactions: frees the pages that the connection keeps. Raises sqlite3.Error."""
        if self._connection is not None:
            self._connection.execute(_FREE_PAGES)

    def close(self) -> None:
        """The next transaction connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class SqliteReaders:
    """Connections kept for reading, as many as threads read at once. Safe to share between threads."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._idle: deque[sqlite3.Connection] = deque()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """The database as it is at the first question. Raises sqlite3.Error; the connection is not used again then."""
        idle = self._idle
        try:
            # The one used last has the newest pages in its cache.
            connection = idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            connection.execute("BEGIN")
            yield connection
        except sqlite3.Error:
            connection.close()
            raise
        except BaseException:
            self._give_back(connection, idle)
            raise
        self._give_back(connection, idle)

    def _give_back(self, connection: sqlite3.Connection, idle: deque[sqlite3.Connection]) -> None:
        try:
            # Nothing was written; this only lets go of the snapshot.
            connection.rollback()
        except sqlite3.Error:
            connection.close()
            return
        if idle is self._idle and len(idle) < _KEPT:
            idle.append(connection)
        else:
            connection.close()

    def spare_memory(self) -> None:
        """Frees the pages that idle connections keep. Raises sqlite3.Error."""
        idle = self._idle
        for _ in range(len(idle)):
            try:
                connection = idle.popleft()
            except IndexError:
                return
            connection.execute(_FREE_PAGES)
            self._give_back(connection, idle)

    def close(self) -> None:
        """Later snapshots connect again; what is being read on is closed at its end."""
        idle, self._idle = self._idle, deque()
        while idle:
            idle.pop().close()

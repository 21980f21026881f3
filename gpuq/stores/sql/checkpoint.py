"""Copying SQLite's write-ahead log back into the database file."""

from __future__ import annotations

from contextlib import closing

from gpuq.stores.sql.core.engine import Database, connect_sqlite
from gpuq.stores.sql.core.errors import told_as_our_own


def checkpoint(database: Database) -> None:
    """As far as no reader still needs the old pages; nobody waits for it, and it waits for nobody. SQLite does it by
    itself only once the log is large. Not TRUNCATE: that keeps writers out meanwhile, and gives away the blocks that
    are kept for a full disk. Does nothing on PostgreSQL. Raises DatabaseUnavailable."""
    if database.path is None:
        return
    with told_as_our_own(database.driver_error), closing(connect_sqlite(database.path, wait_s=0.0)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

"""gpuq.ports.records.Records on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from gpuq.linux import trim_heap
from gpuq.ports.records import Reader, Writer
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.core.statements import Statements
from gpuq.stores.sql.reader import SqlReader
from gpuq.stores.sql.writer import SqlWriter


class SqlRecords:
    """`database` may be shared with the history, the tokens and the maintenance log."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._statements = Statements(database.engine.dialect)

    @contextmanager
    def read(self) -> Iterator[Reader]:
        with self.database.read() as connection:
            yield SqlReader(connection.connection.driver_connection, self._statements)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        with self.database.write_on_driver() as driver:
            yield SqlWriter(driver, self._statements)

    def spare_memory(self) -> None:
        # Idle SQLite connections keep pages that they have read, each 16 MB after a long list.
        if self.database.path is not None:
            pool: Any = self.database.engine.pool
            with ExitStack() as stack:
                # Each is given back only when the others have been taken, so that it is the turn of all.
                for _ in range(pool.checkedin()):
                    connection = stack.enter_context(self.database.engine.connect())
                    driver: Any = connection.connection.driver_connection
                    driver.execute("PRAGMA shrink_memory")
        trim_heap()

    def close(self) -> None:
        self.database.close()

"""gpuq.ports.records.Records on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpuq.ports.records import Reader, Writer
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.core.statements import Statements
from gpuq.stores.sql.many import SqlManyWriter
from gpuq.stores.sql.reader import SqlReader


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
            yield SqlManyWriter(driver, self._statements)

    def close(self) -> None:
        self.database.close()

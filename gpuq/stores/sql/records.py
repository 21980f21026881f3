"""gpuq.ports.records.Records on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
        with self.database.read_on_driver() as driver:
            yield SqlReader(driver, self._statements)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        with self.database.write_on_driver() as driver:
            yield SqlWriter(driver, self._statements)

    def close(self) -> None:
        self.database.close()

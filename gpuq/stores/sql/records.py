"""gpuq.ports.records.Records on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpuq.errors import GpuqError
from gpuq.ports.records import GivenNumbers, Reader, Writer
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.core.statements import Statements
from gpuq.stores.sql.reader import SqlReader
from gpuq.stores.sql.writer import SqlWriter


class SqlRecords:
    """`database` may be shared with the history, the tokens and the maintenance log. `numbers` hears of what is given;
    `refusal` is raised instead of every write."""

    def __init__(
        self, database: Database, numbers: GivenNumbers | None = None, refusal: GpuqError | None = None
    ) -> None:
        self.database = database
        self._numbers = numbers
        self._refusal = refusal
        self._statements = Statements(database.engine.dialect)

    @contextmanager
    def read(self) -> Iterator[Reader]:
        with self.database.read_on_driver() as driver:
            yield SqlReader(driver, self._statements)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        if self._refusal is not None:
            raise self._refusal
        with self.database.write_on_driver() as driver:
            writer = SqlWriter(driver, self._statements, self._numbers)
            yield writer
        if self._numbers is not None:
            self._numbers.note(writer.last_event, writer.last_job)

    def close(self) -> None:
        self.database.close()
        if self._numbers is not None:
            self._numbers.close()

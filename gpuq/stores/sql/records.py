"""gpuq.ports.records.Records on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from gpuq.errors import DatabaseUnavailable, GpuqError
from gpuq.linux import trim_heap
from gpuq.ports.records import GivenNumbers, Reader, Writer
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.core.statements import Statements
from gpuq.stores.sql.many import SqlManyWriter
from gpuq.stores.sql.reader import SqlReader


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
            writer = SqlManyWriter(driver, self._statements, self._numbers)
            yield writer
        if self._numbers is not None:
            self._numbers.note(writer.last_event, writer.last_job)

    def spare_memory(self) -> None:
        # Idle SQLite connections keep pages that they have read or written, each 16 MB after much of either.
        with suppress(DatabaseUnavailable):
            self.database.spare_memory()
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
        if self._numbers is not None:
            self._numbers.close()

"""Read-only questions to the record: finished runs for expectations, gpuq's own reports, and SQL that a person writes.

gpuq's own statements run on the daemon's connections. What a person writes is another matter: see `questions`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO, Any

from sqlalchemy import ClauseElement, Integer, bindparam, select

from gpuq.domain.times import iso
from gpuq.errors import UsageError
from gpuq.ports.history import FinishedRun
from gpuq.stores.sql.core.engine import Database, connect_sqlite
from gpuq.stores.sql.core.errors import told_as_our_own
from gpuq.stores.sql.core.statements import Statements, moment
from gpuq.stores.sql.questions.ask import answer
from gpuq.stores.sql.schema.tables import attempts, jobs

REPORT_LIMIT_S = 60.0


def _finished(dialect: str) -> ClauseElement:
    return (
        select(
            attempts.c.job_id,
            jobs.c.user,
            jobs.c.gpus,
            jobs.c.command,
            jobs.c.time_limit_s,
            attempts.c.outcome,
            attempts.c.started_at,
            attempts.c.finished_at,
        )
        .join_from(attempts, jobs)
        .where(
            attempts.c.finished_at.is_not(None),
            attempts.c.started_at.is_not(None),
            attempts.c.finished_at > moment("since"),
        )
        .order_by(attempts.c.finished_at.desc(), attempts.c.job_id.desc())
        .limit(bindparam("limit", type_=Integer))
    )


class SqlHistory:
    """gpuq.ports.history.History. `report_url`: PostgreSQL's login that may read the views alone."""

    def __init__(self, database: Database, report_url: str | None = None) -> None:
        self.database = database
        self._report_url = report_url
        self._statements = Statements(database.engine.dialect)

    def finished_runs(self, *, limit: int, since: float = 0.0) -> list[FinishedRun]:
        values = {"since": since, "limit": limit}
        with self.database.read() as connection:
            driver = connection.connection.driver_connection
            rows = self._statements.of(_finished)(driver, values).fetchall()
        return [
            FinishedRun(
                job_id=job_id,
                user=user,
                gpus=gpus,
                command=tuple(json.loads(command)),
                time_limit_s=time_limit_s,
                outcome=outcome,
                run_s=round(max(0.0, finished_at - started_at), 3),
                finished_at=finished_at,
            )
            for job_id, user, gpus, command, time_limit_s, outcome, started_at, finished_at in reversed(rows)
        ]

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Values as JSON can carry them; times as ISO 8601 text in UTC on both databases."""
        columns, rows = self._on_sqlite(sql) if self.database.path else self._on_postgres(sql)
        return columns, [tuple(map(_portable, row)) for row in rows]

    def _on_sqlite(self, sql: str) -> tuple[list[str], list[Any]]:
        assert self.database.path is not None
        with told_as_our_own(), closing(connect_sqlite(self.database.path, mode="ro")) as connection:
            deadline = time.monotonic() + REPORT_LIMIT_S
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            try:
                cursor = connection.execute(sql)
                return [column[0] for column in cursor.description], cursor.fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname == "SQLITE_INTERRUPT":
                    raise UsageError(
                        f"the report took longer than {REPORT_LIMIT_S:.0f} s and was ended", hint="name a later --since"
                    ) from error
                raise

    def _on_postgres(self, sql: str) -> tuple[list[str], list[Any]]:
        with self.database.read() as connection:
            driver: Any = connection.connection.driver_connection
            cursor = driver.execute(sql)
            return [column.name for column in cursor.description], cursor.fetchall()

    def open_to_everybody(self) -> bool:
        """On PostgreSQL the daemon's own login reads every table, and nothing but a login of its own keeps a question
        from doing the same."""
        return self.database.path is not None or self._report_url is not None

    def ask(self, sql: str, *, limit: int | None = None) -> IO[bytes]:
        """See `gpuq.stores.sql.questions.ask.answer`."""
        return answer(self.database, self._report_url, sql, limit=limit)


def _portable(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value.astimezone(UTC).timestamp() if value.tzinfo else value.replace(tzinfo=UTC).timestamp())
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value

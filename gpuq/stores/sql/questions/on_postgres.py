"""A question to PostgreSQL, on a connection of its own, which ends with the question: whatever the statement did to its
session (settings, locks) ends with it. What it may read is what the login may read."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from gpuq.stores.sql.questions.reading_process import Answer, Ended
else:
    # This folder is on the path of the process, gpuq is not: it would take longer to import than most answers take.
    from reading_process import Answer, Ended

# Rows that are fetched at once.
ROWS_AT_ONCE = 200
# For a statement that a cursor cannot be opened for, such as EXPLAIN.
SYNTAX_ERROR = "42601"
# Tables that the login of a report has no right to; who can read them can read too much.
MAY_TOO_MUCH = (
    "SELECT bool_or(r.rolsuper) OR EXISTS (SELECT 1 FROM pg_class c"
    " WHERE c.relname IN ('specs', 'environments', 'tokens', 'web_sessions')"
    " AND c.relkind = 'r' AND has_table_privilege(c.oid, 'SELECT')) FROM pg_roles r WHERE r.rolname = current_user"
)


def ask(asked: dict[str, Any], answer: Answer, deadline: float, cancel: list[Callable[[], object]]) -> None:
    """Writes the answer. Raises Ended with what the database refused or said."""
    connect = asked["connect"]
    try:
        connection = psycopg.connect(*connect["words"], **connect["options"], autocommit=True)
    except psycopg.Error as error:
        raise Ended("connect", words=_words(error), state=error.sqlstate) from error
    cancel.append(lambda: connection.cancel_safe(timeout=5.0))
    try:
        for setting in asked["session"]:
            connection.execute(setting)
        if asked["restricted"] and connection.execute(MAY_TOO_MUCH).fetchone() != (False,):
            raise Ended("excess")
        connection.execute("BEGIN READ ONLY")
        answer.write(*_result(connection, asked["sql"]))
    except psycopg.Error as error:
        words = _words(error)
        # The second is what psycopg makes of a row for which libpq found no memory.
        if error.sqlstate is None and ("memory" in words or "results from command" in words):
            raise Ended("memory") from error
        raise Ended("failed", state=error.sqlstate or "", words=words) from error
    finally:
        connection.close()


def _result(connection: psycopg.Connection[Any], sql: str) -> tuple[list[str], Iterator[Sequence[Any]]]:
    """Names of the columns, and the rows by and by. Both ways use the extended protocol, which takes exactly one
    statement; in the simple one `COMMIT; DELETE …` would pass."""
    connection.execute("SAVEPOINT question")
    cursor: Any = connection.cursor("question")
    cursor.itersize = ROWS_AT_ONCE
    try:
        cursor.execute(sql)
    except psycopg.Error as error:
        if error.sqlstate != SYNTAX_ERROR:
            raise
        connection.execute("ROLLBACK TO question")
        cursor = connection.execute(sql, prepare=True)
    return [column.name for column in cursor.description or ()], cursor if cursor.description else iter(())


def _words(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

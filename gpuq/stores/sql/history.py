"""Read-only questions to the record: finished runs for expectations, and SQL that a person writes.

That SQL runs on a connection of its own which cannot write: on SQLite opened read-only with an authorizer,
on PostgreSQL in a READ ONLY transaction, one statement, with a time limit. What submissions carried (their
environments) and the hashes of bearer tokens are not shown through it.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ClauseElement, Integer, NullPool, bindparam, create_engine, select
from sqlalchemy.exc import DBAPIError

from gpuq.domain.times import iso
from gpuq.errors import DatabaseUnavailable, Refused, UsageError
from gpuq.ports.history import FinishedRun
from gpuq.stores.sql.core.engine import Database, connect_sqlite
from gpuq.stores.sql.core.errors import told_as_our_own, translated
from gpuq.stores.sql.core.statements import Statements, moment
from gpuq.stores.sql.schema.tables import attempts, jobs

QUERY_LIMIT_S = 60.0
HINT = "views for reports: job_history, attempt_history, dead_letters, job_events"

# Not readable through here. Single columns can be refused on SQLite only; on PostgreSQL the fencing tokens, which
# give no access by themselves, can be read.
SECRET_TABLES = frozenset({"specs", "tokens"})
SECRET_COLUMNS = frozenset({("jobs", "token"), ("attempts", "token")})

# Whitespace, comments and opening brackets before the first word.
_COMMENT = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*"
_FIRST_WORD = re.compile(_COMMENT + r"([A-Za-z]+)", re.DOTALL)
_READING = frozenset({"select", "with", "values", "explain", "table", "pragma"})
# What else begins a statement of either database. All that is not for reading is turned away; this only tells
# what is not allowed from what is misspelt.
_CHANGING = frozenset(
    {
        "abort", "alter", "analyse", "analyze", "attach", "begin", "call", "checkpoint", "close", "cluster", "comment",
        "commit", "copy", "create", "deallocate", "declare", "delete", "detach", "discard", "do", "drop", "end",
        "execute", "fetch", "grant", "import", "insert", "listen", "load", "lock", "merge", "move", "notify",
        "prepare", "reassign", "refresh", "reindex", "release", "replace", "reset", "revoke", "rollback", "savepoint",
        "security", "set", "show", "start", "truncate", "unlisten", "update", "vacuum",
    }
)  # fmt: skip
_PRAGMAS = frozenset({"table_info", "table_list", "table_xinfo", "index_list", "index_info", "foreign_key_list"})


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
    """gpuq.ports.history.History."""

    def __init__(self, database: Database) -> None:
        self.database = database
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

    def query(self, sql: str, *, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Values as JSON can carry them; times as ISO 8601 text in UTC on both databases."""
        word = _FIRST_WORD.match(sql)
        first = "" if word is None else word[1].lower()
        if first in _CHANGING:
            raise _only_reads()
        if first not in _READING:
            shown = repr(word[1]) if word is not None else "nothing"
            raise UsageError(f"SQL: syntax error: no statement begins with {shown}", hint="write one SELECT; " + HINT)
        columns, rows = self._ask_sqlite(sql, limit) if self.database.path else self._ask_postgres(sql, limit)
        return columns, [tuple(map(_portable, row)) for row in rows]

    def _ask_sqlite(self, sql: str, limit: int | None) -> tuple[list[str], list[Any]]:
        assert self.database.path is not None
        refused: list[str] = []
        with told_as_our_own():
            connection = connect_sqlite(self.database.path, mode="ro")
        with closing(connection):
            deadline = time.monotonic() + QUERY_LIMIT_S
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            connection.execute("PRAGMA query_only = ON")
            connection.set_authorizer(lambda *action: _allow(refused, *action))
            try:
                cursor = connection.execute(sql)
                rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
                return [column[0] for column in cursor.description or ()], rows
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise _sqlite_complaint(error, refused) from error

    def _ask_postgres(self, sql: str, limit: int | None) -> tuple[list[str], list[Any]]:
        # Its own connection, closed afterwards: whatever the statement did to the session ends with it.
        engine = create_engine(self.database.url, poolclass=NullPool, connect_args={"connect_timeout": 5})
        try:
            with engine.connect().execution_options(postgresql_readonly=True) as connection:
                driver: Any = connection.connection.driver_connection
                driver.read_only = True
                driver.execute(f"SET LOCAL statement_timeout = {int(QUERY_LIMIT_S * 1000)}")
                driver.execute("SET LOCAL TIME ZONE 'UTC'")
                self._refuse_secrets(driver, sql)
                # A prepared statement is exactly one statement; in the simple protocol `COMMIT; DELETE …` would pass.
                cursor = driver.execute(sql, prepare=True)
                rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
                return [column.name for column in cursor.description or ()], rows
        except (DBAPIError, self.database.driver_error) as error:
            raise _postgres_complaint(error) from error
        finally:
            engine.dispose()

    def _refuse_secrets(self, driver: Any, sql: str) -> None:
        if not any(name in sql.lower() for name in SECRET_TABLES):
            return
        plan = driver.execute("EXPLAIN (FORMAT JSON) " + sql, prepare=True).fetchone()[0]
        if used := sorted(_relations(plan) & SECRET_TABLES):
            raise Refused(f"{', '.join(used)}: not shown here", hint=HINT)


def _only_reads() -> Refused:
    return Refused("this is a window on the history: it only reads", hint="write one SELECT; " + HINT)


def _allow(refused: list[str], action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's authorizer: asked for everything that a statement does, before it does it."""
    if action == sqlite3.SQLITE_READ:
        if first in SECRET_TABLES or (first, second) in SECRET_COLUMNS:
            refused.append(f"{first}.{second}: not shown here")
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if second in {"load_extension", "writefile", "edit"} else sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_OK if first in _PRAGMAS else sqlite3.SQLITE_DENY
    if action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _relations(plan: Any) -> set[str]:
    """Every table that a plan of PostgreSQL touches."""
    if isinstance(plan, list):
        return set().union(*map(_relations, plan))
    if not isinstance(plan, dict):
        return set()
    named = {plan["Relation Name"]} if "Relation Name" in plan else set()
    return named.union(*map(_relations, plan.values()))


def _sqlite_complaint(error: Exception, refused: list[str]) -> Exception:
    name = getattr(error, "sqlite_errorname", None)
    if refused:
        return Refused(refused[0], hint=HINT)
    if name in {"SQLITE_AUTH", "SQLITE_READONLY"} or "not authorized" in str(error):
        return _only_reads()
    if name == "SQLITE_INTERRUPT":
        return UsageError(f"the query ran longer than {QUERY_LIMIT_S:.0f} s and was ended", hint="ask for less of it")
    if name in {None, "SQLITE_ERROR"}:
        if "one statement at a time" in str(error):
            return Refused("only one statement at a time", hint="leave out what follows the semicolon")
        return UsageError(f"SQL: {error}", hint=HINT)
    if str(error).startswith("no such"):
        return UsageError(f"SQL: {error}", hint=HINT)
    return translated(error)


def _postgres_complaint(error: Exception) -> Exception:
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "sqlstate", None) or ""
    words = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if state == "25006":
        return _only_reads()
    if state == "57014":
        return UsageError(f"the query ran longer than {QUERY_LIMIT_S:.0f} s and was ended", hint="ask for less of it")
    if "multiple commands" in words:
        return Refused("only one statement at a time", hint="leave out what follows the semicolon")
    if state[:2] in {"42", "22", "21", "0A"}:
        return UsageError(f"SQL: {words}", hint=HINT)
    told = translated(error)
    return told if isinstance(told, DatabaseUnavailable) else UsageError(f"SQL: {words}", hint=HINT)


def _portable(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value.astimezone(UTC).timestamp() if value.tzinfo else value.replace(tzinfo=UTC).timestamp())
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value

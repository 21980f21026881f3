"""Asks a person's question in a process of its own, waits, and tells its end in gpuq's words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from gpuq.errors import ConfigError, DatabaseUnavailable, GpuqError, Refused, UsageError
from gpuq.stores.sql.core.engine import CONNECT_WAIT_S, Database, parse_url
from gpuq.stores.sql.core.errors import translated
from gpuq.stores.sql.schema.views import view_statements

PROGRAM = Path(__file__).with_name("reading_process.py")
# How much longer than the question's own time its process may take, before it is killed.
LATE_S = 10.0
_MAKE_AGAIN = "`gpuq db reporter` sets the rights of the login; then look at GPUQ_REPORT_DATABASE_URL"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one question may cost. `bytes`: of the answer as JSON; `memory`: for the database's work, in bytes."""

    seconds: float = 30.0
    rows: int = 100_000
    bytes: int = 64 * 1024 * 1024
    memory: int = 256 * 1024 * 1024


BOUNDS = Bounds()
VIEWS = tuple(view_statements("sqlite"))
HINT = f"views for reports: {', '.join(VIEWS)}"

# Whitespace, comments and opening brackets before the first word.
_COMMENT = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*"
_FIRST_WORD = re.compile(_COMMENT + r"([A-Za-z]+)", re.DOTALL)
_READING = frozenset({"select", "with", "values", "explain", "table"})
# What else begins a statement of either database. The database refuses all that does not read; this only tells what is
# not allowed from what is misspelt.
_CHANGING = frozenset(
    {
        "abort", "alter", "analyse", "analyze", "attach", "begin", "call", "checkpoint", "close", "cluster", "comment",
        "commit", "copy", "create", "deallocate", "declare", "delete", "detach", "discard", "do", "drop", "end",
        "execute", "fetch", "grant", "import", "insert", "listen", "load", "lock", "merge", "move", "notify", "pragma",
        "prepare", "reassign", "refresh", "reindex", "release", "replace", "reset", "revoke", "rollback", "savepoint",
        "security", "set", "show", "start", "truncate", "unlisten", "update", "vacuum",
    }
)  # fmt: skip


def answer(database: Database, report_url: str | None, sql: str, *, limit: int | None = None) -> IO[bytes]:
    """The answer as JSON, `{"columns": [...], "rows": [[...]]}`, in a file without a name, at its start.

    `report_url`: PostgreSQL's login for reports; None: the daemon's own. `limit`: at most so many rows. Raises Refused
    for anything that is not reading or not shown, UsageError for bad SQL (with the database's words) and for a question
    that takes too much, DatabaseUnavailable.
    """
    _check(sql)
    asked: dict[str, Any] = {"sql": sql, "limit": limit, "bounds": asdict(BOUNDS), "asker": os.getpid()}
    if database.path is not None:
        asked |= {"path": str(database.path), "views": VIEWS}
    else:
        asked |= {
            "connect": _connect(database, report_url),
            "session": _session(),
            "restricted": report_url is not None,
        }
    # Without the site's packages, which SQLite's driver does not need, Python starts in half the time.
    words = [sys.executable, *(["-I", "-S"] if database.path is not None else ["-P"]), str(PROGRAM)]
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115, closed by whoever reads it
    except OSError as error:
        raise _no_room(error.strerror or str(error)) from error
    try:
        verdict = _run(words, json.dumps(asked).encode(), file)
        if verdict.get("end") != "done":
            raise _complaint(verdict)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _check(sql: str) -> None:
    """Raises Refused and UsageError for what is not worth asking the database."""
    word = _FIRST_WORD.match(sql)
    first = "" if word is None else word[1].lower()
    if first in _CHANGING:
        raise _only_reads()
    if first not in _READING:
        shown = repr(word[1]) if word is not None else "nothing"
        raise UsageError(f"SQL: syntax error: no statement begins with {shown}", hint="write one SELECT; " + HINT)
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in sql):
        raise UsageError("SQL: the statement holds a character that is no text", hint="write one SELECT; " + HINT)


def _connect(database: Database, report_url: str | None) -> dict[str, Any]:
    url = database.url if report_url is None else parse_url(report_url)
    words, options = database.engine.dialect.create_connect_args(url)
    # SQLAlchemy's own types, which only this process has.
    options.pop("context", None)
    return {"words": words, "options": {"connect_timeout": CONNECT_WAIT_S, "application_name": "gpuq-sql", **options}}


def _session() -> list[str]:
    ms = int(BOUNDS.seconds * 1000)
    return [
        f"SET statement_timeout = {ms}",
        f"SET idle_in_transaction_session_timeout = {ms + int(LATE_S * 1000)}",
        "SET lock_timeout = 2000",
        "SET default_transaction_read_only = on",
        "SET work_mem = '16MB'",
        "SET max_parallel_workers_per_gather = 0",
        "SET jit = off",
        "SET TIME ZONE 'UTC'",
        "SET client_encoding = 'UTF8'",
    ]


def _run(words: list[str], asked: bytes, out: IO[bytes]) -> dict[str, Any]:
    """The verdict of the process. Raises DatabaseUnavailable when none can be started."""
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE, cwd="/")
    except OSError as error:
        raise DatabaseUnavailable(
            f"no process could be started for the question ({error.strerror})", hint="the machine is full; try again"
        ) from error
    try:
        _, told = process.communicate(asked, timeout=BOUNDS.seconds + LATE_S)
    except subprocess.TimeoutExpired:
        return {"end": "time"}
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stderr):
                if stream is not None:
                    stream.close()
    for line in told.splitlines():
        # Beside the verdict a library may have something to say there.
        with suppress(ValueError):
            verdict = json.loads(line)
            if isinstance(verdict, dict) and "end" in verdict:
                return verdict
    # Killed by the kernel for its memory or CPU time, or by an administrator.
    return {"end": "killed"}


def _no_room(words: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"there is no room for the answer ({words})", hint=f"free some space in {tempfile.gettempdir()}, then try again"
    )


def _only_reads() -> Refused:
    return Refused("this is a window on the history: it only reads", hint="write one SELECT; " + HINT)


def _complaint(verdict: dict[str, Any]) -> Exception:
    """The error for an end that is not `done`."""
    end, words = verdict.get("end"), str(verdict.get("words") or "")
    less = "ask for less of it: LIMIT, WHERE, GROUP BY"
    enough: dict[Any, GpuqError] = {
        "time": UsageError(f"the question ran longer than {BOUNDS.seconds:g} s and was ended", hint=less),
        "rows": UsageError(f"the answer has more than {BOUNDS.rows:,} rows", hint=less),
        "bytes": UsageError(f"the answer is larger than {BOUNDS.bytes >> 20} MiB", hint=less),
        "memory": UsageError(
            f"the question needs more memory than the {BOUNDS.memory >> 20} MiB it may use", hint=less
        ),
        "value": UsageError(f"a single value is longer than {words} bytes", hint="cut it: substr(value, 1, 1000)"),
        "killed": UsageError("the question took too much memory or time and was ended", hint=less),
        "refused": Refused(words, hint=HINT),
        "excess": ConfigError("the login of GPUQ_REPORT_DATABASE_URL may read more than the views", hint=_MAKE_AGAIN),
    }
    if end in enough:
        return enough[end]
    if end == "room":
        return _no_room(words)
    if end == "connect":
        return DatabaseUnavailable(
            f"PostgreSQL does not let the login for questions in ({words})",
            hint="look at GPUQ_REPORT_DATABASE_URL, or run `gpuq db reporter` again; `gpuq doctor` tells more",
        )
    if "name" in verdict:
        return _of_sqlite(str(verdict["name"]), words)
    return _of_postgres(str(verdict.get("state") or ""), words)


def _of_sqlite(name: str, words: str) -> Exception:
    if name in {"SQLITE_AUTH", "SQLITE_READONLY"} or "not authorized" in words:
        return _only_reads()
    if "one statement at a time" in words:
        return Refused("only one statement at a time", hint="leave out what follows the semicolon")
    if name in {"", "SQLITE_ERROR"} or words.startswith("no such"):
        return UsageError(f"SQL: {words}", hint=HINT)
    return _unavailable(name, words)


def _unavailable(name: str, words: str) -> Exception:
    import sqlite3

    error = sqlite3.OperationalError(words)
    error.sqlite_errorname = name
    told = translated(error)
    return told if isinstance(told, GpuqError) else UsageError(f"SQL: {words}", hint=HINT)


def _of_postgres(state: str, words: str) -> Exception:
    if state == "25006":
        return _only_reads()
    if state == "57014":
        return _complaint({"end": "time"})
    if state == "42501":
        return Refused(f"not shown here ({words})", hint=HINT)
    if "multiple commands" in words:
        return Refused("only one statement at a time", hint="leave out what follows the semicolon")
    if state[:2] in {"08", "53", "57", "58"}:
        return DatabaseUnavailable(f"PostgreSQL could not answer ({words})", hint="try again; ask for less of it")
    return UsageError(f"SQL: {words}", hint=HINT)

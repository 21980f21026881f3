"""Errors of the database drivers, translated into gpuq's own.

Both drivers raise one class for very different things; SQLite's error names and PostgreSQL's SQLSTATE codes
tell them apart. Whatever is not the database's state is a fault of the code above and stays an exception of
another kind (ValueError for a row that a constraint refused).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from gpuq.errors import DatabaseUnavailable, SchemaMismatch

_FULL = "free some space on the database's disk, then try again"
_RIGHTS = "check that this user may write the database file and its folder, and that the disk is not read-only"
_UPGRADE = "run `gpuq db upgrade`; `gpuq db current` shows the schema's version"

# By the first two words of SQLite's extended error name (SQLITE_IOERR_FSYNC is an SQLITE_IOERR).
_SQLITE: dict[str, tuple[str, str]] = {
    "SQLITE_BUSY": ("the database stays locked", "another process holds a long transaction; try again"),
    "SQLITE_LOCKED": ("the database stays locked", "another thread holds a long transaction; try again"),
    "SQLITE_FULL": ("the database's disk is full", _FULL),
    "SQLITE_READONLY": ("the database cannot be written", _RIGHTS),
    "SQLITE_PERM": ("the database cannot be opened", _RIGHTS),
    "SQLITE_CANTOPEN": ("the database cannot be opened", "check GPUQ_DATABASE_URL, the folder and its rights"),
    "SQLITE_IOERR": ("the database's disk reports an error", "check the disk (`dmesg`), its space, and the mount"),
    "SQLITE_CORRUPT": ("the database file is damaged", "stop gpuq and run `gpuq db restore` with a backup"),
    "SQLITE_NOTADB": ("the database file is not a database", "check GPUQ_DATABASE_URL, or restore a backup"),
}

# By SQLSTATE class (two characters) or whole code.
_POSTGRES: dict[str, tuple[str, str]] = {
    "08": ("the connection to PostgreSQL was lost", "check that the server runs, then try again"),
    "57P": ("PostgreSQL is shutting down or starting", "try again when the server is up"),
    "28": ("PostgreSQL refused the login", "check user and password in GPUQ_DATABASE_URL"),
    "3D": ("PostgreSQL has no such database", "create it (`createdb`), or check GPUQ_DATABASE_URL"),
    "53100": ("PostgreSQL's disk is full", _FULL),
    "53": ("PostgreSQL is out of resources", "wait, or raise its max_connections"),
    "25006": ("PostgreSQL accepts no writes now", "this is a standby or a read-only server; use the primary"),
    "25P03": ("the transaction took too long", "try again"),
    "55P03": ("the database stays locked", "another gpuq process holds a long transaction; try again"),
    "57014": ("the statement took too long", "try again, or look for a lock with `pg_stat_activity`"),
    "40": ("PostgreSQL could not serialise the transaction", "try again"),
    "58": ("PostgreSQL's disk reports an error", "look at the server's log"),
    "42501": ("PostgreSQL refused access to a table", "the user needs to own gpuq's tables, or all rights on them"),
}

_MISSING_TABLE = frozenset({"42P01", "42703"})


def translated(error: Exception) -> Exception:
    """The exception to raise in place of one of SQLAlchemy's or of a driver."""
    cause = getattr(error, "orig", None) or error
    if isinstance(error, exc.TimeoutError):
        return DatabaseUnavailable("no database connection became free", hint="the daemon is overloaded; try again")
    if isinstance(error, exc.NoSuchModuleError | exc.ArgumentError):
        return DatabaseUnavailable(
            f"GPUQ_DATABASE_URL cannot be used: {error}", hint="sqlite:/// or postgresql+psycopg://"
        )
    if any(kind.__name__ == "IntegrityError" for kind in type(cause).__mro__):
        return ValueError(f"the database refused a row: {cause}")
    if isinstance(cause, sqlite3.Error):
        return _from_sqlite(cause)
    return _from_postgres(cause)


def _from_sqlite(cause: sqlite3.Error) -> Exception:
    name = getattr(cause, "sqlite_errorname", None) or ""
    known = _SQLITE.get("_".join(name.split("_")[:2]))
    if known:
        return DatabaseUnavailable(f"{known[0]} ({cause})", hint=known[1])
    if str(cause).startswith(("no such table", "no such column", "no such view")):
        return SchemaMismatch(f"the database does not have this release's schema ({cause})", hint=_UPGRADE)
    return cause


def _from_postgres(cause: BaseException) -> Exception:
    state = getattr(cause, "sqlstate", None) or ""
    words = " ".join(str(cause).split())
    if state in _MISSING_TABLE:
        return SchemaMismatch(f"the database does not have this release's schema ({words})", hint=_UPGRADE)
    for length in (5, 3, 2):
        if known := _POSTGRES.get(state[:length]):
            return DatabaseUnavailable(f"{known[0]} ({words})", hint=known[1])
    # psycopg gives no code when it never reached a server, or when a connection broke under it.
    if not state and type(cause).__name__ in {"OperationalError", "ConnectionTimeout", "InterfaceError"}:
        hint = f"{_POSTGRES['08'][1]}; GPUQ_DATABASE_URL says where it is"
        return DatabaseUnavailable(f"PostgreSQL cannot be reached ({words})", hint=hint)
    return cause if isinstance(cause, Exception) else RuntimeError(words)


@contextmanager
def told_as_our_own(driver_error: type[Exception] = sqlite3.Error) -> Iterator[None]:
    """`driver_error` is the base class of what the driver in use raises."""
    try:
        yield
    except (exc.SQLAlchemyError, driver_error) as error:
        raise translated(error) from error


def violated(error: Exception, name: str, *columns: str) -> bool:
    """Whether this is the violation of the unique index `name`; SQLite names only its columns."""
    diagnostics = getattr(error, "diag", None)
    if diagnostics is not None:
        return bool(diagnostics.constraint_name == name)
    return str(error).endswith("failed: " + ", ".join(columns))

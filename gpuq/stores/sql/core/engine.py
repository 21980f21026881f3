"""Connections and transactions.

One writer at a time, on both databases. On SQLite that is BEGIN IMMEDIATE (a deferred transaction that reads
and then writes fails at once with SQLITE_BUSY_SNAPSHOT, whatever the timeout), on PostgreSQL a lock on a table
taken first. So a check and the write that rests on it cannot be torn apart (limits, keys, request ids), and
events become visible in the order of their ids, which lets a reader follow them with `after_id`. Threads of
one process queue up on a lock of their own instead of polling the database's. Readers see one snapshot and
never wait for a writer.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

from sqlalchemy import URL, Connection, Engine, QueuePool, event, make_url
from sqlalchemy import create_engine as sqlalchemy_engine
from sqlalchemy.exc import ArgumentError

from gpuq.errors import ConfigError, DatabaseUnavailable
from gpuq.stores.sql.core.errors import told_as_our_own
from gpuq.stores.sql.core.sqlite_transactions import SqliteReaders, SqliteWriter

LOCK_WAIT_S = 15.0
CONNECT_WAIT_S = 5
# For the turn to free memory, which may as well be done another time.
SPARE_WAIT_S = 1.0
# The turn to write on PostgreSQL. Not an advisory lock: everybody who may log in can take one of any number, and
# `pg_locks` shows the numbers. This lock takes a right to write the table, and a login that reads has none. Every
# database of ours has the table, only an upgrade writes it, and who reads it does not wait.
WRITERS_TURN = "LOCK TABLE alembic_version IN EXCLUSIVE MODE"

# FULL: in WAL mode only this makes a commit survive a power cut. The size limit lets the log keep its
# blocks (a growing file makes fsync slower) but not those of one huge submission.
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -16000",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
    # Pages before the log is copied back; larger than the default, as the same pages are rewritten for every job.
    "PRAGMA wal_autocheckpoint = 4000",
)

_POSTGRES_SESSION = (
    f"SET lock_timeout = {int(LOCK_WAIT_S * 1000)}",
    "SET statement_timeout = 60000",
    # A writer that is suspended in mid-transaction must not keep everybody else out.
    "SET idle_in_transaction_session_timeout = 60000",
    "SET TIME ZONE 'UTC'",
)


class _Turn:
    """The process-wide queue of writers of one database."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    @contextmanager
    def held(self, wait_s: float) -> Iterator[None]:
        me = threading.get_ident()
        if self._owner == me:
            raise RuntimeError("a write transaction inside a write transaction of the same thread")
        if not self._lock.acquire(timeout=wait_s):
            raise DatabaseUnavailable(
                "the database stays locked", hint="another thread holds a long transaction; try again"
            )
        self._owner = me
        try:
            yield
        finally:
            self._owner = None
            self._lock.release()


_turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
_turns_lock = threading.Lock()


def _turn(name: str) -> _Turn:
    with _turns_lock:
        turn = _turns.get(name)
        if turn is None:
            turn = _turns[name] = _Turn()
        return turn


def parse_url(url: str) -> URL:
    """Raises ConfigError for anything but a SQLite file or PostgreSQL through psycopg 3."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    hint = "write sqlite:////absolute/path/gpuq.db or postgresql+psycopg://user@host/database"
    if parsed is None or parsed.drivername not in {"sqlite", "postgresql+psycopg"}:
        raise ConfigError("GPUQ_DATABASE_URL names no database that gpuq can use", hint=hint)
    if parsed.drivername == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigError("GPUQ_DATABASE_URL needs a database file: what is only in memory is lost", hint=hint)
    own_wait_s(parsed)
    return parsed


def own_wait_s(url: URL) -> float | None:
    """`?timeout=` of a SQLite URL: how many seconds a writer waits for another one; None is LOCK_WAIT_S.
    Raises ConfigError."""
    given = url.query.get("timeout") if url.drivername == "sqlite" else None
    if given is None:
        return None
    try:
        wait_s = float(str(given))
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= 3600:
        raise ConfigError(f"GPUQ_DATABASE_URL: timeout={given} is not a number of seconds", hint="0 to 3600")
    return wait_s


def sqlite_path(url: URL | str) -> Path | None:
    """The database file, or None for PostgreSQL."""
    parsed = parse_url(url) if isinstance(url, str) else url
    return Path(parsed.database or "").absolute() if parsed.drivername == "sqlite" else None


def connect_sqlite(path: Path, *, mode: str = "rw", wait_s: float | None = None) -> sqlite3.Connection:
    """An existing file, in the driver's autocommit: transactions are ours to begin. `mode` rw or ro."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=LOCK_WAIT_S if wait_s is None else wait_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )


def _settled_sqlite(path: Path, wait_s: float | None) -> sqlite3.Connection:
    connection = connect_sqlite(path, wait_s=wait_s)
    try:
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def _sqlite_engine(path: Path, wait_s: float | None) -> Engine:
    engine = sqlalchemy_engine(
        "sqlite://",
        creator=lambda: _settled_sqlite(path, wait_s),
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=56,
        pool_timeout=LOCK_WAIT_S,
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute(connection.get_execution_options().get("gpuq_begin", "BEGIN"))

    return engine


def _postgres_engine(url: URL) -> Engine:
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_WAIT_S, "application_name": "gpuq"}
    # A server that vanished without a word is noticed in seconds, not in the kernel's quarter of an hour.
    arguments |= {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15000}
    try:
        engine = sqlalchemy_engine(
            url,
            connect_args={key: value for key, value in arguments.items() if key not in url.query},
            pool_size=8,
            max_overflow=24,
            pool_timeout=LOCK_WAIT_S,
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"PostgreSQL needs a driver that is not installed ({error.name})",
            hint="pip install 'gpu-job-queue[postgres]'",
        ) from None

    @event.listens_for(engine, "connect")
    def settle(connection: Any, _record: object) -> None:
        for statement in _POSTGRES_SESSION:
            connection.execute(statement)
        connection.commit()

    return engine


class Database:
    """One database's connections, for any number of threads. Nothing is opened before the first use."""

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.path = sqlite_path(self.url)
        self._wait_s = own_wait_s(self.url)
        self.engine = _sqlite_engine(self.path, self._wait_s) if self.path else _postgres_engine(self.url)
        self.dialect: str = self.engine.dialect.name
        self._turn = _turn(str(self.path.resolve()) if self.path else self.url.render_as_string())
        self.driver_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        self._writer: SqliteWriter | None = None
        self._readers: SqliteReaders | None = None
        if self.path:
            connect = partial(_settled_sqlite, self.path, self._wait_s)
            self._writer, self._readers = SqliteWriter(connect), SqliteReaders(connect)
        # Called before each write to a SQLite file, in whatever thread: the disk may be full.
        self.make_room: Callable[[], None] = lambda: None
        # Called before each question: is it still the home's database?
        self.check: Callable[[], None] = lambda: None
        self._reads = self._writes = self.engine
        if self.path:
            self._writes = self.engine.execution_options(gpuq_begin="BEGIN IMMEDIATE")
        else:
            self._reads = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot. Raises DatabaseUnavailable."""
        self.check()
        with told_as_our_own(self.driver_error), self._reads.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def read_on_driver(self) -> Iterator[Any]:
        """As `read`, with the driver's own connection (sqlite3 or psycopg)."""
        if self._readers is None:
            with self.read() as connection:
                yield connection.connection.driver_connection
            return
        self.check()
        with told_as_our_own(self.driver_error), self._readers.snapshot() as driver:
            yield driver

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends well. Raises DatabaseUnavailable."""
        with (
            told_as_our_own(self.driver_error),
            self._turn.held(LOCK_WAIT_S if self._wait_s is None else self._wait_s),
            self._writes.connect() as connection,
            connection.begin(),
        ):
            if self.path is None:
                connection.exec_driver_sql(WRITERS_TURN)
            self.make_room()
            yield connection

    @contextmanager
    def write_on_driver(self) -> Iterator[Any]:
        """As `write`, with the driver's own connection (sqlite3 or psycopg)."""
        if self._writer is None:
            with self.write() as connection:
                yield connection.connection.driver_connection
            return
        with (
            told_as_our_own(self.driver_error),
            self._turn.held(LOCK_WAIT_S if self._wait_s is None else self._wait_s),
            self._writer.transaction() as driver,
        ):
            self.make_room()
            yield driver

    def spare_memory(self) -> None:
        """On SQLite, frees the pages that connections which nobody uses now keep: up to 16 MB each. Raises
        DatabaseUnavailable when somebody writes all the time."""
        if self._writer is None or self._readers is None:
            return
        with told_as_our_own(self.driver_error):
            self._readers.spare_memory()
            with self._turn.held(SPARE_WAIT_S):
                self._writer.spare_memory()

    def close(self) -> None:
        """Closes the connections."""
        if self._writer is not None:
            self._writer.close()
        if self._readers is not None:
            self._readers.close()
        self.engine.dispose()


def as_database(target: str | Database) -> Database:
    return target if isinstance(target, Database) else Database(target)

"""Making a database, bringing it up to date, and copying it.

`ensure` is what every start of gpuq calls. When nothing is to be done it reads one row; Alembic is imported
only where a migration really runs. Two first starts at one moment do not collide: one creates, under a file
lock (SQLite) or a lock of the database (PostgreSQL), the other finds it done.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine, event

from gpuq.errors import DatabaseUnavailable, Refused, SchemaMismatch
from gpuq.linux import lock_file
from gpuq.stores.sql.core.engine import WRITERS_TURN, Database, connect_sqlite, parse_url, sqlite_path
from gpuq.stores.sql.core.errors import told_as_our_own, translated
from gpuq.stores.sql.questions import report_role
from gpuq.stores.sql.schema import create
from gpuq.stores.sql.steps import Tell, Upgrade, given_ids, go_on_after, revisions_after, to_stderr

# Names the making of the schema among the advisory locks of a PostgreSQL database; any fixed number does.
FIRST_START = 0x67707571
_USE_PG_DUMP = "use `pg_dump -Fc DATABASE > FILE` and `pg_restore -d DATABASE FILE`"


def scripts() -> Path:
    """The folder of Alembic's env.py: in the wheel it is gpuq/_migrations, in the source tree migrations/."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise DatabaseUnavailable("the migrations are missing from this installation", hint="install gpuq again")


def ensure(url: str, tell: Tell | None = None) -> None:
    """The database exists and has this release's schema when this returns.

    A fresh one is created; an older one is upgraded, on SQLite after a backup beside it. `tell`: what is done to a
    large one, as it is done; None: on stderr. Raises SchemaMismatch for a newer one, DatabaseUnavailable when it cannot
    be reached.
    """
    if current(url) != create.HEAD:
        upgrade(url, tell)


def current(url: str) -> str | None:
    """The revision that the database is marked with; None when there is none, or no database yet."""
    path = sqlite_path(url)
    if path is None:
        with told_as_our_own(), _connected(url) as connection:
            return create.revision(connection)
    if not path.exists() or path.stat().st_size == 0:
        return None
    with told_as_our_own(), closing(connect_sqlite(path)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise
        return None if row is None else str(row[0])


def upgrade(url: str, tell: Tell | None = None) -> tuple[str | None, str]:
    """From which revision to which. Raises as `ensure` does."""
    path = sqlite_path(url)
    with told_as_our_own():
        if path is None:
            with _connected(url, write=True) as connection:
                if (before := _made(connection)) not in {None, create.HEAD}:
                    _bring_up(connection, str(before))
                return before, create.HEAD
        with _alone(path):
            _make_file(path)
            with _connected(url, write=True) as connection:
                before = _made(connection)
            if before not in {None, create.HEAD}:
                _in_steps(url, path, str(before), tell or to_stderr)
            return before, create.HEAD


def _made(connection: Connection) -> str | None:
    """The revision that is there; where none is, the schema is made."""
    before = create.revision(connection)
    if before is None:
        if taken := create.foreign_tables(connection):
            raise SchemaMismatch(
                f"the database holds tables that are not gpuq's ({', '.join(taken)})",
                hint="point GPUQ_DATABASE_URL at a database of its own",
            )
        create.create_all(connection)
    return before


def _bring_up(connection: Connection, before: str) -> None:
    """PostgreSQL, all in one transaction."""
    configuration = _alembic(before)
    readers = report_role.readers(connection)
    _run_alembic(configuration, connection)
    report_role.let_read(connection, readers)


def _in_steps(url: str, path: Path, before: str, tell: Tell) -> None:
    configuration = _alembic(before)
    steps = Upgrade(path, tell)
    steps.copy_first(before, lambda target: backup(f"sqlite:///{path}", target))
    configuration.attributes["tell"] = lambda step: steps.tell(f"  {step}")
    for revision in revisions_after(configuration, before):
        steps.tell(f"schema {revision}")
        with _connected(url, write=True) as connection:
            _run_alembic(configuration, connection, revision)
    steps.ended()


def _alembic(before: str) -> Any:
    """Alembic's configuration. Raises SchemaMismatch when this release does not know the revision."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    configuration = Config()
    configuration.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    if before not in {script.revision for script in ScriptDirectory.from_config(configuration).walk_revisions()}:
        raise SchemaMismatch(
            f"the database has schema {before}, which this release (schema {create.HEAD}) does not know",
            hint="it was written by a newer gpuq: install that release, or restore a backup made before it",
        )
    return configuration


def _run_alembic(configuration: Any, connection: Connection, revision: str | None = None) -> None:
    from alembic import command

    configuration.attributes["connection"] = connection
    driver: Any = connection.connection.driver_connection
    given = given_ids(driver) if connection.dialect.name == "sqlite" else {}
    command.upgrade(configuration, revision or create.HEAD)
    if connection.dialect.name == "sqlite":
        # A table that was written anew would go on after the ids that are in it, not after those that were given.
        go_on_after(driver, given)
    if connection.dialect.name == "sqlite" and revision in {None, create.HEAD}:
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise SchemaMismatch(
                f"the upgrade left {len(broken)} rows without what they refer to, and was not finished",
                hint="the database was damaged before: restore a backup",
            )


def _take_turn(connection: Connection) -> None:
    """Keeps other writers out until the transaction ends. An empty database has no table to lock yet, and no login that
    only reads, so an advisory lock does there."""
    if create.revision(connection) is None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({FIRST_START})")
    else:
        connection.exec_driver_sql(WRITERS_TURN)


@contextmanager
def _connected(url: str, *, write: bool = False) -> Iterator[Connection]:
    """One connection with one transaction around everything; the definitions of tables are part of it on both
    databases. Foreign keys are not enforced on SQLite, where changing a table means writing it anew."""
    path = sqlite_path(url)
    if path is None:
        database = Database(url)
        try:
            with database.engine.begin() as connection:
                if write:
                    _take_turn(connection)
                yield connection
        finally:
            database.close()
        return
    engine = create_engine("sqlite://", creator=lambda: connect_sqlite(path), poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    with engine.begin() as connection:
        yield connection


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """A lock beside the database. Not on its own file: closing that would drop SQLite's locks of this process."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_file(f"{path}.lock", wait=True)
    except OSError as error:
        raise DatabaseUnavailable(
            f"cannot write in {path.parent}: {error.strerror}", hint="check the folder, its rights, and the disk"
        ) from error
    try:
        yield
    finally:
        os.close(lock)


def _make_file(path: Path) -> None:
    """An empty file, readable by its owner alone, in WAL mode. SQLite gives its log the same rights."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DatabaseUnavailable(
            f"cannot make the database {path}: {error.strerror}", hint="check the folder, its rights, and the disk"
        ) from error
    with closing(connect_sqlite(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def backup(url: str, target: Path) -> None:
    """A consistent copy, also while gpuq runs. Raises Refused when `target` exists, or for PostgreSQL."""
    path = file_of(url)
    partial = target.with_name(target.name + ".partial")
    if target.exists():
        raise Refused(f"{target} exists", hint="name another file; backups are not overwritten")
    with told_as_our_own():
        try:
            os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
            with closing(connect_sqlite(path, mode="ro")) as source, closing(connect_sqlite(partial)) as copy:
                source.backup(copy)
                # One file that can be carried away, without a log beside it.
                copy.execute("PRAGMA journal_mode = DELETE")
            _sync(partial)
            partial.rename(target)
            _sync(target.parent)
        except OSError as error:
            raise DatabaseUnavailable(
                f"cannot write the backup {target}: {error.strerror}", hint="check the folder, its rights, and the disk"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def restore(url: str, source: Path) -> None:
    """Puts a backup in the database's place, in one transaction; the daemon must be stopped. Ids given out since
    the backup are not given again. Raises Refused for what is not a backup of gpuq, SchemaMismatch for a newer one."""
    path = file_of(url)
    if not source.is_file():
        raise Refused(f"there is no file {source}", hint="name a file that `gpuq db backup` made")
    check_backup(source)
    with told_as_our_own(), _alone(path):
        _make_file(path)
        with closing(connect_sqlite(path)) as target, closing(connect_sqlite(source, mode="ro")) as copy:
            given = given_ids(target)
            copy.backup(target)
            target.execute("PRAGMA journal_mode = WAL")
            go_on_after(target, given)
    ensure(url)


def check_backup(source: Path) -> None:
    """Raises Refused for what is not a sound backup of gpuq, SchemaMismatch for one of a newer release."""
    try:
        with closing(connect_sqlite(source, mode="ro")) as connection:
            sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            connection.execute("SELECT count(*) FROM jobs WHERE id < 0").fetchone()
    except sqlite3.Error as error:
        told = translated(error)
        raise Refused(
            f"{source} is not a backup of gpuq ({told})", hint="name a file that `gpuq db backup` made"
        ) from error
    if not sound or row is None:
        raise Refused(f"{source} is damaged", hint="use an older backup")
    if row[0] != create.HEAD:
        _alembic(str(row[0]))


def file_of(url: str) -> Path:
    """Of a SQLite database. Raises Refused for another one."""
    path = sqlite_path(parse_url(url))
    if path is None:
        raise Refused("gpuq copies SQLite databases only", hint=_USE_PG_DUMP)
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Which database this is, and how far its numbers have gone: what a home compares with what it remembers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from gpuq.domain.installation_keys import InstallationKey
from gpuq.ports.records import Standing
from gpuq.stores.sql.core.engine import Database, connect_sqlite
from gpuq.stores.sql.core.errors import told_as_our_own
from gpuq.stores.sql.core.rows import json_text

_TABLES = ("events", "jobs")
# Of events, then of jobs: the highest id that was given, and the highest that is committed.
_NUMBERS = {
    "sqlite": ", ".join([f"(SELECT max(seq) FROM sqlite_sequence WHERE name = '{name}')" for name in _TABLES] * 2),
    "postgresql": ", ".join(
        [
            f"greatest((SELECT max(id) FROM {name}),"
            f" pg_sequence_last_value(pg_get_serial_sequence('{name}', 'id')::regclass))"
            for name in _TABLES
        ]
        + [f"(SELECT max(id) FROM {name})" for name in _TABLES]
    ),
}
_NAME = text(
    "INSERT INTO installation (key, value, at) VALUES (:key, :value, :at)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, at = excluded.at"
)
_NAME_FIRST = text("INSERT INTO installation (key, value, at) VALUES (:key, :value, :at) ON CONFLICT (key) DO NOTHING")


def standing_of(path: Path) -> Standing:
    """What a database file of SQLite says of itself, a backup or the live one. Raises DatabaseUnavailable."""
    with told_as_our_own(), closing(connect_sqlite(path, mode="ro")) as connection:
        key = str(InstallationKey.INSTALLATION)
        asked = f"SELECT (SELECT value FROM installation WHERE key = ?), {_NUMBERS['sqlite']}"
        return _standing_from(connection.execute(asked, (key,)).fetchone())


class SqlIdentity:
    """The name of one database, and its numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def standing(self) -> Standing:
        """One statement. Raises DatabaseUnavailable."""
        with self._database.read() as connection:
            return _standing(connection)

    def name_first(self, name: str) -> str:
        """Its name: this one, unless it has one already. Durable when this returns."""
        with self._database.write() as connection:
            connection.execute(_NAME_FIRST, _named(name))
            return _standing(connection).installation or name

    def take_on(self, name: str, *, last_job: int) -> Standing:
        """Gives the database a new name and lets its ids go on after this one, in one transaction."""
        with self._database.write() as connection:
            connection.execute(_NAME, _named(name))
            if last_job > _standing(connection).last_job:
                _go_on_after(connection, last_job)
        return self.standing()


def _named(name: str) -> dict[str, Any]:
    return {"key": str(InstallationKey.INSTALLATION), "value": json_text(name), "at": time.time()}


def _standing(connection: Connection) -> Standing:
    numbers = _NUMBERS[connection.dialect.name]
    asked = text(f"SELECT (SELECT value FROM installation WHERE key = :key), {numbers}")
    return _standing_from(connection.execute(asked, {"key": str(InstallationKey.INSTALLATION)}).one())


def _standing_from(row: Sequence[Any]) -> Standing:
    name, *numbers = row
    return Standing(None if name is None else json.loads(name), *(int(number or 0) for number in numbers))


def _go_on_after(connection: Connection, last_job: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT setval(pg_get_serial_sequence('jobs', 'id'), :last)"), {"last": last_job})
        return
    connection.execute(
        text(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs', 0"
            " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'jobs')"
        )
    )
    connection.execute(text("UPDATE sqlite_sequence SET seq = :last WHERE name = 'jobs'"), {"last": last_job})

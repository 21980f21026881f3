"""Which database this is, and how far its numbers have gone: what a home compares with what it remembers."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, text

from gpuq.domain.installation_keys import InstallationKey
from gpuq.ports.records import Standing
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.core.rows import json_text

_GIVEN = {
    "sqlite": "(SELECT max(seq) FROM sqlite_sequence WHERE name = 'jobs')",
    "postgresql": "greatest((SELECT max(id) FROM jobs),"
    " pg_sequence_last_value(pg_get_serial_sequence('jobs', 'id')::regclass))",
}
_NAME = text(
    "INSERT INTO installation (key, value, at) VALUES (:key, :value, :at)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, at = excluded.at"
)
_NAME_FIRST = text("INSERT INTO installation (key, value, at) VALUES (:key, :value, :at) ON CONFLICT (key) DO NOTHING")


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
    given = _GIVEN[connection.dialect.name]
    row = connection.execute(
        text(f"SELECT (SELECT value FROM installation WHERE key = :key), (SELECT max(id) FROM events), {given}"),
        {"key": str(InstallationKey.INSTALLATION)},
    ).one()
    name, event, job = row
    return Standing(None if name is None else str(name).strip('"'), int(event or 0), int(job or 0))


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

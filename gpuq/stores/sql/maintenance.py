"""When each maintenance task last ran, ended well, and failed: for `gpuq doctor` and readiness."""

from __future__ import annotations

from sqlalchemy import select, text

from gpuq.ports.admin import MaintenanceRun
from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.core.rows import clean
from gpuq.stores.sql.schema.tables import maintenance_runs


class MaintenanceLog:
    """MaintenanceRuns in SQL: one row a task."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def _note(self, columns: tuple[str, ...], values: dict[str, object]) -> None:
        names = ", ".join(columns)
        binds = ", ".join(f":{name}" for name in columns)
        changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
        statement = text(
            f"INSERT INTO maintenance_runs (task, {names}) VALUES (:task, {binds})"
            f" ON CONFLICT (task) DO UPDATE SET {changes}"
        )
        with self.database.write() as connection:
            connection.execute(statement, values)

    def note_start(self, task: str, at: float) -> None:
        self._note(("last_start",), {"task": task, "last_start": at})

    def note_ok(self, task: str, at: float) -> None:
        self._note(("last_ok",), {"task": task, "last_ok": at})

    def note_error(self, task: str, at: float, error: str) -> None:
        self._note(("last_error", "error"), {"task": task, "last_error": at, "error": clean(error)})

    def runs(self) -> list[MaintenanceRun]:
        """By task name. `last_error` and `error` stay after a later success, which `last_ok` shows."""
        with self.database.read() as connection:
            rows = connection.execute(select(*maintenance_runs.c).order_by(maintenance_runs.c.task))
            return [MaintenanceRun(*row) for row in rows]

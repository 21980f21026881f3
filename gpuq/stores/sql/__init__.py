"""Jobs, attempts, events and everything else that must survive, in SQLite or PostgreSQL.

    open_database(url) -> Database             one set of connections, to share
    open_records(url or Database)              gpuq.ports.records.Records      SqlIdentity(Database)
    open_history(url or Database, report_url)  gpuq.ports.history.History
    checkpoint(Database)                       SQLite: what is in its log, into its file
    open_job_files(url or Database)            gpuq.ports.job_files.JobFiles
    open_web_sessions(url or Database)         gpuq.ports.admin.WebSessions
    open_tokens(url or Database) -> SqlTokens  open_maintenance(url or Database) -> MaintenanceLog
    migrate.ensure / upgrade / current / backup / restore     report_role.make / excess

The schema is made or brought up to date by `migrate.ensure(url)`, never by opening.

In and out: values of the domain and of `gpuq.ports.records`. What a transaction that has ended wrote is on the disk.
From the bottom: `schema`, `core`, `questions`, then reading and writing, then the doors above. May import:
`gpuq.ports`, `gpuq.domain`, `gpuq.errors`, SQLAlchemy and Alembic.
"""

from __future__ import annotations

from typing import TypedDict

from gpuq.errors import GpuqError
from gpuq.ports.records import GivenNumbers
from gpuq.stores.sql import migrate
from gpuq.stores.sql.checkpoint import checkpoint
from gpuq.stores.sql.core.engine import Database, as_database
from gpuq.stores.sql.guard import DatabaseGuard
from gpuq.stores.sql.history import SqlHistory
from gpuq.stores.sql.identity import SqlIdentity, standing_of
from gpuq.stores.sql.job_files import SqlJobFiles
from gpuq.stores.sql.maintenance import MaintenanceLog
from gpuq.stores.sql.questions import report_role
from gpuq.stores.sql.records import SqlRecords
from gpuq.stores.sql.tokens import SqlTokens
from gpuq.stores.sql.web_sessions import SqlWebSessions

__all__ = [
    "Database",
    "DatabaseGuard",
    "MaintenanceLog",
    "SqlHistory",
    "SqlIdentity",
    "SqlJobFiles",
    "SqlRecords",
    "SqlTokens",
    "checkpoint",
    "migrate",
    "open_beside_the_records",
    "open_database",
    "open_history",
    "open_job_files",
    "open_maintenance",
    "open_records",
    "open_tokens",
    "open_web_sessions",
    "report_role",
    "standing_of",
]


def open_database(url: str) -> Database:
    return Database(url)


def open_records(
    target: str | Database, numbers: GivenNumbers | None = None, refusal: GpuqError | None = None
) -> SqlRecords:
    return SqlRecords(as_database(target), numbers, refusal)


def open_history(target: str | Database, report_url: str | None = None) -> SqlHistory:
    return SqlHistory(as_database(target), report_url)


def open_tokens(target: str | Database) -> SqlTokens:
    return SqlTokens(as_database(target))


def open_maintenance(target: str | Database) -> MaintenanceLog:
    return MaintenanceLog(as_database(target))


def open_job_files(target: str | Database) -> SqlJobFiles:
    return SqlJobFiles(as_database(target))


def open_web_sessions(target: str | Database) -> SqlWebSessions:
    return SqlWebSessions(as_database(target))


class BesideTheRecords(TypedDict):
    """The smaller stores of one database, by the names that the engine's context has for them."""

    tokens: SqlTokens
    web_sessions: SqlWebSessions
    maintenance_runs: MaintenanceLog
    files: SqlJobFiles


def open_beside_the_records(database: Database) -> BesideTheRecords:
    """All of them on one database that is open already."""
    return {
        "tokens": open_tokens(database),
        "web_sessions": open_web_sessions(database),
        "maintenance_runs": open_maintenance(database),
        "files": open_job_files(database),
    }

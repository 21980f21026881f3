"""Encrypted variables of jobs, and the trigger that deletes them with the end of the last job that has them.

A trigger, because every way to end a job deletes them then, in the very transaction: several processes, a command that
works straight on the database, a person with a SQL console. Its condition looks at the changed row alone, so that jobs
without secrets pay nothing.

`jobs.secrets_id` stays, so that it is known that a job had some. Ids are not given twice.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Table, Text, text

from gpuq.domain.states import FINAL
from gpuq.stores.sql.schema.tables import Id, jobs, metadata, one_of

# One row for all jobs that share them. `key`: the name of the key that opens them.
secrets = Table(
    "secrets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key", Text, nullable=False),
    Column("sealed", Text, nullable=False),
    sqlite_autoincrement=True,
)

_NOT_FINAL = "state NOT IN ('cancelled', 'completed', 'failed')"
_NEEDS = text(f"secrets_id IS NOT NULL AND {_NOT_FINAL}")
Index("ix_jobs_secrets", jobs.c.secrets_id, sqlite_where=_NEEDS, postgresql_where=_NEEDS)

TRIGGER = "secrets_job_ended"
_WHEN = f"NEW.secrets_id IS NOT NULL AND ({one_of('NEW.state', FINAL)})"
_ROW = f"UPDATE OF state ON jobs FOR EACH ROW WHEN ({_WHEN})"
# The index above answers it.
_NEEDED = f"SELECT 1 FROM jobs WHERE secrets_id = NEW.secrets_id AND {_NOT_FINAL}"
_DELETE = f"DELETE FROM secrets WHERE id = NEW.secrets_id AND NOT EXISTS ({_NEEDED})"


def secrets_trigger_statements(dialect: str) -> list[str]:
    """What makes the trigger, for `sqlite` or `postgresql`."""
    if dialect == "sqlite":
        return [f"CREATE TRIGGER {TRIGGER} AFTER {_ROW} BEGIN {_DELETE}; END"]
    return [
        f"CREATE FUNCTION {TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {_DELETE}; RETURN NULL; END$$",
        f"REVOKE EXECUTE ON FUNCTION {TRIGGER}() FROM PUBLIC",
        f"CREATE TRIGGER {TRIGGER} AFTER {_ROW} EXECUTE FUNCTION {TRIGGER}()",
    ]

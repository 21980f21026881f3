"""Variables of jobs that are kept apart, encrypted: `secrets`, and which jobs have some: `jobs.secrets_id`.

A row is deleted with the end of the last job that has it, by a trigger. `jobs.secrets_id` stays: it tells that there
were some, and ids are not given twice.

The release before does not know the table, and goes on with this schema.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NEEDED = "secrets_id IS NOT NULL AND state NOT IN ('cancelled', 'completed', 'failed')"
ROW = (
    "UPDATE OF state ON jobs FOR EACH ROW WHEN (NEW.secrets_id IS NOT NULL AND"
    " (NEW.state = 'cancelled' OR NEW.state = 'completed' OR NEW.state = 'failed'))"
)
DELETE = (
    "DELETE FROM secrets WHERE id = NEW.secrets_id AND NOT EXISTS (SELECT 1 FROM jobs WHERE secrets_id = NEW.secrets_id"
    " AND state NOT IN ('cancelled', 'completed', 'failed'))"
)


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("id", Id, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.execute("ALTER TABLE jobs ADD COLUMN secrets_id BIGINT")
    where = sa.text(NEEDED)
    op.create_index("ix_jobs_secrets", "jobs", ["secrets_id"], sqlite_where=where, postgresql_where=where)
    for statement in _trigger(op.get_bind().dialect.name):
        op.execute(statement)


def _trigger(dialect: str) -> list[str]:
    name = "secrets_job_ended"
    if dialect == "sqlite":
        return [f"CREATE TRIGGER {name} AFTER {ROW} BEGIN {DELETE}; END"]
    return [
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {DELETE}; RETURN NULL; END$$",
        f"REVOKE EXECUTE ON FUNCTION {name}() FROM PUBLIC",
        f"CREATE TRIGGER {name} AFTER {ROW} EXECUTE FUNCTION {name}()",
    ]

"""Limits: who changed them, and the GPU-seconds that users and groups have used, by the hour.

The limits themselves are values of the installation. `gpu_seconds` is kept by a trigger, so it is right while the
release before goes on with this schema, and is filled here from the attempts that there are.

Revision ID: 0012
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CARDS = {"sqlite": "json_array_length({0})", "postgresql": "json_array_length({0}::json)"}
HOUR = {"sqlite": "CAST({0} / 3600 AS INTEGER)", "postgresql": "floor({0} / 3600)::bigint"}
PART = {"sqlite": "0", "postgresql": "pg_backend_pid()"}
AT = {"sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', a.at, 'unixepoch')", "postgresql": "to_timestamp(a.at)"}


def upgrade() -> None:
    op.create_table(
        "gpu_seconds",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("group", sa.Text(), nullable=False),
        sa.Column("part", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "user", "group", "part", name="pk_gpu_seconds"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "limit_audit",
        sa.Column("id", Id, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("limit", sa.Text(), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    connection = op.get_bind()
    dialect = connection.dialect.name
    for statement in (*trigger(dialect), fill(dialect), view(dialect)):
        connection.exec_driver_sql(statement)


def trigger(dialect: str) -> list[str]:
    cards, hour = CARDS[dialect].format("NEW.gpu_uuids"), HOUR[dialect].format("NEW.finished_at")
    body = (
        f'INSERT INTO gpu_seconds ("hour", "user", "group", part, seconds) SELECT {hour}, j."user",'
        f" coalesce(j.\"group\", ''), {PART[dialect]}, (NEW.finished_at - NEW.started_at) * {cards}"
        " FROM jobs j WHERE j.id = NEW.job_id"
        ' ON CONFLICT ("hour", "user", "group", part) DO UPDATE SET seconds = gpu_seconds.seconds + excluded.seconds;'
    )
    ended = "OLD.outcome IS NULL AND NEW.outcome IS NOT NULL AND NEW.started_at IS NOT NULL AND NEW.gpu_uuids <> '[]'"
    how = f"AFTER UPDATE OF outcome ON attempts FOR EACH ROW WHEN ({ended})"
    if dialect == "sqlite":
        return [f"CREATE TRIGGER gpu_seconds_ended {how} BEGIN {body} END"]
    return [
        f"CREATE FUNCTION gpu_seconds_ended() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} RETURN NULL; END$$",
        "REVOKE EXECUTE ON FUNCTION gpu_seconds_ended() FROM PUBLIC",
        f"CREATE TRIGGER gpu_seconds_ended {how} EXECUTE FUNCTION gpu_seconds_ended()",
    ]


def fill(dialect: str) -> str:
    cards, hour = CARDS[dialect].format("a.gpu_uuids"), HOUR[dialect].format("a.finished_at")
    return (
        f'INSERT INTO gpu_seconds ("hour", "user", "group", part, seconds) SELECT {hour}, j."user",'
        f" coalesce(j.\"group\", ''), {PART[dialect]}, sum((a.finished_at - a.started_at) * {cards})"
        " FROM attempts a JOIN jobs j ON j.id = a.job_id"
        " WHERE a.outcome IS NOT NULL AND a.started_at IS NOT NULL AND a.gpu_uuids <> '[]' GROUP BY 1, 2, 3"
    )


def view(dialect: str) -> str:
    return f"""CREATE VIEW limit_changes AS
SELECT a.id, {AT[dialect]} AS at, a.actor, a.kind, a.name, a."limit", a.before, a.after
FROM limit_audit a"""

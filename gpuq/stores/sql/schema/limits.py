"""What limits need beside the `installation`, where they stand themselves: who changed them, and used GPU-seconds.

`gpu_seconds` is kept by a trigger in the transaction that ends an attempt, because a window of some days is asked for
at every plan, and the attempts of such a window may be a hundred thousand. A row for every user, group and hour (of
the end, epoch seconds divided by 3600) has the GPU-seconds of the attempts that ended then, a share counting as the
whole GPU. `part` keeps connections apart on PostgreSQL, each of which changes rows of its own alone, so that two
transactions that end attempts of the same users never wait for each other.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, PrimaryKeyConstraint, Table, Text

from gpuq.stores.sql.schema.job_files import metadata as metadata
from gpuq.stores.sql.schema.tables import Id

gpu_seconds = Table(
    "gpu_seconds",
    metadata,
    Column("hour", BigInteger, nullable=False),
    Column("user", Text, nullable=False),
    Column("group", Text, nullable=False),  # empty: none
    Column("part", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    PrimaryKeyConstraint("hour", "user", "group", "part", name="pk_gpu_seconds"),
    sqlite_with_rowid=False,
)

limit_audit = Table(
    "limit_audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("limit", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    sqlite_autoincrement=True,
)

HELD = "NEW.started_at IS NOT NULL AND NEW.gpu_uuids <> '[]'"
ENDED = f"OLD.outcome IS NULL AND NEW.outcome IS NOT NULL AND {HELD}"
_CARDS = {"sqlite": "json_array_length({0})", "postgresql": "json_array_length({0}::json)"}
_HOUR = {"sqlite": "CAST({0} / 3600 AS INTEGER)", "postgresql": "floor({0} / 3600)::bigint"}
_PART = {"sqlite": "0", "postgresql": "pg_backend_pid()"}


def limit_triggers(dialect: str) -> list[str]:
    """What makes the trigger that keeps `gpu_seconds`, for `sqlite` or `postgresql`."""
    cards, hour = _CARDS[dialect].format("NEW.gpu_uuids"), _HOUR[dialect].format("NEW.finished_at")
    body = (
        f'INSERT INTO gpu_seconds ("hour", "user", "group", part, seconds) SELECT {hour}, j."user",'
        f" coalesce(j.\"group\", ''), {_PART[dialect]}, (NEW.finished_at - NEW.started_at) * {cards}"
        " FROM jobs j WHERE j.id = NEW.job_id"
        ' ON CONFLICT ("hour", "user", "group", part) DO UPDATE SET seconds = gpu_seconds.seconds + excluded.seconds;'
    )
    how = f"AFTER UPDATE OF outcome ON attempts FOR EACH ROW WHEN ({ENDED})"
    if dialect == "sqlite":
        return [f"CREATE TRIGGER gpu_seconds_ended {how} BEGIN {body} END"]
    return [
        f"CREATE FUNCTION gpu_seconds_ended() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} RETURN NULL; END$$",
        "REVOKE EXECUTE ON FUNCTION gpu_seconds_ended() FROM PUBLIC",
        f"CREATE TRIGGER gpu_seconds_ended {how} EXECUTE FUNCTION gpu_seconds_ended()",
    ]

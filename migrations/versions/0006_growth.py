"""A million finished jobs: totals that are kept, indexes for every question, and no text that can be worked out.

The release before goes on with this schema: triggers keep the totals for it, and it names folders that this one leaves
out. Rows of before stay as they are. Each index is a step of its own on SQLite, which others can write between, and
what is there already is not made again after an interruption.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import context, op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BOUNDS = (1, 5, 15, 60, 300, 900, 3600, 10800, 28800, 86400, 259200)
STATES = (
    "blocked", "cancelled", "completed", "delayed", "failed", "held", "queued", "running", "starting", "stopping",
)  # fmt: skip
OUTCOMES = (
    "cancelled", "exit_nonzero", "gpu_oom", "host_oom", "launch_error", "lost", "output_limit", "preempted", "signal",
    "succeeded", "time_limit",
)  # fmt: skip
ENDED = "finished_at IS NOT NULL"
# Name → columns and condition, all of `jobs`.
INDEXES: dict[str, tuple[list[str], str]] = {
    "ix_jobs_user_finished": (["user", "finished_at"], ENDED),
    "ix_jobs_name_finished": (["name", "finished_at"], ENDED),
    "ix_jobs_group_finished": (["group", "finished_at"], ENDED + ' AND "group" IS NOT NULL'),
    "ix_jobs_unsuccessful": (["state", "finished_at"], "state IN ('cancelled', 'failed')"),
}
# Made anew: with other columns.
CHANGED: dict[str, tuple[list[str], str]] = {
    "ix_jobs_state": (["state", "id"], ""),
    "ix_jobs_line": (["score", "id", "state", "user"], "state = 'queued'"),
}
NO_LONGER_ASKED_OF = ("boot_id", "run_dir", "log_path")


def upgrade() -> None:
    tell = context.config.attributes.get("tell", lambda step: None)
    for name, (columns, condition) in INDEXES.items():
        tell(f"index {name}")
        make_index(name, columns, condition)
        _let_others_write()
    for name, (columns, condition) in CHANGED.items():
        tell(f"index {name}")
        op.execute(sa.text(f"DROP INDEX IF EXISTS {name}"))
        make_index(name, columns, condition)
        _let_others_write()
    _allow_nothing()
    _share_environments()
    tell("totals")
    op.execute(sa.text("DROP TABLE IF EXISTS totals"))
    op.create_table(
        "totals",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
    )
    op.create_index("ix_totals_name", "totals", ["name"], unique=False)
    connection = op.get_bind()
    for statement in (*triggers(connection.dialect.name), *counts()):
        connection.exec_driver_sql(statement)
    _view(connection)


def make_index(name: str, columns: list[str], condition: str) -> None:
    where = {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)} if condition else {}
    op.create_index(name, "jobs", columns, unique=False, if_not_exists=True, **where)


def _let_others_write() -> None:
    """On SQLite. What is done so far stays when the rest is interrupted."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _share_environments() -> None:
    op.add_column("specs", sa.Column("env_id", sa.BigInteger()))
    op.create_table(
        "environments",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("env", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash", name="uq_environments_hash"),
        sqlite_autoincrement=True,
    )


def _allow_nothing() -> None:
    """Of columns that said NOT NULL. SQLite is given the new text, as in 0004."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        for column in NO_LONGER_ASKED_OF:
            op.alter_column("attempts", column, nullable=True)
        return
    (version,) = connection.exec_driver_sql("PRAGMA schema_version").one()
    (before,) = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'attempts'").one()
    after = before
    for column in NO_LONGER_ASKED_OF:
        after = after.replace(f"{column} TEXT NOT NULL", f"{column} TEXT")
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    try:
        connection.exec_driver_sql("UPDATE sqlite_master SET sql = ? WHERE name = 'attempts'", (after,))
        connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    finally:
        connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    facts = {row[1]: row[3] for row in connection.exec_driver_sql("PRAGMA table_info(attempts)")}
    if any(facts[column] for column in NO_LONGER_ASKED_OF):
        raise RuntimeError("the table attempts is not one that this upgrade knows")


def _view(connection: sa.Connection) -> None:
    value = "trim(value, '\"')" if connection.dialect.name == "sqlite" else "btrim(value, '\"')"
    folder = f"(SELECT {value} FROM installation WHERE key = 'runs:' || a.node)"
    path = f"coalesce(a.log_path, {folder} || '/' || a.job_id || '/' || a.number || '/output.log') AS log_path"
    op.execute(sa.text("DROP VIEW attempt_history"))
    connection.exec_driver_sql(attempt_history(connection.dialect.name, path))


def attempt_history(dialect: str, path: str) -> str:
    def at(column: str) -> str:
        if dialect == "sqlite":
            return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column}, 'unixepoch')"
        return f"to_timestamp({column})"

    def seconds(expression: str) -> str:
        return (
            f"round({expression}, 3)" if dialect == "sqlite" else f"round(({expression})::numeric, 3)::double precision"
        )

    ran = "a.finished_at - a.started_at"
    cards = "json_array_length(a.gpu_uuids)" if dialect == "sqlite" else "json_array_length(a.gpu_uuids::json)"
    return f"""CREATE VIEW attempt_history AS
SELECT a.job_id, a.number AS attempt, j.name, j."user", j."group", j.gpus, a.node,
  a.gpu_indices, a.gpu_uuids, a.gpu_mem_mb,
  {at("a.claimed_at")} AS claimed_at,
  {at("a.started_at")} AS started_at,
  {at("a.finished_at")} AS finished_at,
  {seconds(ran)} AS run_s,
  {seconds(f"({ran}) * {cards}")} AS gpu_seconds,
  a.outcome, a.exit_code, a.signal, a.error, a.peak_gpu_mem_mb, a.avg_gpu_util,
  {path}
FROM attempts a JOIN jobs j ON j.id = a.job_id"""


def bucket(wait: str) -> str:
    cases = " ".join(f"WHEN {wait} <= {bound} THEN '{bound}'" for bound in BOUNDS)
    return f"'waits:' || CASE {cases} ELSE 'more' END"


WAIT = "NEW.started_at - (SELECT submitted_at FROM jobs WHERE id = NEW.job_id)"
FIRST = (
    "NEW.number = 1 OR NOT EXISTS (SELECT 1 FROM attempts"
    " WHERE job_id = NEW.job_id AND number < NEW.number AND started_at IS NOT NULL)"
)
ADDED = ("'jobs:' || NEW.state", 1, "0")
REMOVED = ("'jobs:' || OLD.state", -1, "0")
# Name, event, changes (name, number, seconds), WHEN, and a condition that needs a look into tables.
TRIGGERS = (
    ("totals_job_added", "INSERT ON jobs", (ADDED,), "", ""),
    ("totals_job_moved", "UPDATE OF state ON jobs", (REMOVED, ADDED), "OLD.state <> NEW.state", ""),
    ("totals_job_removed", "DELETE ON jobs", (REMOVED,), "", ""),
    (
        "totals_attempt_ended",
        "UPDATE OF outcome ON attempts",
        (("'attempts:' || NEW.outcome", 1, "0"),),
        "OLD.outcome IS NULL AND NEW.outcome IS NOT NULL",
        "",
    ),
    (
        "totals_first_start",
        "UPDATE OF started_at ON attempts",
        ((bucket(f"({WAIT})"), 1, WAIT),),
        "OLD.started_at IS NULL AND NEW.started_at IS NOT NULL",
        FIRST,
    ),
    ("totals_letter_added", "INSERT ON dead_letter_queue", (("'dead_letters'", 1, "0"),), "", ""),
    ("totals_letter_removed", "DELETE ON dead_letter_queue", (("'dead_letters'", -1, "0"),), "", ""),
)
FOLD = (
    "IF random() < 0.0005 THEN WITH gone AS (DELETE FROM totals RETURNING *)"
    " INSERT INTO totals SELECT name, sum(number), sum(seconds) FROM gone GROUP BY name; END IF"
)


def triggers(dialect: str) -> Iterator[str]:
    for name, event, changes, when, guard in TRIGGERS:
        how = f"{event} FOR EACH ROW" + (f" WHEN ({when})" if when else "")
        if dialect == "sqlite":
            also = f" AND ({guard})" if guard else ""
            body = " ".join(
                f"UPDATE totals SET number = number + {number}, seconds = seconds + {seconds} WHERE name = {row}{also};"
                for row, number, seconds in changes
            )
            yield f"CREATE TRIGGER {name} AFTER {how} BEGIN {body} END"
            continue
        rows = ", ".join(f"({row}, {number}, {seconds})" for row, number, seconds in changes)
        insert = f"INSERT INTO totals VALUES {rows}"
        if guard:
            insert = f"IF {guard} THEN {insert}; END IF"
        if name == "totals_job_added":
            insert = "INSERT INTO totals SELECT 'jobs:' || state, count(*), 0 FROM added GROUP BY state"
            how = f"{event} REFERENCING NEW TABLE AS added FOR EACH STATEMENT"
        body = f"BEGIN {insert}; {FOLD}; RETURN NULL; END"
        yield f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
        yield f"REVOKE EXECUTE ON FUNCTION {name}() FROM PUBLIC"
        yield f"CREATE TRIGGER {name} AFTER {how} EXECUTE FUNCTION {name}()"


def counts() -> Iterator[str]:
    names = [
        *(f"jobs:{state}" for state in STATES),
        "dead_letters",
        *(f"attempts:{outcome}" for outcome in OUTCOMES),
        *(f"waits:{bound}" for bound in (*BOUNDS, "more")),
    ]
    rows = ", ".join(f"('{name}', 0, 0)" for name in names)
    yield f"INSERT INTO totals (name, number, seconds) VALUES {rows}"
    starts = (
        "SELECT min(a.started_at) - j.submitted_at AS wait FROM attempts a JOIN jobs j ON j.id = a.job_id"
        " WHERE a.started_at IS NOT NULL GROUP BY a.job_id, j.submitted_at"
    )
    for count in (
        "SELECT 'jobs:' || state AS name, count(*) AS number, 0 AS seconds FROM jobs GROUP BY state",
        "SELECT 'attempts:' || outcome AS name, count(*) AS number, 0 AS seconds FROM attempts"
        " WHERE outcome IS NOT NULL GROUP BY outcome",
        f"SELECT {bucket('wait')} AS name, count(*) AS number, sum(wait) AS seconds FROM ({starts}) w GROUP BY 1",
        "SELECT 'dead_letters' AS name, count(*) AS number, 0 AS seconds FROM dead_letter_queue",
    ):
        yield f"UPDATE totals SET number = c.number, seconds = c.seconds FROM ({count}) c WHERE c.name = totals.name"

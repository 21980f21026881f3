"""The first schema.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

OUTCOMES = (
    "outcome = 'cancelled' OR outcome = 'exit_nonzero' OR outcome = 'gpu_oom' OR outcome = 'host_oom' OR outcome "
    "= 'launch_error' OR outcome = 'lost' OR outcome = 'preempted' OR outcome = 'signal' OR outcome = 'succeeded' "
    "OR outcome = 'time_limit'"
)

FIELDS_OF_STATES = (
    "CASE state "
    "WHEN 'queued' THEN token IS NULL AND eligible_at IS NULL AND held_by IS NULL AND stop_reason IS NULL AND "
    "stop_deadline IS NULL AND started_at IS NULL AND finished_at IS NULL AND outcome IS NULL AND exit_code IS "
    "NULL AND signal IS NULL AND error IS NULL "
    "WHEN 'blocked' THEN token IS NULL AND eligible_at IS NULL AND held_by IS NULL AND stop_reason IS NULL AND "
    "stop_deadline IS NULL AND started_at IS NULL AND finished_at IS NULL AND outcome IS NULL AND exit_code IS "
    "NULL AND signal IS NULL AND error IS NULL "
    "WHEN 'cancelled' THEN token IS NULL AND eligible_at IS NULL AND held_by IS NULL AND stop_reason IS NULL AND "
    "stop_deadline IS NULL AND finished_at IS NOT NULL AND outcome IS NOT NULL "
    "WHEN 'completed' THEN token IS NULL AND eligible_at IS NULL AND held_by IS NULL AND stop_reason IS NULL AND "
    "stop_deadline IS NULL AND finished_at IS NOT NULL AND outcome IS NOT NULL "
    "WHEN 'delayed' THEN token IS NULL AND eligible_at IS NOT NULL AND held_by IS NULL AND stop_reason IS NULL "
    "AND stop_deadline IS NULL AND started_at IS NULL AND finished_at IS NULL AND outcome IS NULL AND exit_code "
    "IS NULL AND signal IS NULL AND error IS NULL "
    "WHEN 'failed' THEN token IS NULL AND eligible_at IS NULL AND held_by IS NULL AND stop_reason IS NULL AND "
    "stop_deadline IS NULL AND finished_at IS NOT NULL AND outcome IS NOT NULL "
    "WHEN 'held' THEN token IS NULL AND eligible_at IS NULL AND held_by IS NOT NULL AND stop_reason IS NULL AND "
    "stop_deadline IS NULL AND started_at IS NULL AND finished_at IS NULL AND outcome IS NULL AND exit_code IS "
    "NULL AND signal IS NULL AND error IS NULL "
    "WHEN 'running' THEN token IS NOT NULL AND eligible_at IS NULL AND held_by IS NULL AND stop_reason IS NULL "
    "AND stop_deadline IS NULL AND finished_at IS NULL AND outcome IS NULL AND exit_code IS NULL AND signal IS "
    "NULL AND error IS NULL "
    "WHEN 'starting' THEN token IS NOT NULL AND eligible_at IS NULL AND held_by IS NULL AND stop_reason IS NULL "
    "AND stop_deadline IS NULL AND finished_at IS NULL AND outcome IS NULL AND exit_code IS NULL AND signal IS "
    "NULL AND error IS NULL "
    "WHEN 'stopping' THEN token IS NOT NULL AND eligible_at IS NULL AND held_by IS NULL AND stop_reason IS NOT "
    "NULL AND finished_at IS NULL AND outcome IS NULL AND exit_code IS NULL AND signal IS NULL AND error IS NULL "
    "ELSE 1 = 0 END"
)


def where(condition: str) -> dict[str, sa.TextClause]:
    """Of a partial index, on either database."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    create_tables()
    for statement in views(op.get_bind().dialect.name).values():
        op.execute(sa.text(statement.replace(":", r"\:")))


def create_tables() -> None:
    op.create_table(
        "installation",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("uid", sa.BigInteger()),
        sa.Column("group", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("cwd", sa.Text(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("gpu_mem_mb", sa.Integer()),
        sa.Column("gpu_model", sa.Text()),
        sa.Column("gpu_ids", sa.Text()),
        sa.Column("time_limit_s", sa.Double()),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("retries_used", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lost_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("token", sa.Text()),
        sa.Column("key", sa.Text()),
        sa.Column("preemptible", sa.Boolean(), nullable=False),
        sa.Column("array_id", sa.BigInteger()),
        sa.Column("array_index", sa.Integer()),
        sa.Column("array_limit", sa.Integer()),
        sa.Column("submitted_at", sa.Double(), nullable=False),
        sa.Column("eligible_at", sa.Double()),
        sa.Column("held_by", sa.Text()),
        sa.Column("stop_reason", sa.Text()),
        sa.Column("stop_deadline", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("outcome", sa.Text()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("signal", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.CheckConstraint(
            "(state = 'completed') = (outcome IS NOT NULL AND outcome = 'succeeded')", name="ck_jobs_won"
        ),
        sa.CheckConstraint(FIELDS_OF_STATES, name="ck_jobs_fields_of_state"),
        sa.CheckConstraint("outcome IS NULL OR " + OUTCOMES, name="ck_jobs_outcome"),
        sa.CheckConstraint(
            "gpus >= 0 AND max_retries >= 0 AND retries_used >= 0 AND lost_count >= 0 AND attempt >= 0",
            name="ck_jobs_counts",
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 3", name="ck_jobs_priority"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_array", "jobs", ["array_id"], unique=False, **where("array_id IS NOT NULL"))
    op.create_index("ix_jobs_eligible", "jobs", ["eligible_at"], unique=False, **where("eligible_at IS NOT NULL"))
    op.create_index("ix_jobs_finished", "jobs", ["finished_at"], unique=False, **where("finished_at IS NOT NULL"))
    op.create_index("ix_jobs_line", "jobs", ["score", "id", "state"], unique=False, **where("state = 'queued'"))
    op.create_index("ix_jobs_state", "jobs", ["state", "id", "gpus", "score"], unique=False)
    op.create_index("ix_jobs_user", "jobs", ["user", "state", "id"], unique=False)
    op.create_index(
        "uq_jobs_key",
        "jobs",
        ["user", "key"],
        unique=True,
        **where("key IS NOT NULL AND state NOT IN ('cancelled', 'failed')"),
    )
    op.create_table(
        "maintenance_runs",
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("last_start", sa.Double()),
        sa.Column("last_ok", sa.Double()),
        sa.Column("last_error", sa.Double()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("task"),
    )
    op.create_table(
        "requests",
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("job_ids", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("user", "key", name="pk_requests"),
    )
    op.create_index("ix_requests_at", "requests", ["at"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double()),
        sa.Column("last_used_at", sa.Double()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "attempts",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("gpu_indices", sa.Text(), nullable=False),
        sa.Column("gpu_uuids", sa.Text(), nullable=False),
        sa.Column("gpu_mem_mb", sa.Integer()),
        sa.Column("run_dir", sa.Text(), nullable=False),
        sa.Column("log_path", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("supervisor_pid", sa.Integer()),
        sa.Column("supervisor_start", sa.BigInteger()),
        sa.Column("pid", sa.Integer()),
        sa.Column("pid_start", sa.BigInteger()),
        sa.Column("outcome", sa.Text()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("signal", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("peak_gpu_mem_mb", sa.Integer()),
        sa.Column("avg_gpu_util", sa.Double()),
        sa.CheckConstraint("outcome IS NULL OR " + OUTCOMES, name="ck_attempts_outcome"),
        sa.CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="ck_attempts_ended"),
        sa.CheckConstraint("number >= 1", name="ck_attempts_number"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_attempts"),
    )
    op.create_index(
        "ix_attempts_finished", "attempts", ["finished_at"], unique=False, **where("finished_at IS NOT NULL")
    )
    op.create_index("uq_attempts_live", "attempts", ["job_id"], unique=True, **where("outcome IS NULL"))
    op.create_table(
        "dead_letter_queue",
        sa.Column("job_id", Id, autoincrement=False, nullable=False),
        sa.Column("failed_at", sa.Double(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("log_tail", sa.Text()),
        sa.CheckConstraint(OUTCOMES, name="ck_dead_letter_queue_outcome"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "dependencies",
        sa.Column("job_id", Id, nullable=False),
        sa.Column("on_id", Id, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('any', 'success')", name="ck_dependencies_kind"),
        sa.CheckConstraint("job_id <> on_id", name="ck_dependencies_self"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["on_id"],
            ["jobs.id"],
        ),
        sa.PrimaryKeyConstraint("job_id", "on_id", "kind", name="pk_dependencies"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_dependencies_on", "dependencies", ["on_id"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", Id, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("job_id", Id, nullable=False),
        sa.Column("attempt", sa.Integer()),
        sa.Column("from_state", sa.Text()),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_job", "events", ["job_id", "id"], unique=False)
    op.create_table(
        "specs",
        sa.Column("job_id", Id, autoincrement=False, nullable=False),
        sa.Column("gid", sa.BigInteger()),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id"),
    )


_TIME = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', {0}, 'unixepoch')",
    "postgresql": "to_timestamp({0})",
}
_SECONDS = {
    "sqlite": "round({0}, 3)",
    "postgresql": "round(({0})::numeric, 3)::double precision",
}
_LENGTH = {
    "sqlite": "json_array_length({0})",
    "postgresql": "json_array_length({0}::json)",
}


def views(dialect: str) -> dict[str, str]:
    def at(column: str) -> str:
        return _TIME[dialect].format(column)

    def seconds(expression: str) -> str:
        return _SECONDS[dialect].format(expression)

    ran = "a.finished_at - a.started_at"
    cards = _LENGTH[dialect].format("a.gpu_uuids")
    return {
        "job_history": f"""CREATE VIEW job_history AS
SELECT j.id, j.name, j."user", j."group", j.state,
  CASE j.priority WHEN 0 THEN 'critical' WHEN 1 THEN 'high' WHEN 2 THEN 'normal' ELSE 'low' END AS priority,
  j.gpus,
  {at("j.submitted_at")} AS submitted_at,
  {at("min(a.started_at)")} AS started_at,
  {at("j.finished_at")} AS finished_at,
  {seconds("min(a.started_at) - j.submitted_at")} AS wait_s,
  {seconds(f"sum({ran})")} AS run_s,
  {seconds(f"sum(({ran}) * {cards})")} AS gpu_seconds,
  count(a.number) AS attempts,
  j.outcome, j.exit_code
FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id
GROUP BY j.id""",
        "attempt_history": f"""CREATE VIEW attempt_history AS
SELECT a.job_id, a.number AS attempt, j.name, j."user", j."group", j.gpus, a.node,
  a.gpu_indices, a.gpu_uuids, a.gpu_mem_mb,
  {at("a.claimed_at")} AS claimed_at,
  {at("a.started_at")} AS started_at,
  {at("a.finished_at")} AS finished_at,
  {seconds(ran)} AS run_s,
  {seconds(f"({ran}) * {cards}")} AS gpu_seconds,
  a.outcome, a.exit_code, a.signal, a.error, a.peak_gpu_mem_mb, a.avg_gpu_util, a.log_path
FROM attempts a JOIN jobs j ON j.id = a.job_id""",
        "dead_letters": f"""CREATE VIEW dead_letters AS
SELECT d.job_id, {at("d.failed_at")} AS failed_at, d.outcome, d.error, d.attempts
FROM dead_letter_queue d""",
        "job_events": f"""CREATE VIEW job_events AS
SELECT e.id, {at("e.at")} AS at, e.job_id, e.attempt, e.from_state, e.to_state, e.actor, e.detail
FROM events e""",
    }

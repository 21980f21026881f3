"""The tables, once for SQLite and PostgreSQL.

Times are epoch seconds (DOUBLE), memory MiB, lists JSON text. The CHECK constraints are generated from
`gpuq.domain`, so a row that the state machine does not know cannot be stored by anybody.

Job ids are never given twice: SQLite AUTOINCREMENT, a PostgreSQL sequence. What a submission asked for stands
whole in `specs`, apart from `jobs`, because an environment of a few KiB in each row would make every scan of
the history read it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
    true,
)

from gpuq.domain.outcome import Outcome
from gpuq.domain.priority import Priority
from gpuq.domain.states import FIELDS_OF_STATES, REQUIRED_IN_STATES, JobState

metadata = MetaData()
# SQLite gives out ids itself only for a column that is declared INTEGER, to the letter.
Id = BigInteger().with_variant(Integer, "sqlite")


def one_of(column: str, values: Iterable[str]) -> str:
    """For a CHECK. SQLite builds a table in memory for every evaluation of a longer IN list, which made
    storing a job four times as slow; a chain of comparisons costs next to nothing."""
    return " OR ".join(f"{column} = '{value}'" for value in sorted(map(str, values)))


def _fields_of(state: JobState) -> str:
    wants = []
    for field, states in FIELDS_OF_STATES.items():
        if state not in states:
            wants.append(f"{field} IS NULL")
        elif state in REQUIRED_IN_STATES.get(field, ()):
            wants.append(f"{field} IS NOT NULL")
    return " AND ".join(wants)


def _fields_of_states() -> str:
    """What a row of each state looks like; a state that is not here is refused. `queued` first: the most rows
    are stored and changed in it."""
    ordered = sorted(JobState, key=lambda state: (state is not JobState.QUEUED, state.value))
    cases = " ".join(f"WHEN '{state}' THEN {_fields_of(state)}" for state in ordered)
    return f"CASE state {cases} ELSE 1 = 0 END"


def _job_checks() -> list[CheckConstraint]:
    return [
        CheckConstraint(_fields_of_states(), name="ck_jobs_fields_of_state"),
        CheckConstraint("(state = 'completed') = (outcome IS NOT NULL AND outcome = 'succeeded')", name="ck_jobs_won"),
        CheckConstraint(f"outcome IS NULL OR {one_of('outcome', Outcome)}", name="ck_jobs_outcome"),
        CheckConstraint(f"priority BETWEEN {min(Priority):d} AND {max(Priority):d}", name="ck_jobs_priority"),
        CheckConstraint(
            "gpus >= 0 AND max_retries >= 0 AND retries_used >= 0 AND lost_count >= 0 AND attempt >= 0",
            name="ck_jobs_counts",
        ),
    ]


jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("uid", BigInteger),
    Column("group", Text),
    Column("state", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("score", Double, nullable=False),
    Column("command", Text, nullable=False),
    Column("cwd", Text, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("gpu_mem_mb", Integer),
    Column("gpu_model", Text),
    Column("gpu_ids", Text),
    Column("time_limit_s", Double),
    Column("max_retries", Integer, nullable=False),
    Column("retries_used", Integer, nullable=False, server_default=text("0")),
    Column("lost_count", Integer, nullable=False, server_default=text("0")),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("token", Text),
    Column("key", Text),
    Column("preemptible", Boolean, nullable=False),
    Column("array_id", BigInteger),
    Column("array_index", Integer),
    Column("array_limit", Integer),
    Column("submitted_at", Double, nullable=False),
    Column("eligible_at", Double),
    Column("held_by", Text),
    Column("stop_reason", Text),
    Column("stop_deadline", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("outcome", Text),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("error", Text),
    Column("parameters", Text),
    Column("result_bytes", BigInteger),
    Column("result_type", Text),
    Column("short_result", Text),
    Column("secrets_id", BigInteger),
    *_job_checks(),
    sqlite_autoincrement=True,
)

LIVE_OR_COMPLETED = "state NOT IN ('cancelled', 'failed')"


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    condition = text(where)
    return Index(name, *(jobs.c[c] for c in columns), unique=unique, sqlite_where=condition, postgresql_where=condition)


Index("ix_jobs_state", jobs.c.state, jobs.c.id)
Index("ix_jobs_user", jobs.c.user, jobs.c.state, jobs.c.id)  # a user's limits, which every submission counts
# `state` and `user` are in it so that SQLite counts places and finds a user's jobs without looking at the rows.
_partial("ix_jobs_line", "score", "id", "state", "user", where="state = 'queued'")
_partial("ix_jobs_eligible", "eligible_at", where="eligible_at IS NOT NULL")
_partial("ix_jobs_finished", "finished_at", where="finished_at IS NOT NULL")  # the history by its end, as the next
_partial("ix_jobs_user_finished", "user", "finished_at", where="finished_at IS NOT NULL")
_partial("ix_jobs_name_finished", "name", "finished_at", where="finished_at IS NOT NULL")
_partial("ix_jobs_group_finished", "group", "finished_at", where='finished_at IS NOT NULL AND "group" IS NOT NULL')
_partial("ix_jobs_unsuccessful", "state", "finished_at", where="state IN ('cancelled', 'failed')")
_partial("ix_jobs_array", "array_id", where="array_id IS NOT NULL")
_partial("uq_jobs_key", "user", "key", where=f"key IS NOT NULL AND {LIVE_OR_COMPLETED}", unique=True)

specs = Table(
    "specs",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("gid", BigInteger),
    Column("spec", Text, nullable=False),
    Column("env_id", BigInteger),  # of the variables, where `spec` itself has none
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("token", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("boot_id", Text),  # null once it has ended: nothing asks for it any more
    Column("gpu_indices", Text, nullable=False),
    Column("gpu_uuids", Text, nullable=False),
    Column("gpu_mem_mb", Integer),
    Column("run_dir", Text),  # null, as the next, where it follows from node and numbers: `folders.py`
    Column("log_path", Text),
    Column("claimed_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("supervisor_pid", Integer),
    Column("supervisor_start", BigInteger),
    Column("pid", Integer),
    Column("pid_start", BigInteger),
    Column("outcome", Text),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("error", Text),
    Column("peak_gpu_mem_mb", Integer),
    Column("avg_gpu_util", Double),
    PrimaryKeyConstraint("job_id", "number", name="pk_attempts"),
    CheckConstraint(f"outcome IS NULL OR {one_of('outcome', Outcome)}", name="ck_attempts_outcome"),
    CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="ck_attempts_ended"),
    CheckConstraint("number >= 1", name="ck_attempts_number"),
)
# At most one live attempt of a job, whatever the code above does.
Index(
    "uq_attempts_live",
    attempts.c.job_id,
    unique=True,
    sqlite_where=text("outcome IS NULL"),
    postgresql_where=text("outcome IS NULL"),
)
Index(
    "ix_attempts_finished",
    attempts.c.finished_at,
    sqlite_where=text("finished_at IS NOT NULL"),
    postgresql_where=text("finished_at IS NOT NULL"),
)

attempt_processes = Table(
    "attempt_processes",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("processes", Text, nullable=False),
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("job_id", "number", name="pk_attempt_processes"),
)

dependencies = Table(
    "dependencies",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("on_id", Id, ForeignKey("jobs.id"), nullable=False),
    Column("kind", Text, nullable=False),
    # Whether the job goes on waiting when the other one fails; the rows of releases that do not know it do.
    Column("keep_waiting", Boolean, nullable=False, server_default=true()),
    PrimaryKeyConstraint("job_id", "on_id", "kind", name="pk_dependencies"),
    CheckConstraint("kind IN ('any', 'success')", name="ck_dependencies_kind"),
    CheckConstraint("job_id <> on_id", name="ck_dependencies_self"),
    Index("ix_dependencies_on", "on_id"),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Double, nullable=False),
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", Text),
    Index("ix_events_job", "job_id", "id"),
    sqlite_autoincrement=True,
)

dead_letter_queue = Table(
    "dead_letter_queue",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("failed_at", Double, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("error", Text),
    Column("attempts", Integer, nullable=False),
    Column("log_tail", Text),
    CheckConstraint(one_of("outcome", Outcome), name="ck_dead_letter_queue_outcome"),
)

requests = Table(
    "requests",
    metadata,
    Column("user", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("job_ids", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("fingerprint", Text),
    PrimaryKeyConstraint("user", "key", name="pk_requests"),
    Index("ix_requests_at", "at"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
    Column("uid", BigInteger),
    Column("scope", Text),
    Column("expires_at", Double),
    UniqueConstraint("hash", name="uq_tokens_hash"),
    sqlite_autoincrement=True,
)

installation = Table(
    "installation",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("at", Double, nullable=False),
)

maintenance_runs = Table(
    "maintenance_runs",
    metadata,
    Column("task", Text, primary_key=True),
    Column("last_start", Double),
    Column("last_ok", Double),
    Column("last_error", Double),
    Column("error", Text),
)

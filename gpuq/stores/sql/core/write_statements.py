"""The writing statements. Parameters of a condition begin with `w_`, those of SET and VALUES are columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ClauseElement, ColumnElement, delete, select, text, update

from gpuq.domain.states import ACTIVE, JobState
from gpuq.ports.records import Move
from gpuq.stores.sql.core.rows import clean, plain
from gpuq.stores.sql.core.statements import moment, number, word
from gpuq.stores.sql.schema.folders import OUTPUT, derived
from gpuq.stores.sql.schema.tables import (
    attempts,
    dead_letter_queue,
    dependencies,
    installation,
    jobs,
    requests,
    specs,
)

EVENT_COLUMNS = ("at", "job_id", "attempt", "from_state", "to_state", "actor", "detail")
ATTEMPT_COLUMNS = (
    "job_id", "number", "token", "node", "boot_id", "gpu_indices", "gpu_uuids", "gpu_mem_mb", "run_dir", "log_path",
    "claimed_at",
)  # fmt: skip
LAUNCHED_COLUMNS = ("supervisor_pid", "supervisor_start", "pid", "pid_start", "started_at")


def event_attempt(change: Move, source: JobState, attempt: int) -> int | None:
    """The attempt that the event of a move is about."""
    # A claim names the attempt before it in its guard and the new one in what it sets.
    number: int | None = change.set.get("attempt", change.attempt)
    return attempt if number is None and (source in ACTIVE or change.to in ACTIVE) else number


def move_values(change: Move, source: JobState, attempt: int, token: str | None) -> dict[str, Any]:
    """The parameters of a move's UPDATE."""
    values = {name: plain(value) for name, value in change.set.items()}
    values |= {
        "state": change.to.value,
        "w_id": change.job_id,
        "w_state": source.value,
        "w_attempt": attempt,
        "w_token": token,
    }
    return values


def event_values(
    job_id: int, source: JobState, target: JobState, actor: str, at: float, detail: str | None, attempt: int | None
) -> dict[str, Any]:
    """The row of an event, by column."""
    told = None if detail is None else clean(detail)
    row = (at, job_id, attempt, source.value, target.value, clean(actor), told)
    return dict(zip(EVENT_COLUMNS, row, strict=True))


def this_attempt() -> tuple[ColumnElement[bool], ...]:
    """The guard of every write about an attempt."""
    return (
        attempts.c.job_id == number("w_job_id"),
        attempts.c.number == number("w_number"),
        attempts.c.token == word("w_token"),
        attempts.c.outcome.is_(None),
    )


def this_job() -> ColumnElement[bool]:
    return jobs.c.id == number("w_id")


def now_in(dialect: str) -> ClauseElement:
    return select(jobs.c.state, jobs.c.attempt, jobs.c.token).where(this_job())


def add_attempt(dialect: str) -> ClauseElement:
    """A claimed attempt. Paths that follow from the numbers are left out."""
    folder = derived(dialect, ":node", ":job_id", ":number")
    paths = {"run_dir": f"nullif(:run_dir, {folder})", "log_path": f"nullif(:log_path, {folder} || '/{OUTPUT}')"}
    values = ", ".join(paths.get(name, f":{name}") for name in ATTEMPT_COLUMNS)
    return text(f"INSERT INTO attempts ({', '.join(ATTEMPT_COLUMNS)}) VALUES ({values})").bindparams(
        number("job_id"), number("number"), word("node")
    )


def end_attempt(dialect: str) -> ClauseElement:
    """Ends an attempt: only the one with this token, and only once."""
    return text(
        "UPDATE attempts SET outcome = :outcome, exit_code = :exit_code, signal = :signal, error = :error,"
        " started_at = coalesce(:started_at, started_at), finished_at = :finished_at,"
        " peak_gpu_mem_mb = coalesce(:peak_gpu_mem_mb, peak_gpu_mem_mb),"
        " avg_gpu_util = coalesce(:avg_gpu_util, avg_gpu_util),"
        # Asked for of live attempts alone; to keep it for good would cost as much as the rest of what they end with.
        " boot_id = NULL"
        " WHERE job_id = :job_id AND number = :number AND token = :token AND outcome IS NULL"
    )


def note_peak(dialect: str) -> ClauseElement:
    return update(attempts).where(*this_attempt()).values(peak_gpu_mem_mb=number("peak_gpu_mem_mb"))


def note_processes(dialect: str) -> ClauseElement:
    """Of an attempt, while it is the live one with this token."""
    return text(
        "INSERT INTO attempt_processes (job_id, number, processes, at)"
        " SELECT a.job_id, a.number, :processes, :at FROM attempts a WHERE a.job_id = :w_job_id"
        " AND a.number = :w_number AND a.token = :w_token AND a.outcome IS NULL"
        " ON CONFLICT (job_id, number) DO UPDATE SET processes = excluded.processes, at = excluded.at"
    ).bindparams(word("processes"), moment("at"), number("w_job_id"), number("w_number"), word("w_token"))


def forget_processes(dialect: str) -> ClauseElement:
    """Of attempts that have ended, or are gone with their job."""
    return text(
        "DELETE FROM attempt_processes WHERE NOT EXISTS (SELECT 1 FROM attempts a WHERE a.outcome IS NULL"
        " AND a.job_id = attempt_processes.job_id AND a.number = attempt_processes.number)"
    )


def stored_spec(dialect: str) -> ClauseElement:
    return select(specs.c.spec).where(specs.c.job_id == number("job_id"))


def write_spec(dialect: str) -> ClauseElement:
    return text("UPDATE specs SET spec = :spec WHERE job_id = :job_id")


def forget_dependencies(dialect: str) -> ClauseElement:
    return delete(dependencies).where(dependencies.c.job_id == number("job_id"))


def dead_letter(dialect: str) -> ClauseElement:
    """Adds a dead letter, in place of an earlier one of the job."""
    return text(
        "INSERT INTO dead_letter_queue (job_id, failed_at, outcome, error, attempts, log_tail)"
        " VALUES (:job_id, :failed_at, :outcome, :error, :attempts, :log_tail)"
        " ON CONFLICT (job_id) DO UPDATE SET failed_at = excluded.failed_at, outcome = excluded.outcome,"
        " error = excluded.error, attempts = excluded.attempts, log_tail = excluded.log_tail"
    )


def remove_dead_letter(dialect: str) -> ClauseElement:
    return delete(dead_letter_queue).where(dead_letter_queue.c.job_id == number("job_id"))


def set_value(dialect: str) -> ClauseElement:
    """Sets a value of the installation."""
    return text(
        "INSERT INTO installation (key, value, at) VALUES (:key, :value, :at)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value, at = excluded.at"
    )


def remove_value(dialect: str) -> ClauseElement:
    return delete(installation).where(installation.c.key == word("key"))


def count_attempts_from(dialect: str) -> ClauseElement:
    """The number of the last attempt, of a job that has none now."""
    return text(
        "UPDATE jobs SET attempt = :number WHERE id = :job_id AND attempt < :number"
        " AND state NOT IN ('starting', 'running', 'stopping')"
    )


def rescore(dialect: str) -> ClauseElement:
    """Adds to the score of every unfinished job, by its priority and its declared time."""
    return text(
        "UPDATE jobs SET score = score + :per_priority * priority"
        " + :per_declared_s * coalesce(time_limit_s, :undeclared_s)"
        " WHERE state NOT IN ('completed', 'failed', 'cancelled')"
    ).bindparams(moment("per_priority"), moment("per_declared_s"), moment("undeclared_s"))


def forget_requests(dialect: str) -> ClauseElement:
    return delete(requests).where(requests.c.at < moment("before"))

"""The database itself refuses rows that make no sense, whatever program writes them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from gpuq.domain.states import FIELDS_OF_STATES, REQUIRED_IN_STATES, JobState
from gpuq.stores.sql import SqlRecords

S = JobState
_SAMPLES: dict[str, Any] = {"outcome": "lost", "exit_code": 1, "signal": 9}


def write(records: SqlRecords, statement: str, **values: Any) -> None:
    with records.database.write() as connection:
        connection.execute(text(statement), values)


def refused(records: SqlRecords, statement: str, **values: Any) -> None:
    with pytest.raises(ValueError, match="refused a row"):
        write(records, statement, **values)


@pytest.mark.parametrize("state", list(JobState))
def test_a_field_without_meaning_in_a_state_must_be_null(jobs: Any, records: SqlRecords, state: JobState) -> None:
    job_id = jobs.in_state(state)
    for field, states in FIELDS_OF_STATES.items():
        if state not in states:
            value = _SAMPLES.get(field, 5.0 if field.endswith(("_at", "_deadline")) else "x")
            refused(records, f"UPDATE jobs SET {field} = :value WHERE id = :id", value=value, id=job_id)


@pytest.mark.parametrize("state", list(JobState))
def test_a_field_that_a_state_needs_must_be_there(jobs: Any, records: SqlRecords, state: JobState) -> None:
    job_id = jobs.in_state(state)
    for field, states in REQUIRED_IN_STATES.items():
        if state in states:
            refused(records, f"UPDATE jobs SET {field} = NULL WHERE id = :id", id=job_id)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'sleeping'",
        "outcome = 'meh'",
        "outcome = 'lost'",
        "priority = 4",
        "priority = -1",
        "gpus = -1",
        "max_retries = -1",
        "retries_used = -1",
        "lost_count = -1",
        "attempt = -1",
        "name = NULL",
        "command = NULL",
    ],
)
def test_a_value_outside_its_range_is_refused(jobs: Any, records: SqlRecords, change: str) -> None:
    job_id = jobs.in_state(S.COMPLETED)
    refused(records, f"UPDATE jobs SET {change} WHERE id = :id", id=job_id)


def test_only_a_completed_job_succeeded(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.in_state(S.FAILED)
    refused(records, "UPDATE jobs SET outcome = 'succeeded' WHERE id = :id", id=job_id)


@pytest.mark.parametrize("change", ["outcome = 'meh'", "outcome = NULL", "finished_at = NULL", "number = 0"])
def test_an_attempt_that_makes_no_sense_is_refused(jobs: Any, records: SqlRecords, change: str) -> None:
    jobs.in_state(S.COMPLETED)
    refused(records, f"UPDATE attempts SET {change}")


def test_a_second_live_attempt_is_refused(jobs: Any, records: SqlRecords) -> None:
    jobs.in_state(S.RUNNING)
    columns = "job_id, number, token, node, boot_id, gpu_indices, gpu_uuids, run_dir, log_path, claimed_at"
    values = "job_id, number + 1, token, node, boot_id, gpu_indices, gpu_uuids, run_dir, log_path, claimed_at"
    refused(records, f"INSERT INTO attempts ({columns}) SELECT {values} FROM attempts")


def test_rows_about_jobs_that_do_not_exist_are_refused(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    refused(records, "INSERT INTO events (at, job_id, to_state, actor) VALUES (1, 999, 'queued', 'x')")
    refused(records, "INSERT INTO dependencies (job_id, on_id, kind) VALUES (:id, 999, 'any')", id=job_id)
    refused(records, "INSERT INTO dependencies (job_id, on_id, kind) VALUES (:id, :id, 'any')", id=job_id)
    other = jobs.add()
    refused(records, "INSERT INTO dependencies (job_id, on_id, kind) VALUES (:id, :on, 'or')", id=job_id, on=other)


def test_a_job_that_others_wait_for_cannot_be_deleted(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    jobs.add(state=S.BLOCKED, after=[job_id])
    refused(records, "DELETE FROM jobs WHERE id = :id", id=job_id)


def test_deleting_a_job_takes_all_of_it_along(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.in_state(S.FAILED)
    write(records, "DELETE FROM jobs WHERE id = :id", id=job_id)
    with records.database.read() as connection:
        for table in ("specs", "attempts", "events", "dependencies"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0

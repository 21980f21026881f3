from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.states import JobState
from gpuq.ports.records import DeadLetter, Move
from gpuq.stores.sql import SqlHistory, SqlRecords

S = JobState


@pytest.fixture
def history(records: SqlRecords) -> Iterator[SqlHistory]:
    # Shares the connections of `records`, which closes them.
    return SqlHistory(records.database)


def rows(history: SqlHistory, sql: str) -> list[dict[str, Any]]:
    columns, found = history.query(sql)
    return [dict(zip(columns, row, strict=True)) for row in found]


def run_twice(jobs: Any) -> int:
    """Two GPUs: submitted at 0, ran from 10.5 to 20.75 and failed, from 100 to 130.125 and succeeded."""
    job_id = jobs.add(name="bert", group="lab", gpus=2, priority="high")
    now = jobs.NOW
    token = jobs.run(job_id, at=now + 10.5)
    jobs.finish(job_id, token, S.DELAYED, Outcome.EXIT_NONZERO, at=now + 20.75, eligible_at=now + 50)
    jobs.move(job_id, S.QUEUED, S.DELAYED, at=now + 50)
    token = jobs.run(job_id, at=now + 100)
    jobs.finish(job_id, token, S.COMPLETED, Outcome.SUCCEEDED, at=now + 130.125, exit_code=0)
    return int(job_id)


def test_job_history_has_one_row_a_job(jobs: Any, history: SqlHistory) -> None:
    job_id = run_twice(jobs)
    assert rows(history, "SELECT * FROM job_history") == [
        {
            "id": job_id,
            "name": "bert",
            "user": "alice",
            "group": "lab",
            "state": "completed",
            "priority": "high",
            "gpus": 2,
            "submitted_at": "2027-01-15T08:00:00.000Z",
            "started_at": "2027-01-15T08:00:10.500Z",
            "finished_at": "2027-01-15T08:02:10.125Z",
            "wait_s": 10.5,
            "run_s": 40.375,
            "gpu_seconds": 80.75,
            "attempts": 2,
            "outcome": "succeeded",
            "exit_code": 0,
        }
    ]


def test_job_history_of_a_job_that_never_ran_has_no_durations(jobs: Any, history: SqlHistory) -> None:
    jobs.add()
    (row,) = rows(history, "SELECT * FROM job_history")
    empty = ("started_at", "finished_at", "wait_s", "run_s", "gpu_seconds", "outcome", "exit_code", "group")
    assert {row[name] for name in empty} == {None}
    assert row["attempts"] == 0


def test_job_history_counts_a_running_attempt_only_as_started(jobs: Any, history: SqlHistory) -> None:
    job_id = jobs.add()
    jobs.run(job_id, at=jobs.NOW + 4)
    (row,) = rows(history, f"SELECT wait_s, run_s, attempts FROM job_history WHERE id = {job_id}")
    assert row == {"wait_s": 4.0, "run_s": None, "attempts": 1}


@pytest.mark.parametrize("priority", ["critical", "high", "normal", "low"])
def test_job_history_names_priorities(jobs: Any, history: SqlHistory, priority: str) -> None:
    jobs.add(priority=priority)
    assert history.query("SELECT priority FROM job_history")[1] == [(priority,)]


def test_attempt_history_has_one_row_an_attempt(jobs: Any, history: SqlHistory) -> None:
    job_id = run_twice(jobs)
    wanted = 'job_id, attempt, name, "user", node, gpus, started_at, run_s, gpu_seconds, outcome, exit_code'
    found = history.query(f"SELECT {wanted} FROM attempt_history ORDER BY attempt")[1]
    who = ("bert", "alice", "box", 2)
    assert found == [
        (job_id, 1, *who, "2027-01-15T08:00:10.500Z", 10.25, 20.5, "exit_nonzero", None),
        (job_id, 2, *who, "2027-01-15T08:01:40.000Z", 30.125, 60.25, "succeeded", None),
    ]


def test_times_keep_their_milliseconds(jobs: Any, history: SqlHistory) -> None:
    for ms in (0, 1, 123, 499, 500, 999):
        jobs.add(submitted_at=round(1_763_805_600 + ms / 1000, 3))
    found = [row[0] for row in history.query("SELECT submitted_at FROM job_history ORDER BY id")[1]]
    assert found == [f"2025-11-22T10:00:00.{ms:03d}Z" for ms in (0, 1, 123, 499, 500, 999)]


def test_dead_letters_and_events_are_told(jobs: Any, records: SqlRecords, history: SqlHistory) -> None:
    job_id = jobs.in_state(S.FAILED)
    with records.write() as tx:
        tx.add_dead_letter(DeadLetter(job_id, jobs.NOW, "exit_nonzero", "boom", 1, "secret log"))
    assert rows(history, "SELECT * FROM dead_letters") == [
        {"job_id": job_id, "failed_at": "2027-01-15T08:00:00.000Z", "outcome": "exit_nonzero", "error": "boom",
         "attempts": 1}
    ]  # fmt: skip
    events = rows(history, "SELECT * FROM job_events ORDER BY id")
    assert set(events[0]) == {"id", "at", "job_id", "attempt", "from_state", "to_state", "actor", "detail"}
    told = [(event["from_state"], event["to_state"], event["attempt"]) for event in events]
    assert told == [(None, "queued", None), ("queued", "starting", 1), ("starting", "running", 1),
                    ("running", "failed", 1)]  # fmt: skip


def test_finished_runs_are_the_newest_oldest_first(jobs: Any, records: SqlRecords, history: SqlHistory) -> None:
    ids = []
    for index in range(3):
        job_id = jobs.add(gpus=index, time_limit_s=60, command=["python", "x.py", str(index)])
        token = jobs.run(job_id, at=jobs.NOW + 10)
        jobs.finish(job_id, token, S.COMPLETED, Outcome.SUCCEEDED, at=jobs.NOW + 20 + index)
        ids.append(job_id)
    never_started = jobs.add()
    token = jobs.claim(never_started)
    with records.write() as tx:
        tx.end_attempt(never_started, 1, token, Result(Outcome.LAUNCH_ERROR, finished_at=jobs.NOW + 99))
    found = history.finished_runs(limit=2)
    assert [(run.job_id, run.run_s, run.gpus, run.command[-1]) for run in found] == [
        (ids[1], 11.0, 1, "1"),
        (ids[2], 12.0, 2, "2"),
    ]
    assert found[0].user == "alice"
    assert found[0].time_limit_s == 60.0
    assert found[0].outcome == "succeeded"
    assert found[0].finished_at == jobs.NOW + 21
    assert [run.job_id for run in history.finished_runs(limit=9, since=jobs.NOW + 21)] == [ids[2]]


def test_the_views_of_a_large_group_stay_consistent_with_the_rows(jobs: Any, records: SqlRecords) -> None:
    with records.write() as tx:
        ids = tx.add_jobs([jobs.new(gpus=1) for _ in range(20)], actor="alice")
        for job_id in ids[:10]:
            jobs.claim_in(tx, job_id, "t" * 32, gpus=(0,))
            tx.launched(job_id, 1, "t" * 32, Launched(1, 1, 2, 2, jobs.NOW + 1))
            tx.end_attempt(job_id, 1, "t" * 32, Result(Outcome.PREEMPTED, finished_at=jobs.NOW + 3))
            tx.move(Move(job_id, S.QUEUED, frozenset({S.STARTING}), "gpuq", jobs.NOW + 3))
    history = SqlHistory(records.database)
    assert history.query("SELECT count(*), sum(attempts), sum(gpu_seconds) FROM job_history")[1] == [(20, 10, 20.0)]

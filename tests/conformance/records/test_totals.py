"""Totals are kept, not counted: after anything that happens they are what a full count would give."""

from __future__ import annotations

import random
from typing import Any

import pytest
from counting import counted, kept
from sqlalchemy import text

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.errors import Refused
from gpuq.ports.records import DeadLetter, JobFilter
from gpuq.stores.sql import SqlRecords, open_records
from gpuq.stores.sql.schema import totals

S = JobState


def told(records: SqlRecords) -> dict[str, Any]:
    with records.read() as reader:
        found = kept(reader.totals())
        assert reader.count_by_state() == {S(state): count for state, count in found["jobs"].items()}
        assert reader.count_dead_letters() == found["dead_letters"]
    return found


def test_totals_are_those_of_a_full_count_whatever_happened(jobs: Any, records: SqlRecords) -> None:
    assert told(records) == counted(records.database)
    draw = random.Random(11)
    running: dict[int, str] = {}
    at = jobs.NOW
    for step in range(60):
        chance = draw.random()
        at += draw.choice((0.2, 1, 4.5, 20, 61, 4000, 40_000)) * (step / 20)
        if chance < 0.4:
            jobs.in_state(draw.choice(list(S)))
        elif chance < 0.6:
            job_id = jobs.add()
            running[job_id] = jobs.run(job_id, at=at)
        elif running:
            job_id, token = running.popitem()
            to = draw.choice((S.COMPLETED, S.FAILED, S.QUEUED, S.DELAYED))
            outcome = Outcome.SUCCEEDED if to is S.COMPLETED else draw.choice((Outcome.SIGNAL, Outcome.LOST))
            fields = {"eligible_at": at} if to is S.DELAYED else {}
            jobs.finish(job_id, token, to, outcome, at=at + 5, **fields)
            if to is S.FAILED:
                with records.write() as tx:
                    for _ in range(2):  # the second replaces the first
                        tx.add_dead_letter(DeadLetter(job_id, at, "signal", None, 1, None))
                if draw.random() < 0.5:
                    jobs.move(job_id, S.QUEUED, S.FAILED, started_at=None)
                    with records.write() as tx:
                        assert tx.remove_dead_letter(job_id)
            if to is S.QUEUED or jobs.get(job_id).state is S.QUEUED:
                running[job_id] = jobs.run(job_id, at=at + 9)
        assert told(records) == counted(records.database), step
    assert told(records)["count"] > 5


def test_what_was_undone_is_not_counted(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    before = told(records)

    def half_way() -> None:
        with records.write() as tx:
            tx.add_jobs([jobs.new()], actor="alice")
            jobs.claim_in(tx, job_id, "t" * 32)
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half_way()
    assert told(records) == before == counted(records.database)


@pytest.mark.parametrize("place", [0, 7, 20, 39, 44])
def test_a_list_that_is_refused_in_its_midst_leaves_nothing_and_is_not_counted(
    jobs: Any, records: SqlRecords, place: int
) -> None:
    jobs.add(key="taken")
    some = [jobs.new(key="taken" if n == place else None) for n in range(45)]
    with records.write() as tx:
        with pytest.raises(Refused), tx.part():
            tx.add_jobs(some, actor="alice")
        [after] = tx.add_jobs([jobs.new()], actor="alice")
    assert told(records) == counted(records.database)
    assert told(records)["jobs"] == {"queued": 2}
    with records.read() as reader:
        assert len(reader.jobs(JobFilter())) == 2
        assert reader.job(after).state is S.QUEUED


def test_another_process_and_a_person_change_them_too(jobs: Any, records: SqlRecords, url: str) -> None:
    jobs.in_state(S.FAILED)
    other = open_records(url)
    with other.write() as tx:
        tx.add_jobs([jobs.new() for _ in range(3)], actor="bob")
    with other.database.write() as connection:
        connection.execute(text("UPDATE jobs SET state = 'held', held_by = 'x' WHERE state = 'queued'"))
    other.close()
    assert told(records)["jobs"] == {"failed": 1, "held": 3}


def test_a_record_that_is_removed_is_gone_from_what_is_there_and_stays_in_what_was_ever(
    jobs: Any, records: SqlRecords
) -> None:
    job_id = jobs.in_state(S.COMPLETED)
    jobs.in_state(S.COMPLETED)
    with records.database.write() as connection:
        connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job_id})
    found = told(records)
    assert (found["jobs"], found["attempts"], found["count"]) == ({"completed": 1}, {"succeeded": 2}, 2)


def test_an_attempt_that_never_started_leaves_the_wait_to_the_next(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    token = jobs.claim(job_id)
    jobs.finish(job_id, token, S.QUEUED, Outcome.LAUNCH_ERROR)
    assert told(records)["count"] == 0
    jobs.run(job_id, at=jobs.NOW + 100)
    assert (told(records)["count"], told(records)["seconds"]) == (1, 100)


def test_folding_the_rows_changes_no_number(jobs: Any, records: SqlRecords) -> None:
    for state in S:
        jobs.in_state(state)
    before = told(records)
    if records.database.path is None:
        with records.database.write() as connection:
            connection.exec_driver_sql(totals._FOLD)
            rows = connection.exec_driver_sql("SELECT count(*), count(DISTINCT name) FROM totals").one()
        assert rows[0] == rows[1]
    assert told(records) == before == counted(records.database)

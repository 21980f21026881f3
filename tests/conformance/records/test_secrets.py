"""Encrypted variables: one row for all jobs that share them, deleted with the end of the last, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, text

from gpuq.domain.states import FINAL, JobState
from gpuq.ports.secrets import Sealed
from gpuq.stores.sql import SqlRecords

S = JobState
SECRETS = {"HF_TOKEN": "never stored"}


def rows(url: str) -> list[Any]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text("SELECT key, sealed FROM secrets ORDER BY id"))]
    finally:
        engine.dispose()


def add(jobs: Any, records: SqlRecords, *sealed: Sealed | None) -> list[int]:
    with records.write() as tx:
        return tx.add_jobs([jobs.new(sealed=each, secrets=SECRETS if each else {}) for each in sealed], actor="alice")


def test_jobs_that_share_secrets_share_a_row_and_others_have_none(jobs: Any, records: SqlRecords, url: str) -> None:
    one, two = Sealed("k", "one"), Sealed("k", "two")
    ids = add(jobs, records, None, one, one, None, one, two)
    assert rows(url) == [("k", "one"), ("k", "two")]
    with records.read() as tx:
        assert [tx.sealed(job_id) for job_id in ids] == [None, one, one, None, one, two]
        assert tx.without_secrets(ids) == frozenset()
        # Of what is stored in the specification there are the names.
        assert [tx.spec(job_id)[0].secrets for job_id in ids[:2]] == [{}, {"HF_TOKEN": None}]


@pytest.mark.parametrize("end", sorted(FINAL))
def test_the_last_jobs_end_deletes_them_and_nothing_else_does(
    jobs: Any, records: SqlRecords, url: str, end: JobState
) -> None:
    first, second, other = add(jobs, records, *(Sealed("k", text) for text in ("first", "second", "other")))
    for source, target in ((S.QUEUED, S.STARTING), (S.STARTING, S.RUNNING), (S.RUNNING, end)):
        assert len(rows(url)) == 3
        jobs.move(first, target, source, **jobs.fields_for(target))
    assert rows(url) == [("k", "second"), ("k", "other")]
    jobs.move(second, S.HELD, S.QUEUED, **jobs.fields_for(S.HELD))
    jobs.move(other, S.CANCELLED, S.QUEUED, **jobs.fields_for(S.CANCELLED))
    assert rows(url) == [("k", "second")]
    with records.read() as tx:
        assert tx.without_secrets([first, second, other, 999]) == {first, other}
    # Its number is not given again: a job whose secrets are gone must not get somebody else's.
    [newer] = add(jobs, records, Sealed("k", "newer"))
    with records.read() as tx:
        assert tx.sealed(other) is None
        assert tx.sealed(newer) == Sealed("k", "newer")

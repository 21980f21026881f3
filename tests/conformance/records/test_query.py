"""SQL that a person writes: it reads, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.errors import Refused, UsageError
from gpuq.ports.records import JobFilter
from gpuq.stores.sql import SqlHistory, SqlRecords, open_tokens


@pytest.fixture
def history(records: SqlRecords) -> SqlHistory:
    return SqlHistory(records.database)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM jobs",
        "UPDATE jobs SET state = 'completed'",
        "INSERT INTO installation (key, value, at) VALUES ('paused', '1', 1)",
        "DROP VIEW job_history",
        "CREATE TABLE x (y int)",
        "WITH gone AS (DELETE FROM jobs RETURNING id) SELECT * FROM gone",
        "SELECT 1; DELETE FROM jobs",
        "SELECT 1; COMMIT; DELETE FROM jobs",
        "COMMIT",
        "BEGIN",
        "/* SELECT */ DELETE FROM jobs",
        "-- a remark\nDELETE FROM jobs",
        "EXPLAIN ANALYZE DELETE FROM jobs",
        "ATTACH DATABASE '/tmp/x.db' AS other",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "VACUUM",
        "SET default_transaction_read_only = off",
        "SELECT setval(pg_get_serial_sequence('jobs', 'id'), 1)",
        "SELECT load_extension('x')",
        "",
    ],
)
def test_nothing_but_reading_is_possible(jobs: Any, records: SqlRecords, history: SqlHistory, statement: str) -> None:
    jobs.add()
    with pytest.raises((Refused, UsageError)) as refusal:
        history.query(statement)
    assert refusal.value.hint
    with records.read() as reader:
        assert reader.count(JobFilter()) == 1
    assert jobs.add() == 2


@pytest.mark.parametrize("statement", ["selec", "SELCT 1", "SELECT 1 FRM jobs", "1", "", "; DELETE FROM jobs"])
def test_what_is_no_statement_is_a_mistake(history: SqlHistory, statement: str) -> None:
    with pytest.raises(UsageError, match="SQL: ") as complaint:
        history.query(statement)
    assert complaint.value.hint


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM jobs", "insert into jobs values (1)", "UPDATE jobs SET id = 2", "DROP TABLE jobs", "BEGIN", "VACUUM",
     "COPY jobs TO PROGRAM 'cat'", "DO 'BEGIN END'", "ATTACH 'x' AS y", "(DELETE FROM jobs)"],
)  # fmt: skip
def test_what_changes_something_is_refused_and_not_called_a_mistake(history: SqlHistory, statement: str) -> None:
    with pytest.raises(Refused, match="only reads"):
        history.query(statement)


def test_a_query_sees_what_was_just_committed(jobs: Any, history: SqlHistory) -> None:
    job_id = jobs.add(name="seen")
    columns, found = history.query('SELECT id, name AS "the name" FROM job_history')
    assert (columns, found) == (["id", "the name"], [(job_id, "seen")])


@pytest.mark.parametrize("statement", ["select count(*) from job_history", "SELECT 0;", " \n-- x\n SELECT 0;",
                                       "WITH x AS (SELECT 0) SELECT * FROM x", "VALUES (0)"])  # fmt: skip
def test_a_question_may_be_written_in_many_ways(history: SqlHistory, statement: str) -> None:
    assert history.query(statement)[1] == [(0,)]


def test_a_limit_cuts_the_answer(jobs: Any, history: SqlHistory) -> None:
    for _ in range(3):
        jobs.add()
    assert history.query("SELECT id FROM job_history ORDER BY id", limit=2)[1] == [(1,), (2,)]
    assert len(history.query("SELECT id FROM job_history")[1]) == 3


@pytest.mark.parametrize(
    "statement",
    ["SELECT nonsense FROM job_history", "SELECT nonsense", "SELECT FROM WHERE", "SELECT * FROM no_such"],
)
def test_a_mistake_is_told_in_the_databases_words(history: SqlHistory, statement: str) -> None:
    with pytest.raises(UsageError, match="SQL: ") as complaint:
        history.query(statement)
    assert "job_history" in (complaint.value.hint or "")


def test_numbers_come_as_numbers(jobs: Any, history: SqlHistory) -> None:
    jobs.add()
    ((half, total),) = history.query("SELECT 1.0 * sum(gpus) / 2, sum(gpus) FROM job_history")[1]
    assert (half, total) == (0.5, 1)
    assert type(half) is float
    assert type(total) is int


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM specs",
        "SELECT (SELECT spec FROM specs)",
        "SELECT hash FROM tokens",
        "WITH job_history AS (SELECT * FROM specs) SELECT * FROM job_history",
        "SELECT j.id FROM job_history j WHERE EXISTS (SELECT 1 FROM specs s WHERE s.spec LIKE '%TOP%')",
    ],
)
def test_environments_and_token_hashes_are_not_shown(
    jobs: Any, records: SqlRecords, history: SqlHistory, statement: str
) -> None:
    jobs.add(env={"A": "TOP SECRET"})
    open_tokens(records.database).create("alice", "laptop", 1.0)
    with pytest.raises(Refused, match="not shown") as refusal:
        history.query(statement)
    assert "TOP SECRET" not in str(refusal.value)


def test_the_word_for_a_secret_table_may_stand_in_a_question(jobs: Any, history: SqlHistory) -> None:
    jobs.add(name="tokens")
    assert history.query("SELECT name FROM job_history WHERE name = 'tokens'")[1] == [("tokens",)]


def test_a_question_that_takes_too_long_is_ended(
    records: SqlRecords, history: SqlHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuq.stores.sql.history.QUERY_LIMIT_S", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(UsageError, match="longer than"):
        history.query(endless)

"""What is asked costs what it shows, not what has piled up: by the plans of the databases and by counts."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.ports.records import JobFilter, Reader
from gpuq.stores.sql import Database, SqlRecords, open_history, open_records

S = JobState
NOW = 1_800_000_000.0
DAY = 86400.0
UNSUCCESSFUL = frozenset({S.FAILED, S.CANCELLED})

FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "since": {"finished_since": NOW - 30 * DAY},
    "until": {"finished_until": NOW - 100 * DAY},
    "a window": {"finished_since": NOW - 200 * DAY, "finished_until": NOW - 100 * DAY},
    "a user": {"user": "alice"},
    "a user's failed ones": {"user": "alice", "states": frozenset({S.FAILED})},
    "a user in a window": {"user": "alice", "finished_since": NOW - 90 * DAY},
    "cancelled": {"states": frozenset({S.CANCELLED})},
    "unsuccessful in a window": {"states": UNSUCCESSFUL, "finished_since": NOW - 90 * DAY},
    "completed": {"states": frozenset({S.COMPLETED})},
    "a group": {"group": "team-1"},
    "a user in a group": {"user": "alice", "group": "team-1"},
    "a name": {"name": "train-model-1"},
    "no such name": {"name": "nothing"},
    "a name of a user that failed": {"name": "train-model-1", "user": "alice", "states": frozenset({S.FAILED})},
}
READS: dict[str, Callable[[Reader], object]] = {
    "totals": lambda tx: tx.totals(),
    "counts by state": lambda tx: tx.count_by_state(),
    "count of what waits": lambda tx: tx.count(JobFilter(states=WAITING)),
    "count of a user": lambda tx: tx.count(JobFilter(states=WAITING | ACTIVE, user="alice")),
    "dead letters": lambda tx: tx.count_dead_letters(),
    "a page of the line": lambda tx: tx.line(limit=100),
    "a page of a user's line": lambda tx: tx.line(limit=100, user="alice"),
    "a page after a place": lambda tx: tx.line(limit=100, after=(NOW, 7)),
    "places": lambda tx: tx.positions([(NOW, 7), (NOW, 9), (NOW + 1, 8)]),
    "active jobs": lambda tx: tx.jobs(JobFilter(states=ACTIVE)),
    "waiting jobs apart": lambda tx: tx.jobs(JobFilter(states=WAITING - {S.QUEUED}, limit=9, after_id=7)),
    "a user's jobs": lambda tx: tx.jobs(JobFilter(user="alice", limit=9, after_id=7)),
    "a user's completed jobs": lambda tx: tx.jobs(
        JobFilter(user="alice", states=frozenset({S.COMPLETED}), limit=9, newest_first=True)
    ),
    "failed jobs by id": lambda tx: tx.jobs(JobFilter(states=frozenset({S.FAILED}), limit=9)),
    "live attempts": lambda tx: tx.live_attempts("box"),
    "what is queued": lambda tx: list(tx.queued()),
    "a job": lambda tx: [job.id for job in tx.jobs(JobFilter(ids=(7,)))],
    **{
        f"history: {name}": lambda tx, fields=fields: tx.jobs(
            JobFilter(**{"states": FINAL, **fields}, limit=50, last_ended_first=True)
        )
        for name, fields in FILTERS.items()
    },
    "history: after a job": lambda tx: tx.jobs(JobFilter(states=FINAL, limit=50, last_ended_first=True, after_id=7)),
}
BIG = "jobs|attempts|events|specs|dependencies"


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What the connections for reading run, with the values in it."""
    heard: list[str] = []
    readers = database._readers
    assert readers is not None
    connect = readers._connect

    def traced() -> sqlite3.Connection:
        connection = connect()
        connection.set_trace_callback(heard.append)
        return connection

    readers.close()
    readers._connect = traced
    pooled = [database.engine.raw_connection() for _ in range(2)]
    for one in pooled:
        one.driver_connection.set_trace_callback(heard.append)  # type: ignore[union-attr]
        one.close()
    try:
        yield heard
    finally:
        database.engine.dispose()
        readers._connect = connect
        readers.close()


def plan_of(database: Database, statement: str) -> list[str]:
    with database.read() as connection:
        driver: Any = connection.connection.driver_connection
        return [row[3] for row in driver.execute("EXPLAIN QUERY PLAN " + statement)]


@pytest.fixture
def grown(grown_url: str) -> Iterator[SqlRecords]:
    opened = open_records(grown_url)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", READS)
def test_no_question_walks_through_a_table_or_sorts_more_than_it_shows(grown: SqlRecords, name: str) -> None:
    with statements(grown.database) as heard, grown.read() as tx:
        READS[name](tx)
    asked = [one for one in heard if one.startswith("SELECT")]
    assert asked
    for one in asked:
        plan = plan_of(grown.database, one)
        # A scan of the index of the line, or of what is live, is a walk along exactly what is asked for.
        walks = [
            step
            for step in plan
            if re.match(rf"SCAN ({BIG})\b", step) and "ix_jobs_line" not in step and "uq_attempts_live" not in step
        ]
        assert walks == [], plan
        if name.startswith("history") and "failed" not in name:
            # The page itself comes in order from its index; the fifty rows of it may be sorted again.
            page = "\n".join(plan)
            assert page.count("USE TEMP B-TREE FOR ORDER BY") <= 1, plan


@pytest.mark.parametrize("name", ["totals", "counts by state", "count of what waits", "dead letters"])
def test_numbers_are_read_and_not_counted(grown: SqlRecords, name: str) -> None:
    with statements(grown.database) as heard, grown.read() as tx:
        READS[name](tx)
    asked = [one for one in heard if one.startswith("SELECT")]
    assert len(asked) == 1
    assert not re.search(rf"\b(FROM|JOIN) ({BIG}|dead_letter_queue)\b", asked[0])


@pytest.mark.parametrize("name", FILTERS)
def test_the_history_is_what_a_filter_over_all_rows_gives_page_by_page(grown: SqlRecords, name: str) -> None:
    draw = random.Random(3)
    with grown.read() as tx:
        everything = tx.jobs(JobFilter())
        fields = dict(FILTERS[name])
        if "user" in fields:
            fields["user"] = draw.choice([job.user for job in everything if job.state is S.FAILED])
        where = JobFilter(**{"states": FINAL, **fields}, last_ended_first=True)
        expected = sorted(
            (
                job
                for job in everything
                if job.finished_at is not None
                and job.state in (where.states or ())
                and where.user in {None, job.user}
                and where.group in {None, job.group}
                and where.name in {None, job.name}
                and (where.finished_since is None or job.finished_at >= where.finished_since)
                and (where.finished_until is None or job.finished_at < where.finished_until)
            ),
            key=lambda job: (job.finished_at, job.id),
            reverse=True,
        )
        assert tx.jobs(where) == expected
        assert (expected == []) == (name == "no such name")
        pages: list[int] = []
        after = None
        while page := tx.jobs(
            JobFilter(**{"states": FINAL, **fields}, last_ended_first=True, limit=97, after_id=after)
        ):
            pages += [job.id for job in page]
            after = page[-1].id
        assert pages == [job.id for job in expected]


def test_lists_by_id_are_what_a_filter_over_all_rows_gives(grown: SqlRecords) -> None:
    with grown.read() as tx:
        everything = tx.jobs(JobFilter())
        user = everything[0].user
        for states in (None, FINAL, WAITING, UNSUCCESSFUL, frozenset({S.FAILED}), frozenset()):
            for whose in (None, user, "nobody-at-all"):
                for newest_first in (False, True):
                    expected = [
                        job.id
                        for job in everything
                        if (states is None or job.state in states) and whose in {None, job.user}
                    ]
                    where = JobFilter(states=states, user=whose, newest_first=newest_first, limit=40)
                    ordered = expected[::-1] if newest_first else expected
                    assert [job.id for job in tx.jobs(where)] == ordered[:40]
                    assert tx.count(JobFilter(states=states, user=whose)) == len(expected)


def test_places_in_line_are_counted_once_for_many(grown: SqlRecords) -> None:
    with grown.read() as tx:
        line = tx.line()
        places = {job.id: place for place, job in enumerate(line, start=1)}
        draw = random.Random(5)
        some = draw.sample(line, 60)
        assert tx.positions([(job.score, job.id) for job in some]) == {job.id: places[job.id] for job in some}
        assert tx.position(some[0].score, some[0].id) == places[some[0].id]
        theirs = [job.id for job in line if job.user == line[0].user]
        assert [job.id for job in tx.line(user=line[0].user)] == theirs
        middle = line[100]
        assert [job.id for job in tx.line(after=(middle.score, middle.id), limit=7)] == [j.id for j in line[101:108]]


def test_a_job_of_a_year_ago_costs_less_than_900_bytes(growth_database: ModuleType, tmp_path: Path) -> None:
    size = growth_database.Size(finished=8000, waiting=800)
    path = growth_database.make(tmp_path, size)
    assert path.stat().st_size / size.jobs < 900


@pytest.mark.postgres
def test_on_postgresql_every_page_of_the_history_has_its_index(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_sort = off"))
        for condition in (
            "true", "finished_at >= 1", "name = 'x'", "\"user\" = 'x'", "\"group\" = 'x'",
            "state IN ('cancelled', 'failed') AND state = 'failed'",
        ):  # fmt: skip
            question = (
                f"SELECT id FROM jobs WHERE finished_at IS NOT NULL AND {condition} ORDER BY finished_at DESC LIMIT 9"
            )
            plan = [row[0] for row in connection.execute(text("EXPLAIN " + question))]
            assert any("finished" in line or "ix_jobs_unsuccessful" in line for line in plan if "Index" in line), plan
    database.close()


def test_a_report_reads_what_ended_within_its_time(grown_url: str) -> None:
    from gpuq.engine.queries import reports, utilization

    database = Database(grown_url)
    since = NOW - 30 * DAY
    dialect, window = reports.SQLITE, reports.Window(since, NOW + DAY, NOW)
    for by in reports.GROUPINGS:
        for statement in (
            reports.usage(dialect, [by, "user"], window, [0, 1]),
            reports.usage(dialect, [by], window, [0, 1]),
            reports.waits(dialect, [by], window),
            reports.failures(dialect, [by], window, [0, 1]),
            utilization._statement(dialect.cards, dialect.whole, by, since, since, NOW),
        ):
            plan = plan_of(database, statement)
            assert not [
                step for step in plan if re.match(r"SCAN (a|j|attempts|jobs)\b", step) and "live" not in step
            ], plan
            assert any("ix_attempts_finished (finished_at>?" in step for step in plan), plan
    database.close()


def test_expectations_are_learnt_from_the_newest_runs_alone(grown_url: str) -> None:
    history = open_history(grown_url)
    with statements(history.database) as heard:
        assert len(history.finished_runs(limit=10)) == 10
    (asked,) = [one for one in heard if one.startswith("SELECT")]
    plan = plan_of(history.database, asked)
    assert "ix_attempts_finished" in plan[0], plan
    history.database.close()

"""The name and the numbers of a database, and what is written of jobs that another one knew."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.states import JobState
from gpuq.engine.home_mark import HomeMark
from gpuq.errors import ForeignDatabase, Refused
from gpuq.ports.records import Standing
from gpuq.stores.sql import SqlIdentity, SqlRecords, checkpoint, open_records, standing_of

S = JobState


def at(name: str | None, last_event: int, last_job: int) -> tuple[str | None, int, int]:
    return name, last_event, last_job


def of(standing: Standing) -> tuple[str | None, int, int]:
    """What it has given; what is committed has a test of its own."""
    return standing.installation, standing.last_event, standing.last_job


@pytest.fixture
def identity(records: SqlRecords) -> SqlIdentity:
    return SqlIdentity(records.database)


@pytest.fixture
def marked(url: str, tmp_path: Path) -> Iterator[tuple[SqlRecords, HomeMark]]:
    """Records whose numbers a home remembers."""
    home = tmp_path / "home"
    home.mkdir()
    mark = HomeMark(home)
    mark.take("a", Standing("a", 0, 0, 0, 0))
    opened = open_records(url, mark)
    yield opened, mark
    opened.close()


def test_a_fresh_database_has_no_name_and_has_given_nothing(identity: SqlIdentity) -> None:
    assert of(identity.standing()) == at(None, 0, 0)


def test_a_name_is_given_once(identity: SqlIdentity) -> None:
    assert identity.name_first("first") == "first"
    assert identity.name_first("second") == "first"
    assert of(identity.standing()) == at("first", 0, 0)


def test_the_standing_is_the_newest_event_and_the_highest_id_ever_given(identity: SqlIdentity, jobs: Any) -> None:
    jobs.add()
    last = jobs.add()
    jobs.move(last, S.HELD, S.QUEUED, held_by="alice")
    assert of(identity.standing()) == at(None, 3, last)


def test_what_came_to_nothing_is_not_committed(identity: SqlIdentity, records: SqlRecords, jobs: Any) -> None:
    first = jobs.add()
    with contextlib.suppress(RuntimeError), records.write() as tx:
        tx.add_jobs([jobs.new()], actor="alice")
        raise RuntimeError("rolled back")
    found = identity.standing()
    assert (found.committed_event, found.committed_job) == (1, first)
    # A sequence of PostgreSQL does not go back.
    assert found.last_job == (first if records.database.path else first + 1)


def test_ids_go_on_after_those_of_a_lost_database(identity: SqlIdentity, jobs: Any) -> None:
    jobs.add()
    assert of(identity.take_on("new", last_job=500)) == at("new", 1, 500)
    assert jobs.add() == 501
    assert of(identity.take_on("newer", last_job=9)) == at("newer", 2, 501)
    assert jobs.add() == 502


def test_ids_go_on_in_a_database_that_never_gave_one(identity: SqlIdentity, jobs: Any) -> None:
    identity.take_on("new", last_job=500)
    assert jobs.add() == 501


def test_a_known_job_keeps_its_id_and_takes_none(identity: SqlIdentity, records: SqlRecords, jobs: Any) -> None:
    identity.take_on("new", last_job=500)
    with records.write() as tx:
        tx.add_known_job(42, jobs.new(), actor="gpuq")
    assert jobs.get(42).state is S.QUEUED
    assert jobs.add() == 501
    with pytest.raises(Refused, match="there is a job 42"), records.write() as tx:
        tx.add_known_job(42, jobs.new(), actor="gpuq")


def test_attempts_are_counted_on_and_never_back_and_not_under_a_live_one(records: SqlRecords, jobs: Any) -> None:
    waiting, active = jobs.add(), jobs.add()
    jobs.claim(active)
    with records.write() as tx:
        for job_id in (waiting, active):
            tx.count_attempts_from(job_id, 3)
            tx.count_attempts_from(job_id, 2)
    assert (jobs.get(waiting).attempt, jobs.get(active).attempt) == (3, 1)


def test_a_refusal_is_met_by_every_write_and_by_no_read(url: str) -> None:
    refused = open_records(url, None, ForeignDatabase("of the past"))
    with refused.read() as tx:
        assert tx.last_event_id() == 0
    with pytest.raises(ForeignDatabase), refused.write():
        pass
    refused.close()


def test_the_home_hears_of_what_was_committed_and_of_nothing_else(
    marked: tuple[SqlRecords, HomeMark], jobs: Any
) -> None:
    records, mark = marked
    with records.write() as tx:
        [first, last] = tx.add_jobs([jobs.new(), jobs.new()], actor="alice")
    standing = SqlIdentity(records.database).standing()
    remembered = mark.read()
    assert remembered is not None
    assert (remembered.last_job, standing.last_job) == (last, last)
    with contextlib.suppress(RuntimeError), records.write() as tx:
        tx.add_jobs([jobs.new()], actor="alice")
        raise RuntimeError("rolled back")
    assert mark.read() == remembered
    with records.write() as tx:
        tx.add_event(first, S.QUEUED, "gpuq", jobs.NOW, "a remark")
    remembered = mark.read()
    assert remembered is not None
    # PostgreSQL's driver does not tell the id of an event.
    assert remembered.last_event == (3 if records.database.path else 0)


def test_a_submission_and_a_start_cost_no_statement_no_sync_and_no_file_more(
    marked: tuple[SqlRecords, HomeMark], records: SqlRecords, jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with a home that remembers as without, but for a write into the page cache behind each commit."""
    statements: list[str] = []
    if records.database.path is None:
        pytest.skip("the driver has no trace; the statements are the same")
    plain, remembering = records, marked[0]
    for opened in (plain, remembering):
        with opened.database.write_on_driver() as c:
            c.set_trace_callback(statements.append)
    asked: list[str] = []
    for name in ("open", "fsync", "fdatasync", "read", "pwrite", "write"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _real=real, _name=name, **k: (asked.append(_name), _real(*a, **k))[1])

    def done(opened: SqlRecords) -> tuple[list[str], list[str]]:
        with opened.write() as tx:
            [job_id] = tx.add_jobs([jobs.new()], actor="alice")
        with opened.write() as tx:
            jobs.claim_in(tx, job_id, "t" * 32, at=jobs.NOW, gpus=(0,), node="box")
        seen = [text.partition(" ")[0] for text in statements], list(asked)
        statements.clear()
        asked.clear()
        return seen

    done(remembering)
    (said, kernel), (said_plain, kernel_plain) = done(remembering), done(plain)
    assert said == said_plain
    assert kernel_plain == []
    assert kernel == ["pwrite", "pwrite"]


def test_after_a_checkpoint_the_file_alone_has_everything(tmp_path: Path, jobs: Any, sqlite_template: Path) -> None:
    path = tmp_path / "one.db"
    path.write_bytes(sqlite_template.read_bytes())
    opened = open_records(f"sqlite:///{path}")
    with opened.write() as tx:
        [first] = tx.add_jobs([jobs.new()], actor="alice")
    bare = tmp_path / "bare.db"
    bare.write_bytes(path.read_bytes())
    assert standing_of(bare).last_job == 0, "it was in the log"
    checkpoint(opened.database)
    bare.write_bytes(path.read_bytes())
    assert of(standing_of(bare)) == at(None, 1, first)
    # A writer in the middle of its transaction is not waited for, and does not wait.
    with opened.write() as tx:
        tx.add_jobs([jobs.new()], actor="alice")
        checkpoint(opened.database)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
    assert path.with_name("one.db-wal").stat().st_size > 0, "the log keeps its blocks"
    opened.close()

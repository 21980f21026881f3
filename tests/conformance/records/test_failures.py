"""What a database can do to us, told as our own errors with what to do next, and nothing half-written."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gpuq.domain.states import JobState
from gpuq.errors import ConfigError, DatabaseUnavailable, NotFound, SchemaMismatch
from gpuq.ports.records import JobFilter
from gpuq.stores.sql import SqlRecords, migrate, open_history, open_records
from gpuq.stores.sql.core import engine

S = JobState
only_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
only_postgres = pytest.mark.parametrize(
    "url", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True
)  # fmt: skip


def count(records: SqlRecords) -> int:
    with records.read() as reader:
        return reader.count(JobFilter())


@only_sqlite
def test_a_writer_that_never_ends_is_told_as_locked(url: str, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LOCK_WAIT_S", 0.05)
    path = engine.sqlite_path(url)
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable, match="locked") as unavailable:
            jobs.add()
        assert unavailable.value.hint
        other.execute("ROLLBACK")
    assert jobs.add()


def test_a_thread_that_never_ends_its_write_is_told_as_locked(
    jobs: Any, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_WAIT_S", 0.05)
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with records.write():
            holding.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(30)
    with pytest.raises(DatabaseUnavailable, match="locked"):
        jobs.add()
    done.set()
    holder.join(30)
    assert jobs.add()


@only_sqlite
def test_a_full_disk_leaves_nothing_half_written(jobs: Any, records: SqlRecords) -> None:
    jobs.add()
    with records.database.write_on_driver() as driver:
        driver.execute("PRAGMA max_page_count = 1")
    with pytest.raises(DatabaseUnavailable, match="full") as full, records.write() as tx:
        tx.add_jobs([jobs.new(env={"A": "x" * 5000}) for _ in range(50)], actor="alice")
    assert "space" in (full.value.hint or "")
    assert count(records) == 1
    with records.database.write_on_driver() as driver:
        driver.execute("PRAGMA max_page_count = 1000000")
    jobs.add()
    assert count(records) == 2


@only_sqlite
def test_a_database_that_cannot_be_written_is_told_so(jobs: Any, records: SqlRecords) -> None:
    with records.database.write_on_driver() as driver:
        driver.execute("PRAGMA query_only = ON")
    with pytest.raises(DatabaseUnavailable, match="cannot be written"):
        jobs.add()


def test_a_missing_sqlite_file_is_not_made_by_opening(tmp_path: Path) -> None:
    path = tmp_path / "gpuq.db"
    records = open_records(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnavailable, match="cannot be opened"), records.read():
        pass
    with pytest.raises(DatabaseUnavailable, match="cannot be opened"):
        open_history(f"sqlite:///{path}").query("SELECT 1")
    with pytest.raises(DatabaseUnavailable, match="cannot be opened"):
        open_history(f"sqlite:///{path}").ask("SELECT 1")
    assert not path.exists()
    records.close()


def test_a_file_that_is_no_database_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "gpuq.db"
    path.write_text("this is a text file, not a database\n" * 50)
    records = open_records(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnavailable, match="not a database"), records.read():
        pass
    records.close()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_database_without_the_schema_is_told_so(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    if kind == "sqlite":
        (tmp_path / "gpuq.db").touch()
        url = f"sqlite:///{tmp_path / 'gpuq.db'}"
    else:
        url = request.getfixturevalue("empty_postgres_url")
    records = open_records(url)
    with pytest.raises(SchemaMismatch) as mismatch, records.read() as reader:
        reader.job(1)
    assert "gpuq db upgrade" in (mismatch.value.hint or "")
    records.close()


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "postgresql://x/y", "postgresql+psycopg2://x/y"],
)
def test_a_url_that_cannot_be_used_is_a_mistake_in_the_settings(url: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        open_records(url)
    assert "sqlite:///" in (mistake.value.hint or "")


@only_postgres
def test_a_cut_connection_leaves_nothing_half_written_and_the_next_one_works(jobs: Any, records: SqlRecords) -> None:
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
               " WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip

    def write_over_a_cut_connection() -> None:
        with records.write() as tx:
            tx.add_jobs([jobs.new()], actor="alice")
            with records.database.engine.connect() as other:
                other.execute(cut)
            tx.add_jobs([jobs.new()], actor="alice")

    with pytest.raises(DatabaseUnavailable):
        write_over_a_cut_connection()
    assert count(records) == 0
    jobs.add()
    assert count(records) == 1


@only_postgres
def test_a_restarted_server_is_found_again(jobs: Any, records: SqlRecords, postgres_server: Any) -> None:
    jobs.add()
    postgres_server.stop()
    try:
        with pytest.raises(DatabaseUnavailable) as away:
            jobs.add()
        assert away.value.hint
        with pytest.raises(DatabaseUnavailable), records.read():
            pass
        with pytest.raises(DatabaseUnavailable):
            open_history(records.database).query("SELECT 1")
        with pytest.raises(DatabaseUnavailable, match="does not let"):
            open_history(records.database).ask("SELECT 1")
    finally:
        postgres_server.start()
    jobs.add()
    assert count(records) == 2


@only_postgres
def test_another_process_that_never_ends_its_write_is_told_as_locked(
    url: str, jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_POSTGRES_SESSION", ("SET lock_timeout = 50",))
    with jobs.records.database.engine.connect() as other:
        other.exec_driver_sql(engine.WRITERS_TURN)
        with pytest.raises(DatabaseUnavailable, match="locked"):
            jobs.add()
    assert jobs.add()


@pytest.mark.postgres
def test_a_read_only_or_missing_postgres_database_is_told_so(empty_postgres_url: str, postgres_server: Any) -> None:
    migrate.ensure(empty_postgres_url)
    name = engine.parse_url(empty_postgres_url).database
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    records = open_records(empty_postgres_url)
    with pytest.raises(DatabaseUnavailable, match="no writes"), records.write() as tx:
        tx.set_value("a", 1, 1.0)
    records.close()
    records = open_records(postgres_server.url("no_such_database"))
    with pytest.raises(DatabaseUnavailable) as missing, records.read():
        pass
    assert missing.value.hint
    records.close()


@only_sqlite
def test_a_connection_that_failed_is_not_read_on_again(url: str, jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    with pytest.raises(sqlite3.OperationalError), records.database.read_on_driver() as broken:
        raise sqlite3.OperationalError("disk I/O error")
    with records.database.read_on_driver() as other:
        assert other is not broken
    with records.read() as reader:
        assert reader.job(job_id).id == job_id


@only_sqlite
def test_a_connection_that_was_read_on_is_used_again_unless_the_records_were_closed_meanwhile(
    url: str, jobs: Any, records: SqlRecords
) -> None:
    jobs.add()
    with pytest.raises(NotFound), records.read() as reader, records.database.read_on_driver() as used:
        reader.job(999)
    with records.database.read_on_driver() as again:
        # Neither has its snapshot any more.
        assert again.in_transaction
        records.database.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        again.execute("SELECT 1")
    with records.database.read_on_driver() as fresh:
        assert fresh is not again
        assert fresh is not used


@only_sqlite
def test_a_reader_sees_what_was_there_at_its_first_question(url: str, jobs: Any, records: SqlRecords) -> None:
    jobs.add()
    with records.read() as reader:
        assert reader.count(JobFilter()) == 1
        jobs.add()
        assert reader.count(JobFilter()) == 1
    assert count(records) == 2

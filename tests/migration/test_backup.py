from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.errors import DatabaseUnavailable, Refused, SchemaMismatch
from gpuq.ports.records import JobFilter, NewJob
from gpuq.stores.sql import SqlIdentity, SqlRecords, migrate, open_records
from gpuq.stores.sql.schema import create

NEW = NewJob(JobSpec(command=["x"]), "alice", 1, 1, "x", "/", JobState.QUEUED, 1.0, 0, 1.0)


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path / 'gpuq.db'}"
    migrate.ensure(made)
    return made


@pytest.fixture
def records(url: str) -> Iterator[SqlRecords]:
    opened = open_records(url)
    yield opened
    opened.close()


def add(records: SqlRecords) -> int:
    with records.write() as tx:
        return tx.add_jobs([NEW], actor="alice")[0]


def ids(records: SqlRecords) -> list[int]:
    with records.read() as reader:
        return [job.id for job in reader.jobs(JobFilter())]


def test_a_backup_holds_what_was_committed_while_gpuq_runs(url: str, records: SqlRecords, tmp_path: Path) -> None:
    first = add(records)
    saved = tmp_path / "saved.db"
    with records.write() as tx:
        tx.add_jobs([NEW], actor="alice")
        migrate.backup(url, saved)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.glob("saved.db*")] == ["saved.db"]
    with closing(sqlite3.connect(saved)) as copy:
        assert copy.execute("SELECT id FROM job_history").fetchall() == [(first,)]


def test_a_restored_database_is_the_one_that_was_saved(url: str, records: SqlRecords, tmp_path: Path) -> None:
    kept = add(records)
    migrate.backup(url, tmp_path / "saved.db")
    lost = add(records)
    migrate.restore(url, tmp_path / "saved.db")
    assert ids(records) == [kept]
    assert add(records) > lost, "an id was given twice"


def test_a_backup_can_be_restored_where_nothing_is(url: str, records: SqlRecords, tmp_path: Path) -> None:
    job_id = add(records)
    migrate.backup(url, tmp_path / "saved.db")
    other = f"sqlite:///{tmp_path / 'elsewhere' / 'gpuq.db'}"
    migrate.restore(other, tmp_path / "saved.db")
    restored = open_records(other)
    assert ids(restored) == [job_id]
    assert add(restored) == job_id + 1
    restored.close()


def test_a_backup_is_not_overwritten(url: str, tmp_path: Path) -> None:
    migrate.backup(url, tmp_path / "saved.db")
    with pytest.raises(Refused, match="exists"):
        migrate.backup(url, tmp_path / "saved.db")
    with pytest.raises(DatabaseUnavailable):
        migrate.backup(url, tmp_path / "no" / "such" / "folder" / "saved.db")
    with pytest.raises(DatabaseUnavailable):
        migrate.backup(f"sqlite:///{tmp_path / 'missing.db'}", tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize("content", ["missing", "text", "empty", "foreign", "newer"])
def test_what_is_no_backup_is_not_restored(url: str, records: SqlRecords, tmp_path: Path, content: str) -> None:
    job_id = add(records)
    source = tmp_path / "source.db"
    if content == "text":
        source.write_text("hello, this is a text\n" * 100)
    elif content == "empty":
        source.touch()
    elif content == "foreign":
        with closing(sqlite3.connect(source)) as other:
            other.execute("CREATE TABLE x (y)")
    elif content == "newer":
        migrate.backup(url, source)
        with closing(sqlite3.connect(source)) as other:
            other.execute("UPDATE alembic_version SET version_num = '9999'")
            other.commit()
    with pytest.raises(SchemaMismatch if content == "newer" else Refused) as refusal:
        migrate.restore(url, source)
    assert refusal.value.hint
    assert ids(records) == [job_id]


def test_an_older_backup_is_restored_and_upgraded(
    url: str, records: SqlRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(records)
    migrate.backup(url, tmp_path / "saved.db")
    upgraded: list[str] = []
    monkeypatch.setattr(migrate, "ensure", upgraded.append)
    migrate.restore(url, tmp_path / "saved.db")
    assert upgraded == [url]
    assert migrate.current(url) == create.HEAD


def test_an_upgrade_that_writes_the_jobs_anew_gives_no_id_twice(
    url: str, records: SqlRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(records)
    identity = SqlIdentity(records.database)
    identity.take_on("a", last_job=500)
    with records.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")

    def written_anew(configuration: Any, target: str) -> None:
        connection = configuration.attributes["connection"]
        connection.exec_driver_sql("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'jobs'")
        connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = 'events'")

    monkeypatch.setattr("alembic.command.upgrade", written_anew)
    before = identity.standing()
    migrate.upgrade(url)
    assert identity.standing() == before
    assert add(records) == 501


def test_postgres_is_copied_with_its_own_tools(tmp_path: Path) -> None:
    for verb in (migrate.backup, migrate.restore):
        with pytest.raises(Refused) as refusal:
            verb("postgresql+psycopg://gpuq@/gpuq", tmp_path / "saved")
        assert "pg_dump" in (refusal.value.hint or "")

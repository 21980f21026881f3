"""Bringing a database up to date: fresh, current, older, newer, foreign, and two starts at once."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.errors import DatabaseUnavailable, SchemaMismatch
from gpuq.ports.records import JobFilter, NewJob
from gpuq.stores.sql import Database, migrate, open_records
from gpuq.stores.sql.core.engine import sqlite_path
from gpuq.stores.sql.schema import create

_NEXT = """
import sqlalchemy as sa
from alembic import op
revision = "0015"
down_revision = "0014"
def upgrade():
    op.add_column("installation", sa.Column("note", sa.Text()))
    with op.batch_alter_table("tokens") as table:
        table.alter_column("name", new_column_name="label")
{more}
"""


def execute(url: str, statement: str, **values: Any) -> None:
    database = Database(url)
    # Not as a writer of gpuq's: the database may be empty, or somebody else's.
    with database.engine.begin() as connection:
        connection.execute(text(statement), values)
    database.close()


def add_job(url: str) -> int:
    records = open_records(url)
    new = NewJob(JobSpec(command=["x"]), "alice", 1, 1, "x", "/", JobState.QUEUED, 1.0, 0, 1.0)
    with records.write() as tx:
        (job_id,) = tx.add_jobs([new], actor="alice")
    records.close()
    return job_id


def columns(url: str, table: str) -> set[str]:
    database = Database(url)
    with database.read() as connection:
        found = {column["name"] for column in inspect(connection).get_columns(table)}
    database.close()
    return found


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The code as if it were one migration further; gives that migration's file."""
    folder = tmp_path / "migrations-of-the-next-release"
    shutil.copytree(migrate.scripts(), folder)
    path = folder / "versions" / "9000_more.py"
    path.write_text(_NEXT.format(more=""))
    monkeypatch.setattr(migrate, "scripts", lambda: folder)
    monkeypatch.setattr(create, "HEAD", "0015")
    return path


def test_a_fresh_database_is_made_and_marked(empty_url: str) -> None:
    assert migrate.current(empty_url) is None
    migrate.ensure(empty_url)
    assert migrate.current(empty_url) == create.HEAD
    assert add_job(empty_url) == 1
    migrate.ensure(empty_url)
    assert migrate.upgrade(empty_url) == (create.HEAD, create.HEAD)
    assert add_job(empty_url) == 2


def test_a_sqlite_database_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "gpuq.db"
    before = os.umask(0)
    try:
        migrate.ensure(f"sqlite:///{path}")
        add_job(f"sqlite:///{path}")
    finally:
        os.umask(before)
    records = open_records(f"sqlite:///{path}")
    with records.read():
        for name in ("gpuq.db", "gpuq.db-wal", "gpuq.db-shm"):
            assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600, name
    records.close()


def test_starts_at_the_same_moment_do_not_collide(empty_url: str) -> None:
    script = "import sys; from gpuq.stores.sql import migrate; sys.stdin.readline(); migrate.ensure(sys.argv[1])"
    words = [sys.executable, "-c", script, empty_url]
    starts = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]  # fmt: skip
    for start in starts:
        assert start.stdin is not None
        start.stdin.write("go\n")
        start.stdin.flush()
    for start in starts:
        _, complaint = start.communicate(timeout=60)
        assert start.returncode == 0, complaint
    assert add_job(empty_url) == 1


def test_a_newer_database_is_refused_and_left_alone(empty_url: str) -> None:
    migrate.ensure(empty_url)
    execute(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    for verb in (migrate.ensure, migrate.upgrade):
        with pytest.raises(SchemaMismatch, match="9999") as refusal:
            verb(empty_url)
        assert "newer" in (refusal.value.hint or "")
    assert migrate.current(empty_url) == "9999"


def test_an_older_database_is_upgraded_with_its_jobs(empty_url: str, next_release: Path) -> None:
    with pytest.MonkeyPatch.context() as older:
        older.setattr(create, "HEAD", "0014")
        migrate.ensure(empty_url)
    job_id = add_job(empty_url)
    assert migrate.upgrade(empty_url) == ("0014", "0015")
    assert migrate.current(empty_url) == "0015"
    assert "note" in columns(empty_url, "installation")
    assert "label" in columns(empty_url, "tokens")
    records = open_records(empty_url)
    with records.read() as reader:
        assert [job.id for job in reader.jobs(JobFilter())] == [job_id]
    records.close()
    path = sqlite_path(empty_url)
    if path is not None:
        (saved,) = path.parent.glob("gpuq.db.before-upgrade-from-0014-*")
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600
        assert "note" not in columns(f"sqlite:///{saved}", "installation")


def test_a_migration_that_fails_changes_nothing(empty_url: str, next_release: Path) -> None:
    with pytest.MonkeyPatch.context() as older:
        older.setattr(create, "HEAD", "0014")
        migrate.ensure(empty_url)
    add_job(empty_url)
    next_release.write_text(_NEXT.format(more="    raise RuntimeError('half way')"))
    with pytest.raises(RuntimeError, match="half way"):
        migrate.ensure(empty_url)
    assert migrate.current(empty_url) == "0014"
    assert "note" not in columns(empty_url, "installation")
    assert "name" in columns(empty_url, "tokens")


def test_a_database_of_something_else_is_refused(empty_url: str) -> None:
    path = sqlite_path(empty_url)
    if path is not None:
        path.parent.mkdir()
        path.touch()
    execute(empty_url, "CREATE TABLE jobs (what text)")
    with pytest.raises(SchemaMismatch, match="jobs"):
        migrate.ensure(empty_url)
    assert columns(empty_url, "jobs") == {"what"}


def test_a_place_that_cannot_hold_a_database_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailable) as refusal:
        migrate.ensure(f"sqlite:///{tmp_path / 'file' / 'gpuq.db'}")
    assert refusal.value.hint
    with pytest.raises(DatabaseUnavailable):
        migrate.ensure(f"sqlite:///{tmp_path}")


_FIRST_JOB = """INSERT INTO jobs (id, name, "user", state, priority, score, command, cwd, gpus, max_retries,
 attempt, preemptible, submitted_at, finished_at, outcome)
 VALUES (7, 'x', 'alice', 'failed', 2, 1.0, '[]', '/', 1, 0, 1, {no},
 1.0, 2.0, 'lost')"""
_FIRST_ATTEMPT = """INSERT INTO attempts (job_id, number, token, node, boot_id, gpu_indices, gpu_uuids, run_dir,
 log_path, claimed_at, finished_at, outcome) VALUES (7, 1, 't', 'n', 'b', '[]', '[]', '/r', '/r/l', 1.0, 2.0, 'lost')"""
_FIRST_LETTER = "INSERT INTO dead_letter_queue (job_id, failed_at, outcome, attempts) VALUES (7, 2.0, 'lost', 1)"


def test_a_database_of_the_first_release_takes_the_outcomes_that_came_later(empty_url: str) -> None:
    path = sqlite_path(empty_url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    first = Database(empty_url)
    with first.engine.begin() as connection:
        made = Config()
        made.set_main_option("script_location", str(migrate.scripts()))
        made.attributes["connection"] = connection
        command.upgrade(made, "0001")
        connection.execute(text(_FIRST_JOB.format(no="false")))
        connection.execute(text(_FIRST_ATTEMPT))
        connection.execute(text(_FIRST_LETTER))
    # Still open, as a connection of whoever looks on is; it has to notice that its picture of the tables is old.
    assert migrate.upgrade(empty_url) == ("0001", create.HEAD)
    with first.engine.begin() as connection:
        for table in ("jobs", "attempts", "dead_letter_queue"):
            connection.execute(text(f"UPDATE {table} SET outcome = 'output_limit'"))
        assert connection.execute(text("SELECT outcome FROM job_history")).scalars().all() == ["output_limit"]
        if path is not None:
            assert connection.execute(text("PRAGMA integrity_check")).scalars().all() == ["ok"]
    for table in ("jobs", "attempts", "dead_letter_queue"):
        with pytest.raises(IntegrityError), first.engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET outcome = 'of nobody'"))
    first.close()

"""A large database of an older release: what becomes of its rows, and of an upgrade that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from counting import counted, kept
from sqlalchemy import text

from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.ports.records import JobFilter, NewJob
from gpuq.stores.sql import Database, migrate, open_records
from gpuq.stores.sql.core.engine import sqlite_path
from gpuq.stores.sql.schema import create, totals

BEFORE = "0005"
_JOB = """INSERT INTO jobs (id, name, "user", state, priority, score, command, cwd, gpus, max_retries, attempt,
 preemptible, submitted_at, {more}) VALUES ({id}, 'x', 'alice', '{state}', 2, 1.0, '["x"]', '/', 1, 0, {attempt}, {no},
 1.0, {values})"""
_ATTEMPT = """INSERT INTO attempts (job_id, number, token, node, boot_id, gpu_indices, gpu_uuids, run_dir, log_path,
 claimed_at, started_at, finished_at, outcome)
 VALUES ({id}, 1, '{token}', 'box', 'boot', '[0]', '["GPU-0"]', '/r/{id}', '/r/{id}/l', 1.5, 2.0, {end})"""
_SPEC = """INSERT INTO specs (job_id, gid, spec)
 VALUES ({id}, 100, '{{"schema":1,"command":["x"],"env":{{"A":"old"}},"begin":null,"new_field":1}}')"""


def older(url: str) -> None:
    """The schema of the release before."""
    path = sqlite_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    database = Database(url)
    with database.engine.begin() as connection:
        made = Config()
        made.set_main_option("script_location", str(migrate.scripts()))
        made.attributes["connection"] = connection
        command.upgrade(made, BEFORE)
    database.close()


def rows_of_the_release_before(database: Database, *, first: int) -> None:
    """As its code writes them: one job that ended and one that runs."""
    no = "0" if database.dialect == "sqlite" else "false"
    token = "t" * 32
    runs = f"'{token}', 2.0"
    with database.engine.begin() as connection:
        for statement in (
            _JOB.format(id=first, state="failed", attempt=1, no=no, more="started_at, finished_at, outcome",
                        values="2.0, 9.0, 'signal'"),
            _JOB.format(id=first + 1, state="running", attempt=1, no=no, more="token, started_at", values=runs),
            _ATTEMPT.format(id=first, token=token, end="9.0, 'signal'"),
            _ATTEMPT.format(id=first + 1, token=token, end="NULL, NULL"),
            *(_SPEC.format(id=job_id) for job_id in (first, first + 1)),
        ):  # fmt: skip
            connection.exec_driver_sql(statement)


def test_rows_of_the_release_before_are_read_and_ended_by_this_one(empty_url: str) -> None:
    older(empty_url)
    database = Database(empty_url)
    rows_of_the_release_before(database, first=1)
    migrate.ensure(empty_url)
    records = open_records(database)
    with records.read() as tx:
        assert kept(tx.totals()) == counted(database)
        assert [(a.run_dir, a.log_path, a.boot_id) for a in tx.attempts(1)] == [("/r/1", "/r/1/l", "boot")]
        assert tx.spec(1)[0] == JobSpec(command=["x"], env={"A": "old"})
        assert [job.id for job in tx.jobs(JobFilter(states=frozenset({JobState.FAILED})))] == [1]
    with records.write() as tx:
        tx.end_attempt(2, 1, "t" * 32, Result(Outcome.LOST, finished_at=12.0))
    with records.read() as tx:
        assert [(a.run_dir, a.log_path, a.boot_id) for a in tx.attempts(2)] == [("/r/2", "/r/2/l", "")]
        assert kept(tx.totals()) == counted(database)
    with database.read() as connection:
        paths = connection.execute(text("SELECT log_path FROM attempt_history ORDER BY job_id")).scalars().all()
    assert paths == ["/r/1/l", "/r/2/l"]
    records.close()


def test_the_release_before_goes_on_with_this_schema(empty_url: str) -> None:
    migrate.ensure(empty_url)
    database = Database(empty_url)
    no = "0" if database.dialect == "sqlite" else "false"
    # It stores a waiting job first, and changes its state then.
    queued = _JOB.format(id=7, state="queued", attempt=0, no=no, more="name_", values="").replace(", name_", "")
    with database.engine.begin() as connection:
        connection.exec_driver_sql(queued.replace("1.0, )", "1.0)"))
        connection.exec_driver_sql(_SPEC.format(id=7))
        connection.exec_driver_sql("UPDATE jobs SET state = 'starting', token = 'x', attempt = 1 WHERE id = 7")
        connection.exec_driver_sql(_ATTEMPT.format(id=7, token="x", end="NULL, NULL").replace(" 2.0,", " NULL,"))
        connection.exec_driver_sql("UPDATE attempts SET started_at = 3.0 WHERE job_id = 7")
        connection.exec_driver_sql("UPDATE jobs SET state = 'running', started_at = 3.0 WHERE id = 7")
        connection.exec_driver_sql("UPDATE attempts SET outcome = 'succeeded', finished_at = 4.0 WHERE job_id = 7")
    records = open_records(database)
    with records.read() as tx:
        assert kept(tx.totals()) == counted(database)
        assert tx.spec(7)[0].env == {"A": "old"}
        assert tx.totals().waits == 1
    records.close()


_KILLED = """
import os, signal, sys
from gpuq.stores.sql import migrate, steps
steps.WORTH_TELLING = 0
def tell(text):
    print(text, flush=True)
    if sys.argv[2] in text:
        os.kill(os.getpid(), signal.SIGKILL)
migrate.ensure(sys.argv[1], tell)
"""


def upgraded(url: str, until: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _KILLED, url, until], capture_output=True, text=True, check=False)


@pytest.fixture
def first_release(growth_database: ModuleType, tmp_path: Path) -> Path:
    size = growth_database.Size(finished=300, waiting=30)
    made: Path = growth_database.make(tmp_path, size, revision="0001")
    return made


@pytest.mark.parametrize("at", ["schema 0003", "index ix_jobs_name", "index ix_jobs_line", "totals"])
def test_an_upgrade_that_was_killed_goes_on_where_it_was(first_release: Path, tmp_path: Path, at: str) -> None:
    url = f"sqlite:///{first_release}"
    killed = upgraded(url, at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert migrate.current(url) not in {None, create.HEAD}
    # What ends the day of somebody who waits must not end the day of those who submit.
    with closing(Database(url)) as database, database.write() as connection:
        connection.exec_driver_sql("UPDATE installation SET at = at")
    done = upgraded(url, "never")
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stdout
    assert "schema 0002" not in done.stdout
    assert len(list(tmp_path.glob("gpuq.db.before-upgrade-from-*"))) == 1
    assert not (tmp_path / "gpuq.db.upgrading").exists()
    assert migrate.current(url) == create.HEAD
    database = Database(url)
    records = open_records(database)
    with records.read() as tx:
        assert kept(tx.totals()) == counted(database)
        assert tx.count(JobFilter()) == 330
    with database.read() as connection:
        indexes = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type IN ('index', 'trigger')")
        found = {str(row[0]) for row in indexes}
    records.close()
    fresh = tmp_path / "fresh" / "gpuq.db"
    migrate.ensure(f"sqlite:///{fresh}")
    with closing(Database(f"sqlite:///{fresh}")) as database, database.read() as connection:
        indexes = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type IN ('index', 'trigger')")
        assert {str(row[0]) for row in indexes} == found


def test_every_total_has_its_row_in_a_migrated_database(empty_url: str) -> None:
    older(empty_url)
    migrate.ensure(empty_url)
    with closing(Database(empty_url)) as database, database.read() as connection:
        assert set(connection.execute(text("SELECT name FROM totals")).scalars()) == set(totals.names())


def test_a_small_database_is_upgraded_without_a_word(first_release: Path, capsys: Any) -> None:
    migrate.ensure(f"sqlite:///{first_release}")
    assert capsys.readouterr() == ("", "")


def test_the_release_of_today_shares_what_submissions_have_alike(empty_url: str) -> None:
    migrate.ensure(empty_url)
    database = Database(empty_url)
    records = open_records(database)
    env = {f"NAME_{number}": "value" for number in range(50)}
    specs = [JobSpec(command=["x"], env=env), JobSpec(command=["y"], env=dict(env)), JobSpec(command=["z"])]
    for spec in (*specs, JobSpec(command=["w"], env={**env, "ONE": "more"}, begin=5.0)):
        new = NewJob(spec, "alice", 1, 1, "x", "/", JobState.QUEUED, 1.0, 0, 1.0)
        with records.write() as tx:
            tx.add_jobs([new], actor="alice")
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM environments")).scalar_one() == 2
        texts = connection.execute(text("SELECT spec FROM specs ORDER BY job_id")).scalars().all()
    assert texts[0] == '{"schema":1,"command":["x"]}'
    with records.read() as tx:
        assert [tx.spec(job_id)[0] for job_id in (1, 2, 3)] == specs
        assert tx.specs([4])[4].env["ONE"] == "more"
    with records.write() as tx:
        tx.update_job(1, {"env": {"B": "own"}}, expect=frozenset({JobState.QUEUED}))
    with records.read() as tx:
        assert tx.spec(1)[0].env == {"B": "own"}
        assert tx.spec(2)[0].env == env
    records.close()


def test_an_environment_of_a_submission_that_failed_is_nobodys(empty_url: str) -> None:
    migrate.ensure(empty_url)
    records = open_records(empty_url)

    def submit(env: dict[str, str], *, fail: bool = False) -> None:
        spec = JobSpec(command=["x"], env=env)
        with records.write() as tx:
            tx.add_jobs([NewJob(spec, "alice", 1, 1, "x", "/", JobState.QUEUED, 1.0, 0, 1.0)], actor="alice")
            if fail:
                raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        submit({"A": "1"}, fail=True)
    submit({"B": "2"})
    submit({"A": "1"})
    with records.read() as tx:
        assert [spec.env for spec in (tx.spec(job.id)[0] for job in tx.jobs(JobFilter()))] == [{"B": "2"}, {"A": "1"}]
    records.close()

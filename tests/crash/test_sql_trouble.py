"""The database is busy, full, read-only or gone: clear answers, true ends kept in the attempt folder, nothing half
written, and all goes on by itself afterwards."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.client.calls import Calls
from gpuq.errors import DatabaseUnavailable, GpuqError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture
def small_disk() -> Iterator[Callable[..., None]]:
    """Mounts a tmpfs of so many KiB at a folder."""
    mounted: list[Path] = []

    def mount(folder: Path, kib: int) -> None:
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=755", "tmpfs", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            pytest.skip(f"this machine does not let root mount: {done.stderr.strip()}")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        # Lazily: the daemon that still has it open is ended later.
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def up(make_site: Callable[..., Any]) -> Callable[..., Any]:
    """A site of its own whose daemon runs, with these settings."""

    def start(**settings: str) -> Any:
        site = make_site(**settings)
        site.box.up()
        return site

    return start


def client(site: Any) -> Calls:
    return Calls(server=f"unix://{site.box.home}/gpuq.sock")


def refused(site: Any, words: str, **fields: Any) -> GpuqError:
    """A submission is answered with the database's trouble, in words that say what to do."""
    with client(site) as there, pytest.raises(DatabaseUnavailable, match=words) as answer:
        there.submit(["true"], env={}, **fields)
    assert (answer.value.http_status, answer.value.code) == (503, "database_unavailable")
    assert answer.value.hint
    return answer.value


def exit_record(site: Any, job_id: int, number: int = 1) -> Path:
    return Path(site.box.home) / "jobs" / str(job_id) / f"{number}.records" / "exit.json"


def fill(folder: Path) -> Path:
    """Takes all the room that is left there."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (65536, 4096, 512):
            try:
                while stream.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return filler


def test_an_end_is_kept_while_another_writer_holds_the_database(make_site: Callable[..., Any]) -> None:
    site = make_site()
    site.box.env["GPUQ_DATABASE_URL"] = f"sqlite:///{site.box.home}/gpuq.db?timeout=0.3"
    site.box.up()
    job_id = site.submit(site.diary.gated(5), "--retries", "0")
    site.until_started(job_id)
    site.until_state(job_id, "running")
    with closing(sqlite3.connect(site.box.home / "gpuq.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        site.diary.open_gate()
        site.box.until(exit_record(site, job_id).exists, "the supervisor has written the end")
        refused(site, "locked")
        assert site.job(job_id)["state"] == "running"
        other.execute("ROLLBACK")
    assert site.until_state(job_id, "failed")["exit_code"] == 5
    site.submit(site.diary.script())
    site.settle()


@pytest.mark.parametrize("given", ["soon", "-1", "nan"])
def test_a_waiting_time_that_is_none_is_refused(make_site: Callable[..., Any], given: str) -> None:
    site = make_site()
    site.box.env["GPUQ_DATABASE_URL"] = f"sqlite:///{site.box.home}/gpuq.db?timeout={given}"
    told = site.box.gpuq("submit", "--", "true", code=2).stderr
    assert f"timeout={given} is not a number of seconds" in told


@as_root
def test_a_full_disk_refuses_submissions_and_loses_no_end(make_site: Callable[..., Any], small_disk: Any) -> None:
    site = make_site()
    disk = site.box.home / "disk"
    small_disk(disk, 6144)
    site.box.env["GPUQ_DATABASE_URL"] = f"sqlite:///{disk}/gpuq.db"
    site.database = disk / "gpuq.db"
    site.box.up()
    job_id = site.submit(site.diary.gated(5), "--retries", "0")
    site.until_started(job_id)
    site.until_state(job_id, "running")
    filler = fill(disk)
    before = len(site.rows("select id from jobs"))
    # The database may have some room of its own left: ends fit in there, hundreds of kilobytes do not.
    refused(site, "full|disk", array="0-199", name="n" * 200)
    assert len(site.rows("select id from jobs")) == before
    site.diary.open_gate()
    site.box.until(exit_record(site, job_id).exists, "the supervisor has written the end")
    filler.unlink()
    assert site.until_state(job_id, "failed")["exit_code"] == 5
    site.submit(site.diary.script())
    site.settle()


@as_root
def test_a_full_disk_under_the_logs_takes_neither_daemon_nor_other_jobs_down(
    make_site: Callable[..., Any], small_disk: Any
) -> None:
    site = make_site()
    small_disk(site.box.home / "jobs", 1024)
    site.box.up()
    daemon = site.daemon_pid()
    other = site.submit(site.diary.gated(5), "--retries", "0")
    site.until_started(other)
    flood = site.submit(site.diary.script("head -c 20000000 /dev/zero | tr '\\0' x"), "--retries", "0")
    site.until_started(flood)
    log = site.box.home / "jobs" / str(flood) / "1" / "output.log"
    site.box.until(lambda: os.statvfs(log.parent).f_bavail == 0, "the disk is full")
    site.diary.open_gate()
    site.box.until(lambda: site.diary.lines("end", other), "the other job goes on")
    # The disk takes no record of its end: its supervisor tells the daemon, and the daemon the database.
    assert site.until_state(other, "failed")["exit_code"] == 5
    os.truncate(log, 0)
    site.until_all_final()
    assert site.daemon_pid() == daemon
    site.submit(site.diary.script())
    site.settle()


def test_a_read_only_database_is_told_at_the_start(make_site: Callable[..., Any]) -> None:
    site = make_site()
    folder = site.box.home / "base"
    folder.mkdir()
    site.box.env["GPUQ_DATABASE_URL"] = f"sqlite:///{folder}/gpuq.db"
    site.database = folder / "gpuq.db"
    site.box.up()
    done = site.submit(site.diary.script())
    site.until_state(done, "completed")
    site.box.down()
    with ReadOnly(folder):
        told = site.box.gpuq("up", "-d", code=5).stderr
        assert "cannot be" in told
        assert "hint:" in told
        assert "Traceback" not in told
        told = site.box.gpuq("submit", "--", "true", code=5).stderr
        assert "Traceback" not in told
    site.settle()


class ReadOnly:
    """Nobody, root included, writes in this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        if os.geteuid() != 0:
            self.folder.chmod(0o500)
            (self.folder / "gpuq.db").chmod(0o400)
            return
        for words in (["--bind", str(self.folder), str(self.folder)], ["-o", "remount,ro,bind", str(self.folder)]):
            if subprocess.run(["mount", *words], capture_output=True).returncode != 0:
                pytest.skip("this machine does not let root mount")

    def __exit__(self, *_: object) -> None:
        if os.geteuid() != 0:
            self.folder.chmod(0o700)
            (self.folder / "gpuq.db").chmod(0o600)
        else:
            subprocess.run(["umount", str(self.folder)], check=True)


@as_root
def test_a_full_disk_under_the_attempts_costs_no_retries_and_keeps_no_job_from_being_cancelled(
    make_site: Callable[..., Any], small_disk: Any
) -> None:
    site = make_site()
    jobs = site.box.home / "jobs"
    small_disk(jobs, 1024)
    site.box.up()
    running = site.submit(site.diary.script("trap '' TERM; sleep 600 & wait; sleep 600"), "--kill-grace", "0.5s")
    site.until_started(running)
    site.until_state(running, "running")
    filler = fill(jobs)
    waiting = [site.submit(site.diary.script(), "--retries", "0") for _ in range(2)]

    def told() -> bool:
        return "No space left" in site.box.json("why", str(waiting[0]))["reason"]["text"]

    site.box.until(told, "the reason is told")
    assert "No space left" in site.box.gpuq("doctor", code=1).stdout
    assert site.cancel(running)
    asked = time.monotonic()
    site.box.until(lambda: not site.leftovers(), "the job and all its processes are gone")
    assert time.monotonic() - asked < 0.5 + 5
    filler.unlink()
    site.until_state(running, "cancelled")
    site.settle()
    for job_id in waiting:
        assert (site.job(job_id)["state"], site.job(job_id)["retries_used"]) == ("completed", 0)


@pytest.fixture
def on_postgres(postgres_url: str, postgres_server: Any, make_site: Callable[..., Any]) -> Any:
    site = make_site(GPUQ_DATABASE_URL=postgres_url)
    site.postgres = postgres_server
    site.database = postgres_url
    site.box.up()
    return site


@pytest.mark.postgres
def test_an_end_is_kept_while_postgres_is_down(on_postgres: Any) -> None:
    site = on_postgres
    job_id = site.submit(site.diary.gated(5), "--retries", "0")
    site.until_started(job_id)
    site.until_state(job_id, "running")
    site.postgres.stop()
    try:
        site.diary.open_gate()
        site.box.until(exit_record(site, job_id).exists, "the supervisor has written the end")
        refused(site, "PostgreSQL")
    finally:
        site.postgres.start()
    assert site.until_state(job_id, "failed")["exit_code"] == 5
    site.submit(site.diary.script())
    site.settle()


@pytest.mark.postgres
def test_cut_connections_lose_nothing(on_postgres: Any) -> None:
    site = on_postgres
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gpuq'"
    jobs: dict[int, int] = {}
    for number in range(6):
        for job_id in site.try_submit(site.diary.script("sleep 0.1", number % 2), "-g", "2", "--retries", "0"):
            jobs[job_id] = number % 2
        site.postgres.execute(cut)
    assert jobs
    site.settle()
    assert {job_id: site.job(job_id)["exit_code"] for job_id in jobs} == jobs

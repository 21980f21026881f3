"""One installation whose daemon is killed at named points, and a checker that asks the jobs' own diary."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from diary import FINAL, Diary, read_sqlite, violations


class Site:
    """`box` with a diary for its jobs and a folder of faults (see gpuq.domain.failpoints)."""

    def __init__(self, box: Any) -> None:
        self.box = box
        self.faults = box.home / "faults"
        self.faults.mkdir()
        box.env["GPUQ_FAULTS"] = str(self.faults)
        self.diary = self._new_diary()
        self.database: Path | str = box.home / "gpuq.db"
        self.unknown: set[int] = set()

    def _new_diary(self) -> Diary:
        folder = self.box.home / "diary"
        folder.mkdir(exist_ok=True)
        return Diary(folder)

    # -- faults ------------------------------------------------------------------------------------------------

    def arm(self, point: str, action: str = "kill") -> None:
        draft = self.faults / f"{point}.draft"
        draft.write_text(action)
        draft.rename(self.faults / point)

    def reached(self, point: str) -> bool:
        return (self.faults / f"{point}.reached").exists()

    def until_reached(self, point: str) -> None:
        self.box.until(lambda: self.reached(point), f"{point} is reached")

    def daemon_pid(self) -> int | None:
        """None while no daemon runs."""
        try:
            pid = int((self.box.home / "daemon.lock").read_text())
            process = psutil.Process(pid)
            running = process.status() != psutil.STATUS_ZOMBIE and "gpuq.server" in " ".join(process.cmdline())
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None
        return pid if running else None

    def until_dead_at(self, point: str) -> None:
        self.until_reached(point)
        self.box.until(lambda: self.daemon_pid() is None, f"the daemon is dead at {point}")

    def revive(self) -> None:
        if self.daemon_pid() is None:
            self.box.up()

    # -- jobs --------------------------------------------------------------------------------------------------

    def try_submit(self, command: list[str], *options: str) -> list[int]:
        """Ids; empty when nobody answered."""
        # An array's one id does not tell of its elements.
        how = "--json" if "--array" in options else "--parsable"
        done = self.box.gpuq("submit", how, *options, "--", *command, code=None)
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode != 0:
            return []
        answer = json.loads(done.stdout)
        ids = [job["id"] for job in answer] if isinstance(answer, list) else [answer]
        self.diary.answered += ids
        return ids

    def submit(self, command: list[str], *options: str) -> int:
        [job_id] = self.try_submit(command, *options)
        return job_id

    def cancel(self, job_id: int, *options: str) -> bool:
        """Whether it was answered."""
        done = self.box.gpuq("cancel", str(job_id), *options, code=None)
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode == 0:
            self.diary.cancelled[job_id] = time.time_ns()
        return bool(done.returncode == 0)

    def rows(self, query: str) -> list[dict[str, Any]]:
        return (
            read_sqlite(self.database, query)
            if isinstance(self.database, Path)
            else _read_postgres(self.database, query)
        )

    def job(self, job_id: int) -> dict[str, Any]:
        [row] = self.rows(f"select * from jobs where id = {job_id}")
        return row

    def until_state(self, job_id: int, *states: str) -> dict[str, Any]:
        self.box.until(lambda: self.job(job_id)["state"] in states, f"job {job_id} is {' or '.join(states)}")
        return self.job(job_id)

    def until_started(self, job_id: int, number: int = 1) -> None:
        def started() -> bool:
            return any(line[2] == number for line in self.diary.lines("start", job_id))

        self.box.until(started, f"attempt {number} of job {job_id} has begun")

    def until_all_final(self) -> None:
        def busy() -> list[dict[str, Any]]:
            return [row for row in self.rows("select id, state from jobs") if row["state"] not in FINAL]

        self.box.until(lambda: not busy(), "every job is final")

    def outcomes(self, job_id: int) -> list[str]:
        return [
            row["outcome"] for row in self.rows(f"select outcome from attempts where job_id = {job_id} order by number")
        ]

    # -- promises ----------------------------------------------------------------------------------------------

    def violations(self, *, unknown: Collection[int] = ()) -> list[str]:
        tables = [self.rows(f"select * from {name}") for name in ("jobs", "attempts", "events")]
        found = violations(self.diary, *tables, unknown={*self.unknown, *unknown})
        return found + [f"process {pid} outlived its job" for pid in self.leftovers()]

    def leftovers(self) -> list[int]:
        """Processes that carry the mark of an attempt of this home."""
        mark = f"GPUQ_RUN_DIR={self.box.home}/".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    environment = (folder / "environ").read_bytes()
                except OSError:
                    continue
                if any(entry.startswith(mark) for entry in environment.split(b"\0")):
                    found.append(int(folder.name))
        return found

    def settle(self, *, unknown: Collection[int] = ()) -> None:
        """The daemon is (again) up, everything ends, and the promises were kept."""
        self.unknown |= set(unknown)
        self.revive()
        self.until_all_final()
        assert self.violations() == []
        assert not [name for name in os.listdir(self.faults) if not name.endswith((".reached", "boot_id"))]
        for name in os.listdir(self.diary.folder):
            if name.startswith("gate"):
                (self.diary.folder / name).unlink()
        for name in os.listdir(self.faults):
            (self.faults / name).unlink()


def _read_postgres(url: str, query: str) -> list[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(url.replace("+psycopg", ""), row_factory=dict_row) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    """At most one, which the tests of a module hand on to each other while all is well."""
    return []


@pytest.fixture
def site(sites: list[Site], make_boxes: Callable[..., Any], request: pytest.FixtureRequest) -> Iterator[Site]:
    """A daemon with four simulated GPUs, up. After the test everything must be final."""
    if not sites:
        sites.append(Site(make_boxes()))
    used = sites.pop()
    used.revive()
    yield used
    if not any(row["state"] not in FINAL for row in used.rows("select state from jobs")) and not os.listdir(
        used.faults
    ):
        sites.append(used)


@pytest.fixture
def make_site(make_box: Callable[..., Any]) -> Callable[..., Site]:
    """A site of the test's own, not started."""

    def make(**settings: str) -> Site:
        return Site(make_box(**settings))

    return make

"""The disk of the home, or the installed package, is away for a while: what waits, waits, and is not charged."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from box import Box
from diary import read_sqlite

import gpuq

PACKAGE = Path(gpuq.__file__).parent
WAITING = 20


class Place:
    """A daemon, and what it works with, which the test may take away."""

    def __init__(self) -> None:
        # Short, because a Unix socket's path is.
        self.root = Path(tempfile.mkdtemp(prefix="gpuq-"))
        self.disk = self.root / "disk"
        self.away = self.root / "away"
        self.diary = self.root / "diary"
        self.diary.touch()

    def start(self, box: Box) -> None:
        self.box = box
        box.up()

    def take(self) -> None:
        self.disk.rename(self.away)

    def bring_back(self) -> None:
        self.away.rename(self.disk)

    def script(self, before: str = ":") -> tuple[str, ...]:
        return "bash", "-c", f"{before}; echo $GPUQ_JOB_ID >> {self.diary}"

    def fill(self) -> tuple[int, list[int]]:
        """A job on all GPUs until `open_gate`, and many that wait behind it, none with a retry."""
        gate = f"while [ ! -e {self.root}/gate ]; do sleep 0.02; done"
        first = self.box.submit("-g", "4", "--retries", "0", "--", *self.script(gate))
        waiting = self.box.gpuq("submit", "--json", "--array", f"1-{WAITING}", "--retries", "0", "--", *self.script())
        self.box.until_state(first, "running")
        return first, [job["id"] for job in json.loads(waiting.stdout)]

    def open_gate(self) -> None:
        (self.root / "gate").touch()

    def until_all_ran_once(self, jobs: list[int]) -> list[dict[str, Any]]:
        """Rows of their attempts."""
        database = self.box.home / "gpuq.db"

        def left() -> list[Any]:
            return read_sqlite(database, "select id from jobs where state not in ('completed', 'failed')")

        self.box.until(lambda: not left(), "all are over")
        rows = read_sqlite(database, "select id, state, retries_used, lost_count from jobs")
        assert {(row["state"], row["retries_used"], row["lost_count"]) for row in rows} == {("completed", 0, 0)}
        assert sorted(map(int, self.diary.read_text().split())) == sorted(jobs) == sorted(row["id"] for row in rows)
        return read_sqlite(database, "select job_id, number, outcome from attempts")

    def close(self) -> None:
        if self.away.exists():
            self.bring_back()
        self.open_gate()
        self.box.close()
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


def test_jobs_wait_for_a_home_that_is_away_with_its_disk_and_then_run(place: Place) -> None:
    (place.disk / "home").mkdir(parents=True, mode=0o700)
    home = place.root / "home"
    home.symlink_to(place.disk / "home")
    place.start(Box(home))
    first, waiting = place.fill()
    place.take()
    log = place.away / "home" / "daemon.log"
    place.box.until(lambda: f"{home} is away" in log.read_text(), "the daemon has noticed")
    place.bring_back()
    place.open_gate()
    attempts = place.until_all_ran_once([first, *waiting])
    assert {(row["number"], row["outcome"]) for row in attempts} == {(1, "succeeded")}


def test_jobs_wait_for_a_package_that_is_being_replaced_and_then_run(place: Place) -> None:
    place.disk.mkdir()
    for folder in (PACKAGE, PACKAGE.parent / "migrations"):
        if folder.is_dir():
            shutil.copytree(folder, place.disk / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    (place.root / "home").mkdir(mode=0o700)
    box = Box(place.root / "home", PYTHONPATH=str(place.disk))
    place.start(box)
    # The command line is to go on.
    del box.env["PYTHONPATH"]
    first, waiting = place.fill()
    place.take()
    for child in psutil.Process(box.daemon().pid).children():
        if str(place.disk) in " ".join(child.cmdline()):
            child.kill()
    place.open_gate()

    def noticed() -> bool:
        why = box.json("why", str(waiting[-1]))
        codes = [reason["code"] for reason in why["reasons"]]
        return codes[:1] == ["LaunchTrouble"] and "Starting" not in codes

    box.until(noticed, "the reason is told")
    assert "no supervisor" in box.json("why", str(waiting[-1]))["reason"]["text"]
    place.bring_back()
    attempts = place.until_all_ran_once([first, *waiting])
    # Those that met the trouble were given back, and none met it twice.
    assert {row["outcome"] for row in attempts if row["number"] == 1} <= {"succeeded", "lost", "launch_error"}
    assert {row["outcome"] for row in attempts if row["number"] > 1} == {"succeeded"}

"""What takes the disk, whose it is, and how long it lasts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.engine.maintenance.clean import Cleaner
from gpuq.engine.queries import disk_report
from gpuq.engine.queries.disk_report import full_in, outlook
from gpuq.errors import UsageError

DAY = 86400.0
BOB = Caller("bob", uid=1001, gid=1001)
MIB = 2**20


@pytest.fixture
def past(make_world: Callable[..., Any]) -> Any:
    """bob's finished job has 3 MiB of output and 2 of checkpoints; alice's one, of 1 MiB, runs."""
    world = make_world()
    agent = world.agent()

    def start(by: Caller, output: int, checkpoint: int, **fields: Any) -> int:
        job_id: int = world.submit("x", by=by, **fields)
        agent.wake()
        agent.run_once()
        world.launcher.run(job_id)
        agent.run_once()
        for name, size in (("1/output.log", output), ("checkpoint/state", checkpoint)):
            path = world.settings.home / "jobs" / str(job_id) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
        return job_id

    done = start(BOB, 3 * MIB, 2 * MIB, group="nightly")
    world.launcher.end(done, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    start(world.user, MIB, 0)
    world.cleaner = Cleaner(world.ctx, threading.Event())
    world.cleaner.run()
    return world


def rows(world: Any, by: str) -> dict[str, dict[str, Any]]:
    columns, found = disk_report.disk_report(world.ctx, by)
    return {row[0]: dict(zip(columns, row, strict=True)) for row in found}


def test_output_and_checkpoints_are_added_up_by_owner_with_those_that_run(past: Any) -> None:
    found = rows(past, "user")
    assert list(found) == ["bob", "alice", "(database)", "(logs)", "(free)"]
    assert (found["bob"]["jobs"], found["bob"]["output_mb"], found["bob"]["checkpoints_mb"]) == (1, 3.0, 2.0)
    assert found["bob"]["total_mb"] == 5.0
    assert (found["alice"]["jobs"], found["alice"]["output_mb"]) == (1, 1.0)
    assert found["(database)"]["total_mb"] >= 0.1
    assert found["(free)"]["total_mb"] > 0
    assert list(rows(past, "group"))[:2] == ["nightly", "-"]
    assert list(rows(past, "job"))[:2] == ["1", "2"]
    with pytest.raises(UsageError, match="by 'gpu'"):
        disk_report.disk_report(past.ctx, "gpu")


def test_the_report_says_what_retention_will_free_within_a_week(past: Any) -> None:
    assert rows(past, "user")["bob"]["freed_in_7d_mb"] == 0.0
    past.clock.forward(84 * DAY)
    assert rows(past, "user")["bob"]["freed_in_7d_mb"] == 3.0
    assert rows(past, "user")["alice"]["freed_in_7d_mb"] == 0.0
    past.clock.forward(7 * DAY)
    past.cleaner.run()
    assert rows(past, "user")["bob"]["total_mb"] == 2.0


def test_the_report_of_many_finished_jobs_walks_no_folder_of_theirs(past: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = disk_report.sizes
    monkeypatch.setattr(
        disk_report, "sizes", lambda home, job, budget: (seen.append(job.id), real(home, job, budget))[1]
    )
    rows(past, "user")
    assert seen == [2], "only the one that runs"


def test_logs_count_with_those_that_were_rotated(past: Any) -> None:
    for name in ("daemon.log", "daemon.log.1", "supervisors.log"):
        (past.settings.home / name).write_bytes(b"x" * MIB)
    assert rows(past, "user")["(logs)"]["total_mb"] == 3.0


@pytest.mark.parametrize(
    ("samples", "seconds"),
    [
        ([], None),
        ([[1000.0, 500]], None),
        ([[0.0, 300], [5000.0, 900]], 2000.0),
        ([[0.0, 200], [5000.0, 900]], None),
        ([[0.0, 100]], None),
    ],
)
def test_a_disk_is_full_when_its_rate_since_the_oldest_sample_says_so(
    samples: list[list[float]], seconds: float | None
) -> None:
    # 200 are free, at 4000 s: of 300 a hundred were taken in that time, and a sample of some minutes ago says nothing.
    found = full_in(samples, 4000.0, 200)
    assert found == (None if seconds is None else 8000.0)


def test_free_space_is_noted_once_an_hour_for_a_day(past: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(past.settings.home)
    free = iter(range(100_000, 0, -1))
    made = {name: getattr(real, name) for name in dir(real) if name.startswith("f_")}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**{**made, "f_bavail": next(free), "f_frsize": 10}))
    for _ in range(60):
        past.clock.forward(1800)
        past.cleaner.run()
    with past.ctx.records.read() as tx:
        samples = tx.value("disk-free:box")
    assert [round(b[0] - a[0]) for a, b in pairwise(samples)] == [3600] * (len(samples) - 1)
    assert 24 <= len(samples) <= 26
    seen = outlook(past.ctx)
    assert seen.full_in_s is not None
    # Ten bytes an hour.
    assert seen.full_in_s == pytest.approx(seen.free * 360, rel=0.1)
    assert [user for user, _ in seen.largest] == ["bob", "alice"]


def test_a_home_that_is_new_has_an_outlook_too(world: Any) -> None:
    seen = outlook(world.ctx)
    assert (seen.full_in_s, seen.largest) == (None, [])
    assert 0 < seen.free < seen.total
    assert Path(world.settings.home).exists()

"""Room for a full disk is kept and given back; nothing starts meanwhile, and a stop needs no room at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine import disk_reserve
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.disk_reserve import DiskReserve
from gpuq.errors import DatabaseUnavailable, Forbidden

MIB = 2**20
BLOCK = 4096


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how much the disk says is free, in MiB, of a GiB."""
    says: list[float] = [500.0]

    def statvfs(path: str | Path) -> os.statvfs_result:
        blocks = int(says[0] * MIB) // BLOCK
        return os.statvfs_result((BLOCK, BLOCK, 1024 * MIB // BLOCK, blocks, blocks, 9, 9, 9, 0, 255))

    monkeypatch.setattr(disk_reserve.os, "statvfs", statvfs)
    return lambda mib: says.__setitem__(0, mib)


def test_the_reserve_goes_when_the_disk_is_full_and_comes_back_with_the_room(
    tmp_path: Path, free: Callable[[float], None]
) -> None:
    wal = tmp_path / "db-wal"
    wal.write_bytes(b"x")
    disk, file = DiskReserve(tmp_path, wal), tmp_path / "reserve"
    room = disk.keep()
    assert room is not None
    assert not room.low
    assert file.stat().st_blocks * 512 >= disk_reserve.MAX_BYTES
    assert wal.stat().st_blocks * 512 >= disk_reserve.MAX_BYTES // 2
    assert wal.stat().st_size == 1, "SQLite reads its log by its length"
    disk.make_room()
    assert file.exists(), "there was no need"
    free(3)
    disk.make_room()
    assert not file.exists()
    # What it gave back is no reason to take it again.
    free(3 + disk_reserve.MAX_BYTES / MIB)
    room = disk.keep()
    assert room is not None
    assert room.low
    assert not file.exists()
    free(200)
    room = disk.keep()
    assert room is not None
    assert not room.low
    assert file.exists()


def test_a_disk_with_ample_room_is_looked_at_once_a_second_and_any_other_every_time(
    tmp_path: Path, free: Callable[[float], None]
) -> None:
    now = [1000.0]
    disk, file = DiskReserve(tmp_path, None, lambda: now[0]), tmp_path / "reserve"
    free(disk_reserve.AMPLE_BYTES / MIB)
    disk.keep()
    kept = disk.keep()
    assert kept is not None
    assert kept.held
    disk.make_room()
    free(3)
    now[0] += disk_reserve.AMPLE_S - 0.01
    disk.make_room()
    assert disk.keep() is kept
    assert file.exists()
    now[0] += 0.01
    disk.make_room()
    assert not file.exists()
    room = disk.keep()
    assert room is not None
    assert room.low
    # A little less than ample.
    free(disk_reserve.AMPLE_BYTES / MIB - 1)
    disk.keep()
    disk.make_room()
    assert file.exists()
    free(3)
    room = disk.keep()
    assert room is not None
    assert room.low
    assert not file.exists()


def test_nothing_starts_on_a_full_disk_and_the_reason_names_the_job_that_fills_it(
    make_world: Callable[..., Any], free: Callable[[float], None]
) -> None:
    world = make_world("sim:2")
    world.ctx = replace(world.ctx, disk=DiskReserve(world.ctx.home, None))
    agent, filler = world.agent(), world.submit("yes")
    agent.run_once()
    world.launcher.run(filler)
    agent.run_once()
    log = Path(world.launcher.order_of(filler).log_path)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(bytes(3 * MIB))
    free(1)
    world.clock.forward(1)
    waiting = world.submit("true")
    agent.run_once()
    assert world.state(waiting) == "queued"
    reason = world.queries.why(waiting)["reason"]
    assert reason["code"] == "LaunchTrouble"
    assert f"1.0 MiB are free; the largest output is that of job {filler} (alice): 3 MiB" in reason["text"]
    # An end frees a GPU, and still nothing starts.
    world.launcher.end(filler, Outcome.EXIT_NONZERO, exit_code=1)
    world.clock.forward(1)
    agent.run_once()
    assert world.state(waiting) == "queued"
    free(500)
    world.clock.forward(1)
    agent.run_once()
    assert world.state(waiting) == "starting"


@pytest.fixture
def unwritable(make_world: Callable[..., Any]) -> Any:
    """Job 1 runs, job 2 waits; from now on the database takes no writes."""
    world = make_world("sim:1")
    agent = world.agent()
    world.submit("a", kill_grace_s=7)
    world.submit("b")
    agent.run_once()
    world.launcher.run(1)
    agent.run_once()

    world.writable = world.ctx
    world.ctx = replace(world.ctx, records=_ReadOnly(world.ctx.records))
    return world


class _ReadOnly:
    def __init__(self, records: Any) -> None:
        self.read, self.close = records.read, records.close

    def write(self) -> Any:
        raise DatabaseUnavailable("the database's disk is full")


@pytest.mark.parametrize(("force", "grace_s", "had"), [(True, None, 0.0), (False, None, 7.0), (False, 3.0, 3.0)])
def test_a_running_job_is_stopped_although_sql_takes_no_writes(
    unwritable: Any, force: bool, grace_s: float | None, had: float
) -> None:
    assert cancel(unwritable.ctx, 1, unwritable.user, force=force, grace_s=grace_s).state == "stopping"
    (stop,) = unwritable.launcher.stops
    assert (stop["reason"], stop["grace_s"]) == ("cancel", had)
    assert unwritable.state(1) == "running", "SQL hears of it later"
    unwritable.launcher.end(1, Outcome.CANCELLED)
    agent = unwritable.agents[0]
    agent.run_once()
    assert unwritable.state(1) == "cancelled"


def _dies(launcher: Any) -> None:
    launcher.die(1)


def _fails(launcher: Any) -> None:
    launcher.end(1, Outcome.EXIT_NONZERO, exit_code=3)


def _is_preempted(launcher: Any) -> None:
    launcher.end(1, Outcome.PREEMPTED)


@pytest.mark.parametrize("ends", [_dies, _fails, _is_preempted])
def test_a_job_whose_cancel_sql_has_not_heard_of_never_starts_again(unwritable: Any, ends: Any) -> None:
    cancel(unwritable.ctx, 1, unwritable.user)
    ends(unwritable.launcher)
    unwritable.agents[0].run_once()
    assert unwritable.state(1) == "cancelled"


def test_nor_does_one_that_never_began(make_world: Callable[..., Any]) -> None:
    world = make_world("sim:1")
    job_id, agent = world.submit("a"), world.agent()
    agent.run_once()
    records, world.ctx = world.ctx.records, replace(world.ctx, records=_ReadOnly(world.ctx.records))
    assert world.state(job_id) == "starting"
    assert cancel(world.ctx, job_id, world.user).state == "stopping"
    world.ctx = replace(world.ctx, records=records)
    world.launcher.die(job_id)
    agent.run_once()
    assert world.state(job_id) == "cancelled"


def test_nobody_elses_and_none_that_waits(unwritable: Any) -> None:
    stranger = replace(unwritable.user, user="mallory", uid=1001)
    with pytest.raises(Forbidden):
        cancel(unwritable.ctx, 1, stranger, force=True)
    with pytest.raises(DatabaseUnavailable):
        cancel(unwritable.ctx, 2, unwritable.user)
    assert unwritable.launcher.stops == []

"""Who is whom, who may do what, and how much room there is: each rule at its edge, on plain values."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.domain.caller import Caller, Scope
from gpuq.domain.eligibility import begin_time
from gpuq.domain.priority import Priority
from gpuq.engine import access, accounts, disk_reserve
from gpuq.engine.accounts import Accounts
from gpuq.engine.attempt.adopt import adopt
from gpuq.engine.disk_reserve import MAX_BYTES, DiskReserve, Room
from gpuq.errors import Forbidden, UsageError

MIB = 2**20
ALICE = Caller("alice", 1000, 1000)
ADMIN = Caller("carol", 1002, 1002, admin=True)
READER = Caller("alice", 1000, 1000, scope=Scope.READ)
JOB: Any = SimpleNamespace(id=7, user="alice", uid=1000)


@pytest.mark.parametrize(
    ("owner_uid", "caller", "owns"),
    [
        (1000, ALICE, True), (None, ALICE, True), (1000, Caller("alice"), True), (None, Caller("alice"), True),
        (1001, ALICE, False), (0, ALICE, False), (1000, Caller("bob", 1000), False), (None, Caller("bob"), False),
    ],
)  # fmt: skip
def test_an_owner_has_the_name_and_where_both_are_known_the_uid(
    owner_uid: int | None, caller: Caller, owns: bool
) -> None:
    assert access.owns("alice", owner_uid, caller) is owns
    assert access.may_act_on("alice", owner_uid, caller) is owns
    assert access.may_act_on("alice", owner_uid, ADMIN)


def test_who_may_not_is_told_by_what_right_another_may(monkeypatch: pytest.MonkeyPatch) -> None:
    access.require_owner(JOB, ALICE, "cancel")
    access.require_owner(JOB, ADMIN, "cancel")
    with pytest.raises(Forbidden, match=r"^job 7 belongs to alice; bob may not cancel it$") as told:
        access.require_owner(JOB, Caller("bob", 1001), "cancel")
    assert told.value.hint == "ask its owner, or an administrator of this queue"
    access.require_admin(ADMIN, "drain")
    for scope in (None, Scope.ADMIN):
        with pytest.raises(Forbidden, match=r"^alice may not drain$"):
            access.require_admin(Caller("alice", 1000, scope=scope), "drain")
    with pytest.raises(Forbidden, match=r"^alice may not drain .a token of the scope `read` has no rights"):
        access.require_admin(READER, "drain")


def test_a_priority_may_be_the_highest_and_for_administrators_any() -> None:
    lowest, highest = max(Priority), min(Priority)
    middle = sorted(Priority)[1]
    for wanted in (lowest, middle):
        access.require_priority(middle.label, ALICE, wanted)
    access.require_priority(middle.label, ADMIN, highest)
    with pytest.raises(Forbidden, match=f"^priority {highest.label} is for administrators; the highest for alice is"):
        access.require_priority(middle.label, ALICE, highest)
    with pytest.raises(Forbidden) as told:
        access.require_priority(middle.label, READER, highest)
    assert "that takes the scope `admin`" in str(told.value.hint)


def test_nobody_on_this_machine_does_anything_where_users_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Caller("no-such-user-here", 54321)
    access.require_account(Accounts(1000), nobody)
    with pytest.raises(Forbidden, match="has no account on this machine") as told:
        access.require_account(Accounts(0), nobody)
    assert "getent passwd" in str(told.value.hint)
    access.require_account(Accounts(0), Caller("root", 0))
    with pytest.raises(Forbidden, match=r"^the uid of root was not known$"):
        access.require_account(Accounts(0), Caller("root"))
    assert Accounts().daemon_uid == os.geteuid()
    assert [Accounts(uid).apart for uid in (0, 1, 1000)] == [True, False, False]


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.EIO, "-"), OverflowError("x"), ValueError("x")])
def test_an_account_that_cannot_be_looked_up_is_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: object) -> Any:
        raise error

    monkeypatch.setattr(accounts, "pwd", SimpleNamespace(getpwuid=fail, getpwnam=fail))
    known = Accounts(0)
    assert [known.of(key) for key in (1000, "alice")] == [None, None]
    # That is remembered too: a directory that is away is not asked for each job.
    assert [known.remembers(key) for key in (1000, "alice", 1001)] == [True, True, False]


def test_no_more_accounts_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_MOST", 2)
    monkeypatch.setattr(accounts, "_look_up", lambda key: None)
    now = [10.0]
    known = Accounts(0, lambda: now[0])
    for key in (1, 2):
        known.of(key)
    assert [known.remembers(key) for key in (1, 2)] == [True, True]
    known.of(3)
    assert [known.remembers(key) for key in (1, 2, 3)] == [False, False, True]
    now[0] += accounts.REMEMBERED_S
    assert not known.remembers(3)


# Room on the disk.


def test_a_disk_is_full_below_a_quarter_of_the_reserve_and_low_until_there_is_room_for_it_again() -> None:
    assert [Room(free, 100, held=True).full for free in (24, 25)] == [True, False]
    assert [Room(free, 100, held=True).low for free in (24, 25)] == [True, False]
    assert [Room(free, 100, held=False).low for free in (24, 25, 149, 150)] == [True, True, True, False]
    assert Room(3 * MIB // 2, 0, held=False).text == "1.5 MiB are free"


class Disk:
    """What statvfs says, in bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int = 1024 * MIB) -> None:
        self.size, self.free, self.says = size, size // 2, True
        self.asked = 0
        monkeypatch.setattr(disk_reserve.os, "statvfs", self._statvfs)

    def _statvfs(self, path: object) -> Any:
        self.asked += 1
        if not self.says:
            raise OSError(errno.EIO, "-")
        return SimpleNamespace(f_blocks=self.size // 4096, f_frsize=4096, f_bavail=self.free // 4096)


def test_of_a_small_disk_a_sixteenth_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk = Disk(monkeypatch, 16 * MIB)
    assert disk_reserve.look(tmp_path) == Room(8 * MIB, MIB, held=False)
    disk.size = 10_000 * MIB
    assert disk_reserve.look(tmp_path).reserve == MAX_BYTES == 32 * MIB


def test_the_reserve_is_ours_alone_and_is_asked_for_once_while_it_is_held(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk = Disk(monkeypatch, 16 * MIB)
    keeper = DiskReserve(tmp_path, None)
    before = len(os.listdir("/proc/self/fd"))
    assert keeper.keep() == Room(8 * MIB, MIB, held=True)
    file = tmp_path / disk_reserve.NAME
    assert (file.stat().st_mode & 0o777, file.stat().st_size) == (0o600, 0)
    assert len(os.listdir("/proc/self/fd")) == before
    disk.asked = 0
    assert keeper.keep() == Room(8 * MIB, MIB, held=True)
    assert disk.asked == 1
    disk.free = MIB // 4
    keeper.make_room()
    assert file.exists()
    disk.free = MIB // 4 - 4096
    assert keeper.keep() == Room(MIB // 4 - 4096, MIB, held=False)
    # Given back before, perhaps by another process.
    keeper.make_room()
    disk.free = 8 * MIB
    assert keeper.keep() == Room(8 * MIB, MIB, held=True)
    disk.says = False
    keeper.make_room()
    assert keeper.keep() is None
    assert file.exists()


def test_the_log_of_the_database_gets_its_blocks_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Disk(monkeypatch, 16 * MIB)
    wal = tmp_path / "db-wal"
    keeper = DiskReserve(tmp_path, wal)
    keeper.keep()
    assert not wal.exists()
    wal.touch()
    keeper.keep()
    assert MIB // 2 <= wal.stat().st_blocks * 512 < MIB


@pytest.mark.parametrize(("number", "again"), [(errno.EOPNOTSUPP, False), (errno.ENOSPC, True)])
def test_a_file_system_that_cannot_allocate_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, again: bool
) -> None:
    Disk(monkeypatch)
    asked: list[int] = []

    def refuse(fd: int, size: int) -> None:
        asked.append(size)
        raise OSError(number, "-")

    monkeypatch.setattr(disk_reserve.linux, "allocate", refuse)
    before = len(os.listdir("/proc/self/fd"))
    keeper = DiskReserve(tmp_path, None)
    for _ in range(2):
        room = keeper.keep()
        assert room is not None
        assert not room.held
    assert asked == [MAX_BYTES] * (2 if again else 1)
    assert len(os.listdir("/proc/self/fd")) == before


# Moments, and what is known already.


@pytest.mark.parametrize("begin", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_moment_that_no_calendar_has_is_out_of_range(begin: str) -> None:
    with pytest.raises(UsageError, match="is out of range"):
        begin_time(begin)


def test_those_behind_a_known_attempt_are_adopted(make_world: Any) -> None:
    world = make_world("sim:4")
    jobs = [world.submit("a") for _ in range(3)]
    world.agent().run_once()
    for job_id in jobs:
        world.launcher.run(job_id)
    world.agents[0].run_once()
    found = adopt(world.ctx)
    assert [tracked.job.id for tracked in found.tracked_attempts] == jobs
    rest = adopt(world.ctx, known=[found.attempts[0].token])
    assert [tracked.job.id for tracked in rest.tracked_attempts] == jobs[1:]
    assert [attempt.job_id for attempt in rest.attempts] == jobs

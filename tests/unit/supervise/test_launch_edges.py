"""Whether an attempt lives, may be launched, and what is left of it is swept: the daemon's questions at their edges."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.domain.job import Launched
from gpuq.supervise import bundle, cgroup, cgroup_folders, kernel, launch, processes
from gpuq.supervise.launch import ForkServerLauncher

STARTED: dict[str, object] = {"supervisor_pid": 50, "supervisor_start": 60, "pid": 3, "pid_start": 4, "started_at": 5.5}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def launcher() -> Iterator[ForkServerLauncher]:
    made = ForkServerLauncher()
    yield made
    made.close()


def test_an_attempt_lives_while_its_lock_is_held_and_nothing_stays_open(
    launcher: ForkServerLauncher, tmp_path: Path
) -> None:
    run_dir, records = str(tmp_path / "1"), tmp_path / "1.records"
    before = descriptors()
    assert not launcher.alive(run_dir)
    records.mkdir()
    assert not launcher.alive(run_dir)
    lock = launch.linux.lock_file(str(records / bundle.LOCK))
    assert launcher.alive(run_dir)
    os.close(lock)
    assert not launcher.alive(run_dir)
    (records / bundle.LOCK).unlink()
    (records / bundle.LOCK).symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        launcher.alive(run_dir)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("fields", "parent", "comes"),
    [
        ({}, kernel.NAME, True), ({"start": 61}, kernel.NAME, False), ({"living": True}, kernel.NAME, False),
        ({}, b"another", False), (None, kernel.NAME, False),
    ],
)  # fmt: skip
def test_an_attempt_lives_on_until_the_fork_server_has_written_the_will_of_its_dead_supervisor(
    launcher: ForkServerLauncher,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fields: dict[str, Any] | None,
    parent: bytes,
    comes: bool,
) -> None:
    records = tmp_path / "1.records"
    records.mkdir()
    os.close(launch.linux.lock_file(str(records / bundle.LOCK)))
    seen = None if fields is None else SimpleNamespace(**{"start": 60, "living": False, "parent": 7, **fields})
    monkeypatch.setattr(launch.linux, "look", lambda pid: seen if pid == 50 else None)
    monkeypatch.setattr(processes, "name_of", lambda pid: parent if pid == 7 else b"")
    assert not launcher.alive(str(tmp_path / "1")), "nobody knows who supervised it"
    bundle.create(str(records), bundle.STARTED, {**STARTED, "pid": None})
    assert not launcher.alive(str(tmp_path / "1"))
    (records / bundle.STARTED).unlink()
    bundle.create(str(records), bundle.STARTED, STARTED)
    assert launcher.alive(str(tmp_path / "1")) is comes
    bundle.write(str(records), bundle.EXIT, {})
    assert not launcher.alive(str(tmp_path / "1"))


def test_a_lock_that_is_held_for_a_moment_is_tried_twenty_times(
    monkeypatch: pytest.MonkeyPatch, launcher: ForkServerLauncher, tmp_path: Path
) -> None:
    held, naps = [20], []

    def lock(path: str) -> int:
        assert path == str(tmp_path / "1.records" / bundle.LOCK)
        held[0] -= 1
        if held[0] >= 0:
            raise BlockingIOError(errno.EWOULDBLOCK, "-")
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(launch.linux, "lock_file", lock)
    monkeypatch.setattr(launch.time, "sleep", naps.append)
    sent: list[Any] = []
    monkeypatch.setattr(launcher.server, "launch", lambda records, fds: sent.append(records))
    order: Any = SimpleNamespace(
        secrets={},
        run_dir=str(tmp_path / "1"),
        spec={"token": "t", "uid": os.geteuid(), "gid": os.getegid()},
        script=None,
    )
    before = descriptors()
    with pytest.raises(BlockingIOError, match="this attempt has a live supervisor"):
        launcher.start(order)
    assert (held, len(naps), sent) == ([0], 19, [])
    assert descriptors() == before
    held[0], naps[:] = 19, []
    fd = launcher.start(order)
    assert (len(naps), sent) == (19, [str(tmp_path / "1.records")])
    assert descriptors() == before + 1
    # The fork server is to have the only other end.
    assert os.read(fd, 1) == b""
    os.close(fd)
    held[0] = 0
    for name in (bundle.STARTED, bundle.EXIT):
        (tmp_path / "1.records" / name).touch()
        with pytest.raises(FileExistsError, match="this attempt was launched before"):
            launcher.start(order)
        (tmp_path / "1.records" / name).unlink()
    assert descriptors() == before


def test_a_hand_over_that_fails_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, launcher: ForkServerLauncher, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "-")

    monkeypatch.setattr(launcher.server, "launch", fail)
    order: Any = SimpleNamespace(
        secrets={}, run_dir=str(tmp_path / "1"), spec={"uid": os.geteuid(), "gid": os.getegid()}, script=None
    )
    before = descriptors()
    with pytest.raises(BrokenPipeError):
        launcher.start(order)
    assert descriptors() == before
    # An own folder without records was made by an older release: that attempt has run.
    (tmp_path / "2").mkdir()
    with pytest.raises(FileExistsError, match="this attempt was launched before"):
        launcher.start(SimpleNamespace(run_dir=str(tmp_path / "2"), spec={}))  # type: ignore[arg-type]
    assert descriptors() == before


def test_while_nothing_is_over_nothing_is_waited_for_or_closed(launcher: ForkServerLauncher) -> None:
    ends = [os.pipe() for _ in range(9)]
    before = descriptors()
    for number, (read_end, write_end) in enumerate(ends):
        os.write(write_end, bundle.line({**STARTED, "pid": number + 1}))
        assert launcher.report(read_end) == Launched(50, 60, number + 1, 4, 5.5)
    # One more tells which of them are over.
    assert descriptors() == before + len(ends) + 1
    launcher.close()
    assert descriptors() == before
    for read_end, write_end in ends:
        os.close(read_end)
        os.close(write_end)


def test_a_sweep_counts_what_was_in_groups_and_what_was_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def end_left_over(folder: str, timeout_s: float = 10.0) -> int:
        asked.append((folder, timeout_s))
        if timeout_s < 10:
            raise TimeoutError
        return 3

    monkeypatch.setattr(cgroup, "end_left_over", end_left_over)
    monkeypatch.setattr(launch.sweep, "sweep", lambda *words, owner, seen: asked.append((*words, owner)) or 2)
    monkeypatch.setattr(launch.user_files, "owner_of_job", lambda uid: uid)
    home = ForkServerLauncher(None, str(tmp_path))
    assert home.sweep("t", 7, 8, 1000) == 5
    monkeypatch.setattr(home.server, "start", lambda: asked.append("start"))
    home.warm_up()
    folder = cgroup_folders.folder_name(str(tmp_path))
    assert asked == [(folder, 10.0), ("t", 7, 8, 1000), (folder, 1.0), "start"]
    homeless = ForkServerLauncher()
    assert homeless.sweep("t", None) == 2
    assert asked[4:] == [("t", None, None, None)]


def test_numbers_of_a_report_are_those_that_processes_have(launcher: ForkServerLauncher, tmp_path: Path) -> None:
    records = tmp_path / "1.records"
    records.mkdir()

    def read(**fields: object) -> Launched | None:
        (records / bundle.STARTED).unlink(missing_ok=True)
        bundle.create(str(records), bundle.STARTED, {**STARTED, "token": "t", **fields})
        return launcher.launched(str(tmp_path / "1"), "t")

    assert launcher.launched(str(tmp_path / "1"), "t") is None
    assert read() == Launched(50, 60, 3, 4, 5.5)
    assert read(pid=2**31 - 1) == Launched(50, 60, 2**31 - 1, 4, 5.5)
    assert read(pid=2**31) is None
    assert read(pid_start=2**31, supervisor_start=2**40) == Launched(50, 2**40, 3, 2**31, 5.5)
    assert read(pid=1, started_at=0) == Launched(50, 60, 1, 4, 0)
    assert read(pid=0) is read(supervisor_pid=-1) is read(pid_start=-1) is read(started_at=1e18) is None
    assert launcher.launched(str(tmp_path / "1"), "another") is None

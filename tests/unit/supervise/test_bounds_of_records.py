"""How large, whose and of which kind a record may be, what is written durably, and what counts as output or an end."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import signal
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.supervise import bundle, classify, own_folder, processes, progress, stop, sweep
from gpuq.supervise.classify import Ending, classify_end
from gpuq.supervise.output_limit import FASTEST_RATE, GRACE_S, REASON, OutputLimit, size_text

GIB = 1024**3


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_record_may_be_as_long_as_the_longest_and_not_a_byte_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_MAX_RECORD", 20)
    path = tmp_path / "a.json"
    path.touch(0o600)
    path.write_text('{"a": 1}'.ljust(20))
    assert bundle.read(str(tmp_path), "a.json") == {"a": 1}
    path.write_text('{"a": 1}'.ljust(21))
    before = descriptors()
    assert bundle.read(str(tmp_path), "a.json") is None
    assert descriptors() == before
    # It may have grown since it was looked at.
    path.write_text('{"a": 1}')
    for length, found in ((20, {"a": 1}), (21, None)):
        monkeypatch.setattr(bundle, "read_at_most", lambda fd, most, length=length: b'{"a": 1}'.ljust(length))
        assert bundle.read(str(tmp_path), "a.json") == found


def test_what_is_read_piece_by_piece_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    real, asked = os.read, []

    def few(fd: int, most: int) -> bytes:
        asked.append(most)
        return real(fd, min(most, 4))

    monkeypatch.setattr(bundle.os, "read", few)
    for most, found in ((20, b"0123456789"), (10, b"0123456789"), (9, b"0123456789"), (5, b"012345"), (0, b"0")):
        fd = os.open(tmp_path / "x", os.O_RDONLY)
        assert bundle.read_at_most(fd, most) == found
        os.close(fd)
    assert asked[:4] == [21, 17, 13, 11]


def test_what_is_written_piece_by_piece_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(bundle.os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    bundle.write(str(tmp_path), "a.json", {"word": "of some length"})
    bundle.create(str(tmp_path), "b.json", {"word": "of some length"})
    monkeypatch.undo()
    assert bundle.read(str(tmp_path), "a.json") == bundle.read(str(tmp_path), "b.json") == {"word": "of some length"}


def test_a_record_is_on_the_disk_before_its_name_and_its_name_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real = os.rename

    def sync(fd: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")

    monkeypatch.setattr(bundle.os, "fsync", sync)
    monkeypatch.setattr(bundle.os, "rename", lambda *names: steps.append("rename") or real(*names))
    before = descriptors()
    bundle.write(str(tmp_path), "a.json", {})
    assert steps == ["file", "rename", "folder"]
    # What is read by who comes at once needs no disk.
    bundle.create(str(tmp_path), "b.json", {})
    assert len(steps) == 3
    with pytest.raises(NotADirectoryError):
        bundle.sync_folder(str(tmp_path / "a.json"))
    assert descriptors() == before


@pytest.mark.parametrize(("owner", "counts"), [(0, True), (1000, True), (1001, False), (1, False)])
def test_a_record_is_of_roots_or_of_the_folders_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, counts: bool
) -> None:
    bundle.write(str(tmp_path), "a.json", {"a": 1})
    real_stat, real_fstat = os.stat, os.fstat

    def fstat(fd: int) -> Any:
        seen = real_fstat(fd)
        return SimpleNamespace(st_mode=seen.st_mode, st_size=seen.st_size, st_nlink=seen.st_nlink, st_uid=owner)

    monkeypatch.setattr(bundle.os, "fstat", fstat)
    monkeypatch.setattr(
        bundle.os,
        "stat",
        lambda path, **words: SimpleNamespace(st_uid=1000) if path == str(tmp_path) else real_stat(path, **words),
    )
    assert bundle.read(str(tmp_path), "a.json") == ({"a": 1} if counts else None)


def test_whether_there_is_a_record_may_not_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    assert [bundle.read(str(tmp_path), name) for name in ("pipe", "folder")] == [None, None]
    monkeypatch.setattr(bundle.os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "a broken disk")))
    with pytest.raises(OSError, match="a broken disk"):
        bundle.read(str(tmp_path), "a.json")
    assert bundle.token_in(str(tmp_path)) == ""


def test_whole_numbers_are_kept_below_what_a_database_takes() -> None:
    for value, found in ((2**63 - 1, 2**63 - 1), (2**63, None), (1 - 2**63, 1 - 2**63), (-(2**63), None)):
        assert bundle.integer({"n": value}, "n") == found
    assert [bundle.integer({"n": value}, "n", 5) for value in (4, 5, -4, -5)] == [4, None, -4, None]
    assert bundle.number({"n": 10**17}, "n") == 10**17
    assert bundle.number({"n": -(10**18)}, "n") is None


def test_only_a_folder_of_ones_own_may_hold_the_records_of_an_older_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert bundle.records_of(str(tmp_path / "file")) == f"{tmp_path}/file.records"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / bundle.LOCK).touch()
    assert bundle.records_of(str(tmp_path / "folder")) == f"{tmp_path}/folder"
    (tmp_path / "link").symlink_to("folder")
    assert bundle.records_of(str(tmp_path / "link")) == f"{tmp_path}/link.records"
    monkeypatch.setattr(bundle.os, "geteuid", lambda: 54321)
    assert bundle.records_of(str(tmp_path / "folder")) == f"{tmp_path}/folder.records"


# The job's own folder and what stands in it.


def test_the_own_folder_and_its_log_are_given_to_the_user_and_one_of_somebody_elses_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(own_folder.user_files, "hand_over", lambda *words: given.append(words))
    run_dir = str(tmp_path / "1")
    # A launch that was cut short has made it, and no log.
    os.mkdir(run_dir, 0o700)
    fd = own_folder.make(run_dir, 1000, 1001)
    assert given == [(fd, 1000, 1001), (run_dir, 1000, 1001)]
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.unlink(f"{run_dir}/{bundle.LOG}")
    monkeypatch.setattr(own_folder.os, "geteuid", lambda: 54321)
    with pytest.raises(FileExistsError, match="this attempt was launched before"):
        own_folder.make(run_dir, 1000, 1001)
    assert not os.path.lexists(f"{run_dir}/{bundle.LOG}")


def test_progress_of_another_user_and_progress_that_is_no_object_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / bundle.PROGRESS
    path.write_text('{"progress": 0.5}')
    before = descriptors()
    assert progress.read(str(tmp_path), os.geteuid()) == {"progress": 0.5}
    path.write_text("[1]")
    assert progress.read(str(tmp_path), os.geteuid()) is None
    path.write_text('{"progress": 0.5}')
    monkeypatch.setattr("gpuq.user_files.owner_of_job", lambda _: 54321)
    monkeypatch.setattr("gpuq.user_files.os.geteuid", lambda: 54322)
    assert progress.read(str(tmp_path), 54321) is None
    assert descriptors() == before


# Looks at the log.


def test_looks_at_a_quiet_log_are_twice_as_far_apart_each_time_until_a_second() -> None:
    watch, now, pauses = OutputLimit(1000, 50.0), 50.0, []
    assert (watch.wait_s(50.0), watch.due(50.0)) == (pytest.approx(0.05), False)
    assert (watch.due(50.05), watch.wait_s(60.0)) == (True, 0.0)
    for _ in range(6):
        assert watch.grace_s(0, now) is None
        pauses.append(watch.wait_s(now))
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    watch.grace_s(1, now)
    assert watch.wait_s(now) == pytest.approx(0.05)


def test_a_quarter_beyond_the_limit_is_the_most_that_has_a_grace() -> None:
    watch = OutputLimit(1000, 0.0)
    assert [watch.grace_s(size, 1.0) for size in (1000, 1001, 1250, 1251)] == [None, GRACE_S, GRACE_S, 0.0]
    assert FASTEST_RATE == 2 * GIB


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (1024**2, "1 MiB"), (0, "0 MiB"), (2 * 1024**2 + 300 * 1024, "2.3 MiB"), (GIB, "1 GiB"),
        (GIB * 5 // 4, "1.2 GiB"),
        (GIB - 1, "1024 MiB"), (1024**4, "1 TiB"), (1024**4 - 1, "1024 GiB"), (1024**4 * 7 // 5, "1.4 TiB"),
    ],
)  # fmt: skip
def test_a_size_has_one_decimal_of_the_largest_unit_that_it_fills(size: int, told: str) -> None:
    assert size_text(size) == told


# Ends.


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (Ending(exit_code=137, oom_kills=1), "host_oom"), (Ending(exit_code=137), "exit_nonzero"),
        (Ending(exit_code=136, oom_kills=1), "exit_nonzero"), (Ending(exit_code=0, oom_kills=1), "succeeded"),
        (Ending(signum=9, oom_kills=1), "host_oom"), (Ending(signum=9), "signal"),
        (Ending(signum=15, oom_kills=1), "signal"), (Ending(signum=9, noticed=9, oom_kills=1), "time_limit"),
        (Ending(exit_code=137, oom_kills=1, stop_reason="preempt"), "preempted"),
        (Ending(exit_code=0, stop_reason="cancel"), "cancelled"), (Ending(exit_code=1, noticed=10), "exit_nonzero"),
    ],
)  # fmt: skip
def test_memory_counts_only_for_what_was_killed(end: Ending, outcome: str) -> None:
    assert classify_end(end)[0] == outcome


def test_a_limit_of_output_is_told_only_to_whom_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert classify.of_reason("cancel", None, GIB) == ("cancelled", "stopped: cancel")
    assert classify.of_reason(REASON) == ("output_limit", "stopped: output_limit")
    monkeypatch.setattr(classify.time, "time", lambda: 1234.56789)
    record = classify.exit_record(Ending(signum=15), token="t", started_at=1.5)
    assert record == {
        "schema": 1, "token": "t", "outcome": "signal", "exit_code": None, "signal": 15, "error": "ended by SIGTERM",
        "started_at": 1.5, "finished_at": 1234.568, "stop_reason": None,
    }  # fmt: skip


def test_kills_are_counted_for_ones_own_group_and_else_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    text, may, asked = ["4:memory:/elsewhere\n0::/box/own\n"], [True], []

    def opened(path: str) -> Any:
        assert path == "/proc/self/cgroup"
        if not text:
            raise PermissionError(errno.EACCES, "-")
        return io.StringIO(text[0])

    monkeypatch.setattr(classify, "open", opened, raising=False)
    monkeypatch.setattr(classify.os, "access", lambda path, mode: asked.append((path, mode)) or (bool(path) and may[0]))
    own = "/sys/fs/cgroup/box/own/memory.events"
    assert classify.oom_counter() == own
    may[0] = False
    assert classify.oom_counter() == "/proc/vmstat"
    assert asked == [(own, os.R_OK)] * 2
    may[0], text[0] = True, "4:memory:/elsewhere\n"
    assert classify.oom_counter() == "/proc/vmstat"
    text.clear()
    assert classify.oom_counter() == "/proc/vmstat"


def test_the_count_of_kills_may_stand_anywhere_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = descriptors()
    for text, kills in (
        ("\noom_kill 7\n", 7),
        ("oom 3\noom_kill 12\nx 1", 12),
        ("oom 3\n", 0),
        ("a\noom_kills 3\n", 0),
    ):
        (tmp_path / "x").write_text(text)
        assert classify.count_oom_kills(str(tmp_path / "x")) == kills
    assert classify.count_oom_kills(str(tmp_path)) == 0
    assert descriptors() == before


# Stops and sweeps.


def test_a_request_to_stop_says_when_and_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop.time, "time", lambda: 1234.56789)
    before = descriptors()
    # Nothing was launched yet: the folder is made for it, and nobody else looks into that.
    stop.request_stop(str(tmp_path / "1"), "preempt", 5.0, "USR1")
    records = tmp_path / "1.records"
    assert bundle.read(str(records), bundle.STOP) == {
        "reason": "preempt", "grace_s": 5.0, "signal": "USR1", "at": 1234.568,
    }  # fmt: skip
    assert records.stat().st_mode & 0o777 == 0o700
    os.mkfifo(records / bundle.CONTROL)
    reader = os.open(records / bundle.CONTROL, os.O_RDONLY | os.O_NONBLOCK)
    stop.request_stop(str(tmp_path / "1"), "cancel", 0.0)
    stop.nudge(str(records))
    assert os.read(reader, 100) == b"\n\n"
    os.close(reader)
    stop.nudge(str(records))
    assert descriptors() == before


def test_a_sweep_waits_a_moment_for_those_it_could_kill_and_does_without_descriptors_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[list[Any]] = [[SimpleNamespace(pid=20, key=(20, 1)), SimpleNamespace(pid=21, key=(21, 1))]]
    told: list[Any] = []
    read_end, write_end = os.pipe()
    monkeypatch.setattr(sweep, "strays", lambda *_: left.pop() if left else [])
    monkeypatch.setattr(processes, "send", lambda process, number: told.append((process.pid, number)) or True)

    def opened(pid: int) -> int:
        if pid == 20:
            raise OSError(errno.EMFILE, "-")
        return read_end

    class Poll:
        def register(self, fd: int, mask: int) -> None:
            told.append(("register", fd, mask))

        def poll(self, pause: float) -> None:
            told.append(("poll", pause))

    monkeypatch.setattr(sweep.os, "pidfd_open", opened)
    monkeypatch.setattr(sweep.select, "poll", Poll)
    assert sweep.sweep("t" * 32) == 2
    assert told == [
        (20, signal.SIGKILL), (21, signal.SIGKILL), ("register", read_end, sweep.select.POLLIN), ("poll", 50.0),
    ]  # fmt: skip
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read_end)
    os.close(write_end)

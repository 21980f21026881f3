"""What a supervisor and a launch do before there is a job, where there will be none, and when they themselves fail."""

from __future__ import annotations

import errno
import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.supervise import bundle, launch, own_folder, progress, shim
from gpuq.supervise.crash_record import CrashRecord
from gpuq.supervise.spawn import CannotRun

SPEC = {"token": "t", "argv": ["true"], "env": {}, "uid": os.geteuid(), "gid": os.getegid()}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "1.records"
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / bundle.CONTROL)
    return folder


@pytest.fixture
def supervise(records: Path) -> Iterator[Any]:
    """Supervises with what is in the records, and returns the exit record."""
    signals = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.signal(number, lambda *_: None) for number in signals}
    wakeup = signal.set_wakeup_fd(-1)
    before = len(os.listdir("/proc/self/fd"))
    server, server_end = os.pipe()

    def run() -> dict[str, object]:
        will = CrashRecord()
        fds = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
        try:
            assert shim.supervise(str(records), *fds, server_end, lambda: None, will) is True
            assert will.read() is None
        finally:
            will.close()
        found = bundle.read(str(records), bundle.EXIT)
        assert found is not None
        return found

    try:
        yield run
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(server)
        os.close(server_end)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("error", "told", "machine"),
    [
        (CannotRun("the program is not there"), "the program is not there", False),
        (OSError(errno.EAGAIN, "no room"), "no process could be made for the job: no room", True),
    ],
)
def test_a_job_that_gets_no_process_has_an_error_of_its_launch_which_may_be_the_machines(
    monkeypatch: pytest.MonkeyPatch, records: Path, supervise: Any, error: Exception, told: str, machine: bool
) -> None:
    bundle.write(str(records), bundle.SPEC, SPEC)

    def fail(*_: object) -> Any:
        raise error

    monkeypatch.setattr(shim, "spawn", fail)
    found = supervise()
    assert (found["outcome"], found["error"], found["token"]) == ("launch_error", told, "t")
    assert found.get("machine_fault", False) is machine


def test_a_spec_that_names_no_program_is_an_error_of_the_launch(records: Path, supervise: Any) -> None:
    bundle.write(str(records), bundle.SPEC, {"token": "t"})
    found = supervise()
    assert (found["outcome"], found["token"]) == ("launch_error", "t")
    assert str(found["error"]).startswith("spec.json: the spec names no program")


@pytest.mark.parametrize(
    ("stop", "outcome", "reason"),
    [
        ({"reason": "preempt"}, "preempted", "preempt"),
        ({}, "cancelled", "cancel"),
        ({"reason": 5}, "cancelled", "cancel"),
    ],
)
def test_a_job_that_was_told_to_stop_before_it_began_never_begins(
    monkeypatch: pytest.MonkeyPatch, records: Path, supervise: Any, stop: Any, outcome: str, reason: str
) -> None:
    bundle.write(str(records), bundle.SPEC, SPEC)
    bundle.write(str(records), bundle.STOP, stop)
    monkeypatch.setattr(shim, "spawn", lambda *_: pytest.fail("it began"))
    found = supervise()
    assert (found["outcome"], found["stop_reason"], found["started_at"]) == (outcome, reason, None)
    assert str(found["error"]).endswith(", before it was started")


def test_a_supervisor_that_fails_ends_its_children_until_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [(5, 0), (0, 0), (6, 9), (7, 0), ChildProcessError()]
    done: list[Any] = []

    def wait(pid: int, options: int) -> tuple[int, int]:
        assert (pid, options) == (-1, os.WNOHANG)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(shim, "end_all_in", lambda group: done.append(group))
    monkeypatch.setattr(shim, "hunt", lambda reap: done.append("hunt"))
    monkeypatch.setattr(shim.os, "waitpid", wait)
    monkeypatch.setattr(shim.time, "sleep", lambda seconds: done.append(seconds))
    shim._end_every_child("the group")  # type: ignore[arg-type]
    assert done == ["the group", "hunt", 0.05, "the group", "hunt"]
    assert answers == []


# The daemon's side.


def test_a_job_has_the_group_that_it_names_else_its_users_else_one_of_the_same_number() -> None:
    root = pwd.getpwuid(0)
    assert own_folder.with_group({"uid": None}) == {"uid": None}
    assert own_folder.with_group({"uid": 5, "gid": 7}) == {"uid": 5, "gid": 7}
    assert own_folder.with_group({"uid": 0, "x": 1}) == {"uid": 0, "x": 1, "gid": root.pw_gid}
    assert own_folder.with_group({"uid": 4_000_000_000}) == {"uid": 4_000_000_000, "gid": 4_000_000_000}


def test_a_pipe_that_is_there_already_is_used_and_nothing_else_in_its_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / bundle.CONTROL)
    launch._fill_records(str(tmp_path), {"token": "t"})
    assert bundle.token_in(str(tmp_path)) == "t"
    (tmp_path / bundle.SPEC).unlink()
    (tmp_path / bundle.CONTROL).unlink()
    (tmp_path / bundle.CONTROL).touch()
    with pytest.raises(FileExistsError):
        launch._fill_records(str(tmp_path), {"token": "t"})


def test_what_a_disk_does_not_give_back_is_no_progress_and_no_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / bundle.PROGRESS).write_text('{"progress": 0.5}')
    bundle.write(str(tmp_path), bundle.SPEC, {"token": "t"})
    before = len(os.listdir("/proc/self/fd"))

    def broken(*_: object) -> Any:
        raise OSError(errno.EIO, "a broken disk")

    monkeypatch.setattr(bundle.os, "read", broken)
    assert progress.read(str(tmp_path), os.geteuid()) is None
    assert bundle.token_in(str(tmp_path)) == ""
    with pytest.raises(OSError, match="a broken disk"):
        bundle.read(str(tmp_path), bundle.SPEC)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_root_writes_into_the_folder_of_another_is_given_to_that_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(bundle.os, "fchown", lambda fd, uid, gid: given.append((uid, gid)))
    real = os.stat
    owner = SimpleNamespace(st_uid=1000, st_gid=1001)
    monkeypatch.setattr(bundle.os, "stat", lambda path, **_: owner if path == str(tmp_path) else real(path))
    monkeypatch.setattr(bundle.os, "geteuid", lambda: 0)
    bundle.write(str(tmp_path), "a.json", {})
    assert given == [(1000, 1001)]
    owner.st_uid = 0
    bundle.write(str(tmp_path), "a.json", {})
    monkeypatch.setattr(bundle.os, "geteuid", lambda: 1000)
    owner.st_uid = 1000
    bundle.write(str(tmp_path), "a.json", {})
    assert len(given) == 1

"""The last will of a supervisor, and the exit record that is made of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.supervise import bundle, orphans, processes
from gpuq.supervise.crash_record import CrashRecord, exit_code_of, recover
from gpuq.supervise.orphans import Orphans

# A page less its head.
MOST = 4096 - 8


@pytest.fixture
def will() -> Iterator[CrashRecord]:
    made = CrashRecord()
    yield made
    made.close()


def test_each_will_takes_the_place_of_the_one_before(will: CrashRecord) -> None:
    assert will.read() is None
    for number in range(5):
        record = {"number": number, "padding": "x" * 100 * (5 - number)}
        will.write(record)
        assert will.read() == record
        assert will.read() == record
    will.forget()
    assert will.read() is None
    will.write({"after": True})
    assert will.read() == {"after": True}


def test_a_new_will_leaves_the_bytes_of_the_one_before_as_they_were(will: CrashRecord) -> None:
    will.write({"number": 0})
    for number in range(1, 5):
        before, half = bytes(will._memory), will._memory[0]
        will.write({"number": number})
        assert will._memory[0] == 3 - half
        start = (half - 1) * 4096
        assert bytes(will._memory)[start + 1 : start + 4096] == before[start + 1 : start + 4096]


def test_a_will_that_is_half_written_does_not_count(will: CrashRecord) -> None:
    """Whoever dies while it writes leaves the page as it was, apart from the other half."""
    for number in range(4):
        will.write({"number": number})
        page = bytes(will._memory)
        other = 4096 if page[0] == 1 else 0
        will._memory[other + 8 : other + 4096] = b"\xff" * (4096 - 8)
        assert will.read() == {"number": number}


@pytest.mark.parametrize("before", [0, 1])
def test_a_will_may_fill_its_half_and_a_longer_one_is_not_kept(will: CrashRecord, before: int) -> None:
    for _ in range(before):
        will.write({"first": True})
    room = MOST - len(json.dumps({"x": ""}))
    will.write({"x": "x" * room})
    assert will.read() == {"x": "x" * room}
    will.write({"x": "x" * (room + 1)})
    assert will.read() is None
    will.write({"x": "x" * room})
    assert will.read() == {"x": "x" * room}


def test_a_will_is_seen_by_the_parent_of_who_wrote_it(will: CrashRecord) -> None:
    pid = os.fork()
    if pid == 0:
        will.write({"pid": os.getpid()})
        os._exit(0)
    os.waitpid(pid, 0)
    assert will.read() == {"pid": pid}


def test_a_will_that_is_no_object_is_none(will: CrashRecord) -> None:
    will.write(["x"])  # type: ignore[arg-type]
    assert will.read() is None


# What is made of it.


def told(folder: Path) -> dict[str, Any] | None:
    path = folder / bundle.EXIT
    return json.loads(path.read_text()) if path.exists() else None


def last(folder: Path, **facts: object) -> dict[str, object]:
    return {"dir": str(folder), "token": "t", "pid": 5, "pid_start": 6, "started_at": 7.5, **facts}


@pytest.mark.parametrize(
    ("code", "facts", "outcome", "error"),
    [
        (0, {}, "succeeded", None),
        (3, {}, "exit_nonzero", "ended with exit code 3"),
        (-11, {}, "signal", "ended by SIGSEGV"),
        (-15, {"stop_reason": "cancel"}, "cancelled", "stopped: cancel"),
        (-9, {"stop_reason": "time_limit", "time_limit_s": 60}, "time_limit", "ran into its time limit of 60 s"),
        (-10, {"noticed": 10}, "time_limit", "ended by SIGUSR1, which was sent ahead of its time limit"),
        (0, {"stop_reason": "preempt"}, "preempted", "stopped: preempt"),
    ],
)
def test_the_end_that_a_killed_supervisor_left_is_told_as_it_would_have_told_it(
    tmp_path: Path, code: int, facts: dict[str, object], outcome: str, error: str | None
) -> None:
    assert recover(last(tmp_path, **facts), code)
    record = told(tmp_path)
    assert record is not None
    assert (record["outcome"], record["error"], record["swept"], record["token"]) == (outcome, error, False, "t")
    assert (record["started_at"], record["stop_reason"]) == (7.5, facts.get("stop_reason"))
    assert (record["exit_code"], record["signal"]) == ((code, None) if code >= 0 else (None, -code))


@pytest.mark.parametrize("code", [None, -15, -9])
def test_an_end_that_may_be_anybodys_doing_is_not_told(tmp_path: Path, code: int | None) -> None:
    assert recover(last(tmp_path), code)
    assert told(tmp_path) is None


def test_a_record_that_was_in_the_will_is_written_whole_and_never_over_another(tmp_path: Path) -> None:
    assert recover({"dir": str(tmp_path), "end": {"outcome": "succeeded"}}, None)
    assert told(tmp_path) == {"outcome": "succeeded", "swept": False}
    assert recover({"dir": str(tmp_path), "end": {"outcome": "signal"}}, -11)
    assert told(tmp_path) == {"outcome": "succeeded", "swept": False}


def test_a_will_waits_for_a_disk_and_not_for_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recover(last(tmp_path / "gone"), 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(bundle, "write", full)
        assert not recover(last(tmp_path), 0)
    assert recover(last(tmp_path), 0)
    assert told(tmp_path) is not None


# Orphans.


def ended(code: int | None) -> tuple[int, int]:
    """PID and start time of a child that has ended so and is not reaped; None: killed."""
    pid = os.fork()
    if pid == 0:
        if code is None:
            os.kill(os.getpid(), 9)
        os._exit(code or 0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid, processes.start_of(pid)


def seen(pid: int) -> Any:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


@pytest.mark.parametrize(("code", "told"), [(0, 0), (7, 7), (None, -9)])
def test_how_a_child_ended_is_known_before_and_after_it_is_reaped(code: int | None, told: int) -> None:
    pid, start = ended(code)
    known = Orphans()
    assert exit_code_of(seen(pid)) == told
    assert known.end_of(pid, start) == told
    assert known.end_of(pid, start + 1) is None
    known.note(seen(pid))
    os.waitpid(pid, 0)
    assert known.end_of(pid, start) == told
    assert known.end_of(pid, start + 1) is None
    assert Orphans().end_of(pid, start) is None


def test_of_a_child_that_lives_nothing_is_known_and_neither_of_what_is_no_number() -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    try:
        start = processes.start_of(pid)
        assert Orphans().end_of(pid, start) is None
        for words in (("5", 5), (5, "5"), (None, None)):
            assert Orphans().end_of(*words) is None
    finally:
        os.close(write_end)
        os.close(read_end)
        os.waitpid(pid, 0)


def test_only_the_newest_ends_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_KEPT", 2)
    known, children = Orphans(), [ended(number) for number in range(3)]
    for pid, _ in children:
        known.note(seen(pid))
        os.waitpid(pid, 0)
    assert [known.end_of(*child) for child in children] == [None, 1, 2]

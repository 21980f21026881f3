"""Logs that are kept small while others write to them, and processes that are killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpuq.engine.maintenance import rotate
from gpuq.engine.maintenance.rotate import copy_away, rename_away, start_anew

# Writes numbered lines to its own stderr, which is the log, and says on stdout which of them are written.
WRITER = """
import os, sys, threading, time
from pathlib import Path
from gpuq.engine.maintenance import rotate
rotate.MAX_BYTES, rotate.PIECES = 300, 1000
path = Path(sys.argv[1])
os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
turns = [0]

def write(who):
    for number in range(int(sys.argv[2])):
        if number % 100 == 0:
            seen = turns[0]
        os.write(2, f"{who} {number}\\n".encode())
        os.write(1, f"{who} {number}\\n".encode())
        # So many lines are more than a log may have: it is turned over while the other thread writes.
        while number % 100 == 99 and turns[0] == seen:
            time.sleep(0)

threads = [threading.Thread(target=write, args=(who,), daemon=True) for who in "ab"]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    before = os.fstat(2).st_ino
    rotate.rename_away(path, (1, 2))
    turns[0] += os.fstat(2).st_ino != before
"""


def pieces(path: Path) -> list[Path]:
    return sorted(found for found in path.parent.iterdir() if found.name.startswith(path.name))


def lines(path: Path) -> list[str]:
    return [line for piece in pieces(path) for line in piece.read_text().splitlines()]


def append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotate, "MAX_BYTES", 100)


def test_no_line_is_lost_or_written_twice_while_threads_go_on_writing(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), "2000"], capture_output=True, text=True, timeout=60, check=True
    )
    assert sorted(lines(path)) == sorted(done.stdout.splitlines())
    assert len(pieces(path)) > 3


def test_no_line_is_lost_when_the_daemon_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "100000"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(4000)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    written = set(lines(path))
    assert len(pieces(path)) > 3
    assert [line for line in said if line.endswith("\n") and line.rstrip("\n") not in written] == []


def test_a_log_that_somebody_else_writes_is_left_alone(tmp_path: Path, small: None) -> None:
    path = tmp_path / "daemon.log"
    path.write_text("x" * 1000)
    rename_away(path, (1, 2))
    assert pieces(path) == [path]


def test_pieces_are_bounded_in_number_and_for_the_daemons_user_alone(tmp_path: Path, small: None) -> None:
    path = tmp_path / "daemon.log"
    fd = append(path)
    try:
        for number in range(6):
            os.write(fd, f"{number}".encode() * 101)
            rename_away(path, (fd,))
    finally:
        os.close(fd)
    assert [piece.name for piece in pieces(path)] == ["daemon.log", "daemon.log.1", "daemon.log.2", "daemon.log.3"]
    assert [piece.read_text()[:1] for piece in pieces(path)] == ["", "5", "4", "3"]
    assert {piece.stat().st_mode & 0o777 for piece in pieces(path)} == {0o600}


def test_where_no_new_file_can_be_made_the_log_goes_on(tmp_path: Path, small: None) -> None:
    path = tmp_path / "daemon.log"
    fd = append(path)
    try:
        os.write(fd, b"x" * 101)
        path.with_name("daemon.log.new").mkdir()
        with pytest.raises(OSError):
            rename_away(path, (fd,))
        os.write(fd, b"y")
    finally:
        os.close(fd)
    assert path.read_text() == "x" * 101 + "y"


def test_whoever_holds_the_supervisors_log_writes_on_into_the_emptied_file(tmp_path: Path, small: None) -> None:
    path = tmp_path / "supervisors.log"
    fd = append(path)
    try:
        os.write(fd, b"a" * 300)
        copy_away(path)
        os.write(fd, b"after")
        copy_away(path)
    finally:
        os.close(fd)
    assert path.read_bytes() == b"after"
    # No more than so much of a log that ran away.
    assert path.with_name("supervisors.log.1").read_bytes() == b"a" * 100
    assert len(pieces(path)) == 2


@pytest.mark.parametrize("step", ["fsync", "ftruncate"])
def test_a_kill_between_copying_and_emptying_loses_nothing(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "supervisors.log"
    path.write_text("a" * 50 + "b" * 51)
    with monkeypatch.context() as killed:

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        killed.setattr(os, step, fail)
        with pytest.raises(KeyboardInterrupt):
            copy_away(path)
    assert path.read_text() == "a" * 50 + "b" * 51
    copy_away(path)
    assert path.read_text() == ""
    assert path.with_name("supervisors.log.1").read_text().endswith("b" * 51)


def test_a_start_begins_a_new_log_once_the_old_one_has_grown(tmp_path: Path, small: None) -> None:
    path = tmp_path / "daemon.log"
    start_anew(path)
    path.write_text("x" * 100)
    start_anew(path)
    assert pieces(path) == [path]
    path.write_text("x" * 101)
    start_anew(path)
    assert [piece.name for piece in pieces(path)] == ["daemon.log.1"]

"""What real attempts take of the descriptors of the daemon and of the fork server."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gpuq.supervise import bundle


def descriptors(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def settled(world: Any) -> None:
    """A supervisor holds its end of the report until it knows its record safe, a moment after its lock."""
    deadline = time.monotonic() + 20
    while world.launcher._reports._ends._ends:
        assert time.monotonic() < deadline
        world.launcher._reports.sort_out()
        time.sleep(0.01)


def test_an_attempt_takes_two_descriptors_of_the_daemon_and_none_of_the_fork_server(world: Any) -> None:
    """Of the daemon's the second is what `watch` answers with; the test closes the first, as it hears of the start."""
    world.launch(world.order("true")).result()
    server = world.launcher.server.pid
    bells = [world.bell() for _ in range(12)]
    settled(world)
    before, before_there = descriptors(), descriptors(server)
    attempts = [world.launch(world.order("/bin/sh", "-c", "read go < $BELL", env={"BELL": str(b.path)})) for b in bells]
    # `launch` has closed the descriptor that reported.
    assert descriptors() == before + len(attempts)
    # The pipe of its own that each spare supervisor may need is not counted up with the attempts.
    assert descriptors(server) <= before_there + 1
    for bell in bells:
        Path(bell.path).write_text("go\n")
    for attempt in attempts:
        assert attempt.result().exit_code == 0
    settled(world)
    assert descriptors() == before, "all are closed when the last end has been read"


def test_a_report_counts_where_there_is_no_descriptor_to_spare(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(fd: int) -> int:
        raise OSError(24, "Too many open files")

    bell = world.bell()
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", none_left)
        attempt = world.launch(world.order("/bin/sh", "-c", "read go < $BELL; exit 3", env={"BELL": str(bell.path)}))
    assert attempt.running.pid > 0
    Path(bell.path).write_text("go\n")
    with (Path(attempt.records) / bundle.LOCK).open() as lock:
        # Until its supervisor lets go.
        fcntl.flock(lock, fcntl.LOCK_SH)
    assert attempt.result().exit_code == 3

"""The socket of a daemon is removed while it runs: it is found again, and a stop that reaches nobody says so."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box import GPUQ

from gpuq.cli.commands import daemon as commands
from gpuq.client.calls import Calls
from gpuq.engine.file_lock import FileLock
from gpuq.errors import DaemonUnreachable


def test_a_socket_that_was_removed_is_made_again_and_the_daemon_stops_when_told(make_box: Callable[..., Any]) -> None:
    box = make_box()
    # Also: what a daemon left that was killed in the middle of a launch of nothing goes.
    left = box.home / "jobs" / ".rehearsal.of-one-that-was-killed"
    (left / "1.records").mkdir(parents=True)
    # Also: it takes as many descriptors as it may have, whatever the shell gives.
    subprocess.run(["bash", "-c", f"ulimit -Sn 256; exec {GPUQ} up -d"], env=box.env, check=True, capture_output=True)
    pid = box.daemon().pid
    [limits] = [line.split() for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in line]
    assert limits[3] == limits[4] != "256"
    assert not left.exists()
    path = box.home / "gpuq.sock"
    before = path.stat()
    path.unlink()
    box.until(lambda: path.exists(), "it is made again")
    assert path.stat().st_ino != before.st_ino or path.stat().st_ctime_ns != before.st_ctime_ns
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (before.st_uid, stat.S_IMODE(before.st_mode))
    box.until(lambda: box.gpuq("status", code=None).stderr == "", "clients find it")
    path.unlink()
    assert "the daemon has stopped" in box.gpuq("down").stderr
    assert commands._holder(str(box.home)) is None
    assert not path.exists()
    assert "no daemon is running on this home" in box.gpuq("down").stderr


def test_a_stop_that_reaches_nobody_names_the_daemon_and_does_not_claim_to_have_stopped_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUQ_HOME", str(tmp_path))
    monkeypatch.delenv("GPUQ_SERVER", raising=False)
    monkeypatch.setattr(commands, "SOCKET_S", 0.0)
    lock = FileLock(tmp_path / "daemon.lock", "a daemon")
    with pytest.raises(DaemonUnreachable, match="no daemon answers"):
        commands._ask(Calls(direct=False), False)
    lock.acquire()
    try:
        with pytest.raises(DaemonUnreachable, match=rf"a daemon runs here \(pid {os.getpid()}\)") as told:
            commands._ask(Calls(direct=False), False)
        assert (told.value.exit_code, f"kill {os.getpid()}" in str(told.value.hint)) == (5, True)
    finally:
        lock.release()
    with pytest.raises(DaemonUnreachable, match="no daemon answers"):
        commands._ask(Calls(direct=False), False)

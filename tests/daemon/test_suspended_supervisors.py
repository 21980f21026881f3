"""A job that stops its supervisor, again and again, is stopped all the same, by everything that stops jobs."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.attempt_mark import MARK
from gpuq.linux import look

# It lets its supervisor do nothing, is deaf to SIGTERM, and has a child that nothing but its place tells of.
HOSTILE = """
trap '' TERM
setsid env -i /bin/sh -c 'trap "" TERM; echo $$ >"$0.new"; mv "$0.new" "$0"; sleep 300; exit 0' {child} &
while [ ! -e {child} ]; do sleep 0.01; done
while :; do kill -STOP $PPID; done
"""


def hostile(box: Any, folder: Path, name: str, *options: str) -> tuple[int, int]:
    """The job, once it runs, and its child."""
    child = folder / name
    options = ("-g", "1", "--kill-grace", "0.5s", "--retries", "0", *options)
    job_id = box.submit(*options, "--", "bash", "-c", HOSTILE.format(child=child))
    box.until(child.exists, f"{name} runs")
    return job_id, int(child.read_text())


def lives(pid: int) -> bool:
    process = look(pid)
    return process is not None and process.living


def marked(box: Any) -> list[int]:
    """Processes of any job of this home."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(entry.startswith(MARK.encode() + b"=") for entry in environment):
                home = f"GPUQ_HOME={box.home}".encode()
                found += [int(folder.name)] if home in environment else []
    return found


def test_a_job_that_stops_its_supervisor_again_and_again_can_be_stopped(make_box: Any, tmp_path: Path) -> None:
    # The folder of the children is the job's too, whoever runs it.
    os.chmod(tmp_path, 0o755)
    box = make_box()
    box.up()
    limited, a = hostile(box, tmp_path, "limited", "--time", "1s")
    cancelled, b = hostile(box, tmp_path, "cancelled")
    forced, c = hostile(box, tmp_path, "forced")
    box.gpuq("cancel", str(cancelled))
    box.gpuq("cancel", "--force", str(forced))
    for job_id, state in ((limited, "failed"), (cancelled, "cancelled"), (forced, "cancelled")):
        box.until_state(job_id, state)
    attempts = [box.show(job_id)["attempts"][-1]["outcome"] for job_id in (limited, cancelled, forced)]
    assert attempts == ["time_limit", "cancelled", "cancelled"]
    assert [lives(pid) for pid in (a, b, c)] == [False] * 3
    told = [event["detail"] or "" for event in box.show(cancelled)["events"]]
    assert any("stands still" in text for text in told), told
    # A new daemon goes on with what the old one began, and `down` waits for all.
    restarted, d = hostile(box, tmp_path, "restarted")
    box.gpuq("cancel", str(restarted))
    box.kill_daemon()
    box.up()
    box.until_state(restarted, "cancelled")
    assert not lives(d)
    _, e = hostile(box, tmp_path, "drained")
    box.down("--stop-jobs")
    assert not lives(e)
    assert marked(box) == []


_ATTACH, _DETACH = 16, 17


@contextmanager
def held_by_a_debugger(pid: int) -> Iterator[None]:
    """Nothing but its end lets it go on."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if ptrace(_ATTACH, pid, None, None) != 0:
        pytest.skip(f"a debugger is refused here: {os.strerror(ctypes.get_errno())}")
    os.waitpid(pid, 0)
    try:
        yield
    finally:
        if look(pid) is not None and look(pid).living:
            ptrace(_DETACH, pid, None, None)
            os.kill(pid, signal.SIGCONT)
        else:
            os.waitpid(pid, 0)


def supervisor_of(box: Any, job_id: int) -> int:
    return look(box.show(job_id)["pid"]).parent


@pytest.mark.parametrize("restarted", [False, True])
def test_a_supervisor_that_nothing_wakes_is_replaced(box: Any, tmp_path: Path, restarted: bool) -> None:
    os.chmod(tmp_path, 0o755)
    script = "trap 'sleep 0.1; exit 7' TERM; setsid env -i sleep 300 & touch {ready}; while :; do sleep 0.05; done"
    ready = tmp_path / "ready"
    job_id = box.submit("-g", "1", "--retries", "0", "--", "bash", "-c", script.format(ready=ready))
    box.until(ready.exists, "it runs")
    box.until_state(job_id, "running")
    with held_by_a_debugger(supervisor_of(box, job_id)):
        box.gpuq("cancel", str(job_id), "--grace", "20s")
        if restarted:
            box.kill_daemon()
            box.up()
        box.until_state(job_id, "cancelled")
        [attempt] = box.show(job_id)["attempts"]
        assert (attempt["outcome"], attempt["exit_code"]) == ("cancelled", 7)
        told = [event["detail"] or "" for event in box.show(job_id)["events"]]
        assert any("stands still; gpuq ends the job without it" in text for text in told), told
        assert marked(box) == []

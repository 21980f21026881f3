"""Whole daemons whose attempts lose their folders, or whose home is away: each job runs once, to its own end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest


def attempts(box: Any, job_id: int) -> list[tuple[Any, Any]]:
    return [(attempt["outcome"], attempt["exit_code"]) for attempt in box.show(job_id)["attempts"]]


@pytest.fixture
def gate(box: Any) -> Path:
    """A FIFO that a job waits at; not below its home, which may be away."""
    path = box.home.with_name(box.home.name + "-gate")
    os.mkfifo(path)
    yield path
    path.unlink()


def waits_at(gate: Path) -> list[str]:
    """Without the mark of its attempt, or anything else, in its environment."""
    return ["/usr/bin/env", "-i", "/bin/bash", "-c", f"exec 3<>{gate}; read <&3; exit 7"]


def test_a_job_whose_folders_were_removed_is_adopted_runs_once_and_has_its_true_end(box: Any, gate: Path) -> None:
    job_id = box.submit("-g", "4", "--retries", "0", "--", *waits_at(gate))
    box.until_state(job_id, "running")
    shutil.rmtree(box.home / "jobs" / str(job_id))
    box.kill_daemon()
    box.up()
    waiting = box.submit("-g", "1", "--", "true")
    told = box.until(lambda: box.json("why", str(job_id))["reasons"], "the doubt is told")
    assert "its supervisor still lives" in told[0]["text"]
    assert "its supervisor still lives" in box.gpuq("doctor", code=None).stdout
    assert box.show(waiting)["state"] == "queued"
    gate.write_text("go\n")
    box.until_state(job_id, "failed")
    assert attempts(box, job_id) == [("exit_nonzero", 7)]
    box.until_state(waiting, "completed")


def test_what_ends_while_the_home_is_away_is_recorded_as_it_was(box: Any, gate: Path) -> None:
    first, second = (box.submit("-g", "1", "--retries", "0", "--", *waits_at(gate)) for _ in range(2))
    pids = [box.until_state(job_id, "running")["pid"] for job_id in (first, second)]
    record = box.home / "jobs" / str(second) / "1.records" / "started.json"
    supervisor = json.loads(record.read_text())["supervisor_pid"]
    ends = [os.pidfd_open(pid) for pid in pids]
    away = box.home.with_name(box.home.name + "-away")
    # So that it is its fork server that has to keep the end.
    os.kill(supervisor, signal.SIGSTOP)
    box.home.rename(away)
    try:
        gate.write_text("go\ngo\n")
        for end in ends:
            assert select.select([end], [], [], 20)[0]
            os.close(end)
        os.kill(supervisor, signal.SIGKILL)
        assert not box.home.exists()
    finally:
        away.rename(box.home)
    for job_id in (first, second):
        box.until_state(job_id, "failed")
        assert attempts(box, job_id) == [("exit_nonzero", 7)]

"""Reading a job's output: which attempt, which part of it, and what is no log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.attempt import logs
from gpuq.engine.attempt.logs import LogChunk, open_log, read
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.outcome.classification import TAIL_BYTES, TAIL_LINES, log_tail
from gpuq.errors import NotFound

TEXT = b"0123456789"


@pytest.fixture
def job(world: Any) -> tuple[Any, int, Path]:
    """A running job and the file of its output."""
    job_id = world.submit("a", max_retries=5)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    path = Path(world.launcher.order_of(job_id).log_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TEXT)
    return world, job_id, path


def test_a_log_is_read_from_a_place_and_on(job: Any) -> None:
    world, job_id, _ = job
    whole = LogChunk(TEXT, 0, 10, 10, 1, False)
    assert read(world.ctx, job_id) == read(world.ctx, job_id, attempt=1) == whole
    assert read(world.ctx, job_id, offset=3, limit=4) == LogChunk(b"3456", 3, 7, 10, 1, False)
    assert read(world.ctx, job_id, offset=10) == LogChunk(b"", 10, 10, 10, 1, False)
    # Somebody has made the file shorter than where the reader was.
    assert read(world.ctx, job_id, offset=50) == LogChunk(b"", 10, 10, 10, 1, False)
    assert read(world.ctx, job_id, limit=-1).data == b""


def test_a_negative_place_counts_from_the_end(job: Any) -> None:
    world, job_id, _ = job
    assert read(world.ctx, job_id, offset=-1) == LogChunk(b"9", 9, 10, 10, 1, False)
    assert read(world.ctx, job_id, offset=-10).data == TEXT
    assert read(world.ctx, job_id, offset=-11) == LogChunk(TEXT, 0, 10, 10, 1, False)


def test_no_reading_is_longer_than_a_chunk(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world, job_id, _ = job
    monkeypatch.setattr(logs, "MAX_CHUNK", 6)
    assert read(world.ctx, job_id, limit=100) == LogChunk(b"012345", 0, 6, 10, 1, False)


def test_an_earlier_attempt_keeps_its_log_and_is_final(job: Any) -> None:
    world, job_id, _ = job
    [agent] = world.agents
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    assert read(world.ctx, job_id) == LogChunk(TEXT, 0, 10, 10, 1, True)
    world.clock.forward(100)
    promote(world.ctx)
    agent.wake()
    agent.run_once()
    assert read(world.ctx, job_id) == LogChunk(b"", 0, 0, 0, 2, False)
    assert read(world.ctx, job_id, attempt=1) == LogChunk(TEXT, 0, 10, 10, 1, True)
    with pytest.raises(NotFound, match="has no attempt 3"):
        read(world.ctx, job_id, attempt=3)


def test_a_job_that_has_not_run_has_an_empty_log_which_is_final_with_the_job(world: Any) -> None:
    job_id = world.submit("a", hold=True)
    assert read(world.ctx, job_id) == LogChunk(b"", 0, 0, 0, 0, False)
    with pytest.raises(NotFound, match="has no attempt 0"):
        read(world.ctx, job_id, attempt=0)
    cancel(world.ctx, job_id, world.user)
    assert read(world.ctx, job_id) == LogChunk(b"", 0, 0, 0, 0, True)


def test_what_is_no_file_of_its_own_is_no_log(job: Any) -> None:
    world, job_id, path = job
    nothing = LogChunk(b"", 0, 0, 0, 1, False)
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    assert read(world.ctx, job_id) == nothing
    path.symlink_to(elsewhere)
    assert read(world.ctx, job_id) == nothing
    assert log_tail(str(path), None) == ""
    path.unlink()
    os.mkfifo(path)
    before = set(os.listdir("/proc/self/fd"))
    assert read(world.ctx, job_id) == nothing
    with pytest.raises(FileNotFoundError):
        open_log(str(path), None)
    assert len(set(os.listdir("/proc/self/fd"))) == len(before)


def test_the_end_of_a_log_is_its_last_lines_and_not_more_than_so_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [f"line {number}" for number in range(50)]
    path.write_text("\n".join(lines) + "\n")
    assert log_tail(str(path), None) == "\n".join(lines[-TAIL_LINES:])
    assert log_tail(str(path), None, lines=2) == "line 48\nline 49"
    path.write_bytes(b"\0first\n" + b"x" * (TAIL_BYTES - 5) + b"\nl\0st")
    assert log_tail(str(path), None) == "x" * (TAIL_BYTES - 5) + "\nlst"
    path.write_bytes(b"first" + b"y" * (TAIL_BYTES + 1))
    assert log_tail(str(path), None) == "y" * TAIL_BYTES
    assert log_tail(str(tmp_path / "absent"), None) == ""

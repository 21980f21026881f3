"""What `gpuq status` shows of fixed answers, at the widths and heights of real windows."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gpuq.cli.commands import job_columns
from gpuq.cli.commands.job_detail import index_text
from gpuq.cli.commands.status import Listing, screen
from gpuq.cli.render import full_time, local_times, when
from gpuq.errors import UsageError

RESOURCES = {"code": "Resources", "text": "needs 4 GPUs, 2 are free; job 17 gives more back about 18:20"}


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def job(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": number, "name": "llama-finetune-lora-rank-64-sweep", "user": ("alice", "bartholomew")[number % 2],
        "group": None, "state": "queued", "reason": RESOURCES, "outcome": None, "command": ["python", "train me.py"],
        "cwd": "/home/alice", "priority": "normal", "gpus": 4, "gpu_mem_mb": None, "time_limit_s": 7200,
        "attempt": 0, "array_id": None, "array_index": None, "submitted_at": "2026-11-22T10:00:00.123Z",
        "started_at": None, "finished_at": None, "stop_deadline": None, "position": number,
        "estimated_start": "2026-11-29T12:30:00.000Z", "estimated_end": None, "progress": None, "node": None,
        "gpu_indices": None, "exit_code": None, "signal": None, "error": None, **changes,
    }  # fmt: skip


def running(number: int, **changes: Any) -> dict[str, Any]:
    active = {"state": "running", "reason": None, "position": None, "estimated_start": None, "progress": 0.42}
    times = {"started_at": "2026-11-22T11:00:00.000Z", "estimated_end": "2026-11-23T18:00:00.000Z"}
    return job(number, **{**active, **times, "gpu_indices": [0, 1, 2, 3], "node": "box1", **changes})


LUMP = {"waiting": 183, "active": 3, "completed": 12, "failed": 1, "cancelled": 0, "first_index": 17, "last_index": 199}


def listing(count: int) -> Listing:
    jobs = [running(1), running(2), job(90, array_id=90, array_index=17, lump=LUMP)]
    jobs += [job(number) for number in range(300, 297 + count)]
    total = count - 1 + LUMP["waiting"]
    return Listing(jobs, total, {"running": 2, "waiting": total - 2})


@pytest.mark.parametrize("count", [5, 60, 5000])
@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("height", [24, 50, None])
def test_every_window_shows_gpus_and_a_useful_reason_and_scrolls_nothing_away(
    count: int, width: int, height: int | None
) -> None:
    lines = screen(listing(count), None, width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) == min(count + 2, height or count + 2)
    assert lines[0].split()[:2] == ["ID", "STATE"]
    assert lines[1].split()[:2] == ["1", "running"]
    assert "gpu 0-3, 42%" in lines[1]
    assert re.match(r" *90_\[17-199\]  queued", lines[3])
    assert "12 done, 3 running, 1 failed" in lines[3]
    assert "Resources: needs 4 GPUs, 2" in lines[4]
    hidden = count - (len(lines) - 2)
    assert lines[-1].startswith(f"{hidden:,} more below the window; 2 running, " if hidden else "2 running, ")


def test_elements_that_wait_apart_are_counted() -> None:
    apart = {**LUMP, "waiting": 100}
    assert job_columns.lump_text(apart) == "100 waiting, 12 done, 3 running, 1 failed"
    alone = job(9, array_id=9, array_index=4, lump={**LUMP, "waiting": 1, "first_index": 4, "last_index": 4})
    assert screen(Listing([alone], 1), ["id"], 80, None)[1].strip() == "9_4"


def test_more_room_shows_more() -> None:
    narrow, wide, wider = (screen(listing(5), None, width, None)[0].split() for width in (80, 120, 200))
    assert set(narrow) < set(wide) < set(wider)
    assert {"ID", "STATE", "USER", "GPUS", "NAME", "DETAIL"} <= set(narrow)
    assert {"PRIO", "POS", "TIME", "START"} <= set(wider)
    assert RESOURCES["text"] in screen(listing(5), None, 200, None)[4]
    # Through a pipe nothing is cut, however long.
    assert RESOURCES["text"] in screen(listing(5), None, None, None)[4]


@pytest.mark.parametrize("height", [1, 2, 3])
def test_the_smallest_window_still_counts(height: int) -> None:
    lines = screen(listing(60), None, 80, height)
    assert len(lines) <= height
    assert "more below the window" in lines[-1]


def test_named_columns_stand_as_they_are_named() -> None:
    names = job_columns.names_in("id, name,STATE,gpu,reason,command", "--format")
    head, first, *_ = screen(listing(5), names, None, None)
    assert head.split() == ["ID", "NAME", "STATE", "GPU", "REASON", "COMMAND"]
    assert first.split()[:4] == ["1", "llama-finetune-lora-rank-64-sweep", "running", "0-3"]
    assert first.endswith("python 'train me.py'")
    assert all(len(line) <= 80 for line in screen(listing(60), names, 80, None))


@pytest.mark.parametrize("name", job_columns.COLUMNS)
def test_every_column_can_be_shown_of_every_job(name: str) -> None:
    assert screen(listing(5), [name], 80, None)
    assert re.search(rf"^{name} ", job_columns.help_text(), re.M)


def test_a_column_that_there_is_not_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="GPUQ_STATUS_FORMAT: there is no column 'nme'") as refusal:
        job_columns.names_in("id,nme", "GPUQ_STATUS_FORMAT")
    assert "name" in (refusal.value.hint or "")
    with pytest.raises(UsageError, match="names no column"):
        job_columns.names_in(" , ", "--format")


def test_indices_in_a_row_are_a_range() -> None:
    assert index_text([0, 1, 2, 3, 7]) == "0-3,7"
    assert index_text([1, 0]) == "0,1"
    assert index_text(None) == ""


def test_every_moment_is_of_the_readers_clock_in_one_style() -> None:
    assert full_time("2026-11-22T23:30:00.000Z") == "2026-11-23 00:30:00"
    midnight = 1_795_388_400.0
    assert full_time("2026-11-22T23:00:00.000Z") == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(midnight))
    assert when("2026-11-22T23:30:00.000Z", now=midnight) == "00:30"
    assert when("2026-11-22T22:30:00.000Z", now=midnight) == "2026-11-22 23:30"
    told = {
        "begins in 2h, at 2026-11-22T23:30:00.123Z": "begins in 2h, at 00:30",
        "job 7 ends about 2026-11-24 23:30 UTC": "job 7 ends about 2026-11-25 00:30",
        "gpu 1 until about 23:30 UTC; gpu 2 until about 21:30 UTC": "gpu 1 until about 00:30; gpu 2 until about 22:30",
        "gpu 0 until about 22:55 UTC": "gpu 0 until about 2026-11-22 23:55",
        "job Z waits until 99:99 UTC": "job Z waits until 99:99 UTC",
        "job 7 (12:30Zebra)": "job 7 (12:30Zebra)",
    }
    assert {text: local_times(text, now=midnight) for text in told} == told

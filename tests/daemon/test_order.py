"""Eight users' jobs on a live daemon: they start in the order that `gpuq simulate` gives, as they were told."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pwd
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from box import Box

from gpuq.client.calls import Calls

# GPUs, seconds, declared seconds, priority, of one job after the other, EVERY_S apart, from one user after the other.
# Their order is that of no simpler rule, and delays of a quarter of a second do not change it.
JOBS = (
    (8, 1.8, 7.2, "normal"),
    (2, 0.9, 3.9, "normal"),
    (1, 1.8, None, "normal"),
    (1, 1.5, 5.2, "high"),
    (1, 0.5, 1.6, "high"),
    (1, 1.1, 4.8, "normal"),
    (2, 2.3, 6.9, "high"),
    (8, 2.0, None, "low"),
    (1, 2.3, 7.1, "normal"),
    (1, 1.2, 2.4, "high"),
    (8, 2.2, 7.6, "normal"),
    (2, 1.9, None, "normal"),
    (8, 2.0, 3.6, "low"),
    (8, 1.6, 5.7, "normal"),
    (1, 1.2, None, "normal"),
    (1, 2.3, 8.9, "normal"),
    (1, 0.9, 3.2, "normal"),
    (2, 2.0, 5.6, "normal"),
    (8, 0.9, 2.2, "normal"),
    (4, 1.1, 2.4, "low"),
    (8, 0.5, 2.0, "high"),
    (2, 0.7, 2.1, "high"),
    (8, 1.4, 3.1, "high"),
    (8, 0.7, None, "normal"),
)  # fmt: skip
USERS = 8
EVERY_S = 0.05


@dataclass
class Day:
    """What was seen of the live queue. Jobs by row of JOBS, times in epoch seconds."""

    ids: list[int]
    submitted: list[dict[str, Any]]
    queue: dict[str, Any]
    started: list[int]
    ended: list[dict[str, Any]]


def _names() -> list[str]:
    """Of accounts that are here anyway, because a daemon of root's runs each job as its submitter; others may take any
    names."""
    accounts = [account.pw_name for account in pwd.getpwall() if account.pw_uid != 0]
    return accounts[:USERS] if os.geteuid() == 0 else [f"user{n}" for n in range(USERS)]


@pytest.fixture(scope="module")
def day(make_boxes: Callable[..., Box]) -> Day:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    box = make_boxes(GPUQ_GPUS="sim:8")
    box.gpuq("up", "-d", "--listen", f"127.0.0.1:{port}")
    tokens = [box.json("token", "create", "test", "-u", name)["token"] for name in _names()]
    with contextlib.ExitStack() as stack:
        users = [stack.enter_context(Calls(server=f"http://127.0.0.1:{port}", token=token)) for token in tokens]
        for user in users:
            user.whoami()
        return _lived(box, users)


def _lived(box: Box, users: list[Calls]) -> Day:
    submitted: list[dict[str, Any]] = []
    begun = time.monotonic()
    for row, (gpus, seconds, limit, priority) in enumerate(JOBS):
        # The times of submission are part of the trace.
        time.sleep(max(0.0, begun + row * EVERY_S - time.monotonic()))
        spec = {
            # A letter makes each a command of its own, because a trace knows nothing of commands.
            "command": ["bash", "-c", f"sleep {seconds} # {chr(ord('a') + row)}"],
            "cwd": "/", "gpus": gpus, "time_limit_s": limit, "priority": priority,
        }  # fmt: skip
        submitted.append(users[row % USERS].post_jobs(spec, outlook=True))
    queue = users[0].queue()
    ids = [job["id"] for job in submitted]
    box.gpuq("wait", *map(str, ids))
    rows = users[0].sql("SELECT job_id FROM job_events WHERE to_state = 'starting' ORDER BY id")["rows"]
    return Day(ids, submitted, queue, [ids.index(job_id) for (job_id,) in rows], [users[0].job(one) for one in ids])


def waves(trace: Path, *options: str) -> list[set[int]]:
    """Rows that `gpuq simulate` starts at one time, one time after the other."""
    schedule = trace.with_name("schedule.csv")
    Box(trace.parent).gpuq("simulate", str(trace), "--gpus", "8", "--out", str(schedule), *options)
    found: dict[float, set[int]] = {}
    with schedule.open() as file:
        for row in csv.DictReader(file):
            found.setdefault(float(row["start_s"]), set()).add(int(row["row"]))
    return [found[start] for start in sorted(found)]


def in_waves(rows: list[int], like: list[set[int]]) -> list[set[int]]:
    rest = iter(rows)
    return [{next(rest) for _ in wave} for wave in like]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["submit_s", "duration_s", "gpus", "user", "limit_s", "priority"])
        for row, (gpus, seconds, limit, priority) in enumerate(JOBS):
            writer.writerow([row * EVERY_S, seconds, gpus, f"user{row % USERS}", limit or "", priority])
    return path


def test_jobs_start_in_the_order_that_simulate_gives(day: Day, trace: Path) -> None:
    assert [job["state"] for job in day.ended] == ["completed"] * len(JOBS)
    expected = waves(trace)
    assert in_waves(day.started, expected) == expected
    # No simpler rule would have given this order.
    for options in (["--order", "fifo", "--backfill", "none"], ["--backfill", "greedy"], ["--backfill", "none"]):
        assert (other := waves(trace, *options)) != in_waves(day.started, other)


def test_every_submission_is_answered_with_an_estimated_start(day: Day) -> None:
    assert None not in {job["estimated_start"] for job in day.submitted}


def test_reasons_name_the_job_that_is_really_in_the_way(day: Day) -> None:
    running = {job["id"]: set(job["gpu_indices"]) for job in day.queue["jobs"] if job["state"] == "running"}
    waiting = {job["id"]: job["reason"] for job in day.queue["jobs"] if job["state"] == "queued"}
    assert len(waiting) == len(JOBS) - 1
    [first] = [job_id for job_id, reason in waiting.items() if reason["code"] == "Resources"]
    # An 8-GPU job that passes those ahead of it: they would leave GPUs idle.
    assert waiting[first]["text"].endswith(
        "comes first (it needs all 8 GPUs and those before it would leave some idle)"
    )
    holders = re.findall(r"gpu (\d+) held by job (\d+)", waiting[first]["text"])
    assert holders
    for index, holder in holders:
        assert int(index) in running[int(holder)]
    for job_id, reason in waiting.items():
        if job_id != first:
            assert reason["code"] == "Priority"
            assert f"job {first} comes first (" in reason["text"]
    # And it was: nobody else started before it when the GPUs were free.
    assert day.ids[day.started[1]] == first


def test_jobs_of_a_kind_that_has_run_before_start_when_they_were_told(box: Box) -> None:
    kinds = {"short": ("-g", "4", "--", "sleep", "0.8"), "long": ("-g", "4", "--", "sleep", "1.6")}
    names = ["short", "long", "long", "short", "long", "short"]
    for kind in ("short", "short", "long", "long"):
        # A word of its own keeps the two kinds apart.
        box.until_state(box.submit("-n", kind, *kinds[kind], f"{0 if kind == 'short' else '0s'}"), "completed")
    told = [
        json.loads(box.gpuq("submit", "--json", *kinds[kind], f"{0 if kind == 'short' else '0s'}").stdout)
        for kind in names
    ]
    box.gpuq("wait", *(str(job["id"]) for job in told))
    for job in told[1:]:
        begun, submitted = epoch(box.show(job["id"])["started_at"]), epoch(job["submitted_at"])
        assert abs(epoch(job["estimated_start"]) - begun) <= 0.3 + 0.2 * (begun - submitted)


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()

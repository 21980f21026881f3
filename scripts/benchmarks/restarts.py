"""How soon gpuq is back: after SIGKILL of the daemon, with a hundred running jobs, with a hundred thousand waiting."""

from __future__ import annotations

import os
import re
import select
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Any

from daemon import GPUQ, Daemon, daemon, spec
from stats import Figure, median

ROUNDS = 5
RUNNING = 100


def restarts(waiting: int) -> list[Figure]:
    return [*_scheduling_again(), *_rehydrated(waiting)]


def _kill(box: Daemon) -> None:
    pid = box.pid()
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([fd], [], [], 60)
    os.close(fd)


def _up(box: Daemon) -> tuple[float, float]:
    """Epoch seconds of the call, and seconds until it returned: the API answers."""
    called = time.time()
    done = subprocess.run([GPUQ, "up", "-d"], env=box.env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return called, time.time() - called


def _logged(box: Daemon, words: str, since: float) -> float | None:
    """When the daemon's log first said so after that time, epoch seconds."""
    for line in (box.home / "daemon.log").read_text().splitlines():
        stamp, _, rest = line.partition(" ")
        if re.search(words, rest) and (at := datetime.fromisoformat(stamp).timestamp()) >= since:
            return at
    return None


def _scheduling_again() -> list[Figure]:
    """A job waits while the daemon is dead; its own first instruction writes down when it runs."""
    first, ready, adopted = [], [], []
    with daemon(1, GPUQ_CPU_JOBS=str(RUNNING + 1)) as box:
        with box.client() as client:
            client.submit_many([spec("sleep", "600", gpus=0) for _ in range(RUNNING)])
            _until(lambda: client.stats()["jobs"]["running"] >= RUNNING)
        for number in range(ROUNDS):
            _kill(box)
            mark = box.home / f"began-{number}"
            # Handed in without a daemon: it waits in the database.
            command = f"date +%s.%N > {mark}.draft; mv {mark}.draft {mark}"
            box.gpuq("submit", "-g", "0", "--", "sh", "-c", command)
            called, took = _up(box)
            _until(mark.exists)
            first.append(float(mark.read_text()) - called)
            ready.append(took)
            at = _logged(box, f"adopted {RUNNING} running jobs", called)
            adopted.append(at - called if at is not None else float("nan"))
    return [
        Figure("SIGKILL of the daemon: `up` called → a waiting job runs", median(first), "s"),
        Figure("the same: `up -d` called → returned, the API answers", median(ready), "s"),
        Figure(f"the same: `up` called → {RUNNING} running jobs adopted", median(adopted), "s"),
    ]


def _rehydrated(waiting: int) -> list[Figure]:
    with daemon(1) as box:
        box.gpuq("pause")
        with box.client() as client:
            for _ in range(waiting // 10_000):
                client.submit_many([spec("true") for _ in range(10_000)])
        box.gpuq("resume")
        _kill(box)
        called, _ = _up(box)
        _until(lambda: _logged(box, "hot store rebuilt", called) is not None)
        log = (box.home / "daemon.log").read_text().splitlines()
        line = [row for row in log if f"{waiting} jobs wait" in row][-1]
        took = float(re.findall(r"in ([0-9.]+) s", line)[0])
        done = datetime.fromisoformat(line.partition(" ")[0]).timestamp()
        with closing(sqlite3.connect(f"file:{box.home}/gpuq.db?mode=ro", uri=True)) as base:
            first = _until(lambda: base.execute("select min(claimed_at) from attempts").fetchone()[0])
    return [
        Figure(f"{waiting:,} waiting jobs read back into an empty Redis", took, "s"),
        Figure("the same: from then to the first start ", first - done, "s"),
    ]


def _until(condition: Callable[[], Any], timeout_s: float = 120.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
    return found

"""A year later: a database with a million finished and a hundred thousand waiting jobs, asked everything.

    scripts/bench growth [--finished 1000000] [--waiting 100000] [--upgrade]

Builds the database, starts a real daemon on it and asks. Goals are of the daemon's CPU time unless they name another
unit: the wall time of a busy machine tells about the machine. Everything is made in a folder of its own, which is
removed; it takes up to three gigabytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import growth_database as database
from daemon import GPUQ, Daemon, spec
from stats import median

from gpuq.client.calls import Calls

ROUNDS = 5
DAY_S = 86400.0
MB = 1 << 20


@dataclass(frozen=True)
class Line:
    """One measured thing. `goal` None: told for comparison."""

    name: str
    measured: float
    unit: str
    goal: float | None = None
    wall_ms: float | None = None

    def row(self) -> str:
        held = "" if self.goal is None else "yes" if self.measured <= self.goal else "**no**"
        wall = "" if self.wall_ms is None else f"{self.wall_ms:,.1f}"
        goal = "" if self.goal is None else f"≤ {self.goal:g}"
        return f"| {self.name} | {goal} | {self.measured:,.1f} {self.unit} | {wall} | {held} |"


class Growth:
    """The questions, on a running daemon."""

    def __init__(self, box: Daemon, size: database.Size) -> None:
        self.box = box
        self.size = size
        self.client = box.client()
        self.pid = box.pid()
        self.lines: list[Line] = []

    def cpu_s(self) -> float:
        # The clock of all threads of another process: see clock_getcpuclockid(3).
        return time.clock_gettime(~self.pid << 3 | 2)

    def rss_mb(self) -> float:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def tell(self, line: Line) -> None:
        self.lines.append(line)
        print(line.row(), flush=True)

    def ask(self, name: str, goal: float | None, question: Callable[[], object]) -> None:
        """The first answer warms what is kept and is not counted."""
        question()
        cpu, wall = [], []
        for _ in range(ROUNDS):
            begin, used = time.perf_counter(), self.cpu_s()
            question()
            cpu.append((self.cpu_s() - used) * 1e3)
            wall.append((time.perf_counter() - begin) * 1e3)
        self.tell(Line(name, median(cpu), "ms", goal, median(wall)))

    def get(self, path: str, **query: object) -> Any:
        return self.client.call("GET", path, query={key: value for key, value in query.items() if value is not None})

    def lists(self) -> None:
        user = self.someone("queued")
        self.ask("GET /stats", 20, lambda: self.get("/stats"))
        self.ask("GET /metrics", 10, lambda: self.client.send("GET", "/metrics"))
        self.ask("GET /queue, 100 jobs", 20, lambda: self.get("/queue", limit=100))
        self.ask("GET /queue, 100 jobs of a user", 20, lambda: self.get("/queue", limit=100, user=user))
        last = self.get("/queue", limit=1, offset=self.size.waiting // 2)["jobs"][-1]["id"]
        self.ask("GET /queue, 100 jobs from the middle on", 20, lambda: self.get("/queue", limit=100, after_id=last))
        far = self.size.waiting // 2
        self.ask("GET /queue, 100 jobs by offset", 20, lambda: self.get("/queue", limit=100, offset=far))
        self.ask(
            "GET /jobs, 100 of a user after an id", 20, lambda: self.jobs(user=user, after_id=self.size.finished // 2)
        )
        self.ask("GET /jobs, failed, the newest 100", 20, lambda: self.jobs(state="failed", newest_first="true"))
        self.ask("gpuq status", 20, lambda: self.box.gpuq("status"))

    def jobs(self, **query: object) -> Any:
        return self.get("/jobs", limit=100, **query)

    def someone(self, state: str) -> str:
        """The user with the most jobs in that state."""
        with closing(sqlite3.connect(f"file:{self.box.home}/gpuq.db?mode=ro", uri=True)) as connection:
            question = 'SELECT "user" FROM jobs WHERE state = ? GROUP BY 1 ORDER BY count(*) DESC LIMIT 1'
            return str(connection.execute(question, (state,)).fetchone()[0])

    def history(self) -> None:
        user, now = self.someone("completed"), time.time()
        filters: dict[str, dict[str, object]] = {
            "": {},
            "since a day": {"since": now - DAY_S},
            "until half a year ago": {"until": now - 180 * DAY_S},
            "a week half a year ago": {"since": now - 187 * DAY_S, "until": now - 180 * DAY_S},
            "of a user": {"user": user},
            "cancelled": {"state": "cancelled"},
            "failed and cancelled of a user": {"user": user, "state": "failed,cancelled"},
            "of a group": {"group": "team-11"},
            "a common name": {"name": "train-model-0"},
            "a rare name": {"name": "run-77"},
            "no such name": {"name": "nothing"},
            "no such group": {"group": "nobody"},
            "a user, a group, a month": {"user": user, "group": "team-3", "since": now - 30 * DAY_S},
            "a user and another's group": {"user": user, "group": "team-11"},
            "a name of a user, failed, since a month": {
                "user": user, "name": "train-model-1", "state": "failed", "since": now - 30 * DAY_S,
            },
        }  # fmt: skip
        for name, query in filters.items():
            self.ask(f"GET /history, 50: {name or 'all'}", 50, lambda q=query: self.get("/history", limit=50, **q))
        last = self.get("/history", limit=1, until=now - 180 * DAY_S)[-1]["id"]
        self.ask("GET /history, 50: after a job", 50, lambda: self.get("/history", limit=50, after_id=last))

    def reports(self) -> None:
        since = time.time() - 30 * DAY_S
        for kind in ("usage", "waits", "failures", "utilization"):
            for by in ("user", "group", "gpu", "day"):
                self.ask(
                    f"report {kind} --by {by}, 30 days", 500,
                    lambda kind=kind, by=by: self.client.report(kind, by=by, since=since),
                )  # fmt: skip

    def dispatches(self) -> None:
        """Urgent jobs run past the line, for which too little is free."""
        small = spec("true", priority="critical", time_limit_s=1)
        last = self.client.queue(limit=1, offset=5)["jobs"][-1]["id"]
        self.ask("why of a waiting job", None, lambda: self.client.why(last))
        self.ask("a submission with its outlook", 15, lambda: self.client.post_jobs(spec("true", gpus=3), outlook=True))
        self.ask("a submission", None, lambda: self.client.post_jobs(spec("true", gpus=3)))
        self.ask("one job from submission to end", None, lambda: self._until_ended(small))
        self.ask("gpuq doctor", None, lambda: self.box.gpuq("doctor", check=False))

    def _until_ended(self, wanted: dict[str, Any]) -> None:
        self.client.wait(self.client.post_jobs(wanted)["id"], timeout_s=30)

    def memory(self, idle_mb: float) -> None:
        """What lists of everything leave behind."""
        for words in (("status", "-a", "--json"), ("history", "--all", "--json"), ("report", "waits")):
            subprocess.run([GPUQ, *words], env=self.box.env, stdout=subprocess.DEVNULL, check=True)
            self.tell(Line(f"RSS after gpuq {' '.join(words)}", self.rss_mb(), "MB", 200))
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert peak is not None
        self.tell(Line("RSS at its highest", int(peak[1]) / 1024, "MB", 200))
        self.tell(Line("RSS above that at the start", self.rss_mb() - idle_mb, "MB", 30))


def _restart(box: Daemon) -> float:
    """Seconds from `up` to the first answer."""
    begin = time.perf_counter()
    box.gpuq("up", "-d")
    box.client().call("GET", "/stats")
    return time.perf_counter() - begin


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gpuq-growth-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def upgrade(folder: Path, size: database.Size) -> Line:
    """From the first release's schema."""
    home = folder / "first"
    database.make(home, size, revision="0001")
    box = Daemon(home, database.GPUS, {})
    begin = time.perf_counter()
    done = box.gpuq("db", "upgrade")
    took = time.perf_counter() - begin
    print(done.stderr, file=sys.stderr)
    shutil.rmtree(home)
    return Line("gpuq db upgrade from the first schema", took, "s", 60)


def measure(folder: Path, size: database.Size) -> list[Line]:
    begin = time.perf_counter()
    path = database.make(folder / "home", size)
    box = Daemon(folder / "home", database.GPUS, {})
    print(f"made in {time.perf_counter() - begin:.0f} s; load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print("| what | goal | measured | wall, ms | held |\n|---|---|---|---|---|")
    each = path.stat().st_size / size.jobs
    try:
        # One GPU is held, so that the line, which asks for all, waits.
        box.gpuq("submit", "-g", "1", "-p", "critical", "--", "sleep", "3600")
        took = _restart(box)
        asked = Growth(box, size)
        started_s = asked.cpu_s()
        asked.tell(Line("database, of each job", each, "bytes", 900))
        asked.tell(Line("up to the first answer", started_s * 1e3, "ms", 2000, took * 1e3))
        _settle(box.client())
        idle_mb = asked.rss_mb()
        asked.tell(Line("RSS at the start", idle_mb, "MB", 200))
        asked.lists()
        asked.history()
        asked.reports()
        asked.dispatches()
        asked.memory(idle_mb)
        return asked.lines
    finally:
        box.gpuq("down", "--stop-jobs", check=False)


def _settle(client: Calls) -> None:
    """Until the hot queue is rebuilt and the blocker runs."""
    deadline = time.monotonic() + 60
    while client.stats()["jobs"]["running"] < 1:
        if time.monotonic() > deadline:
            raise TimeoutError("the first job does not start")
        time.sleep(0.1)


def main(words: list[str]) -> int:
    """0 when every goal is held."""
    parser = argparse.ArgumentParser(prog="scripts/bench growth", description=__doc__)
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--upgrade", action="store_true", help="also upgrades a database of the first release")
    options = parser.parse_args(words)
    size = database.Size(options.finished, options.waiting)
    with _folder() as folder:
        lines = measure(folder, size)
        shutil.rmtree(folder / "home", ignore_errors=True)
        if options.upgrade:
            lines.append(upgrade(folder, size))
            print(lines[-1].row())
    missed = [line.name for line in lines if line.goal is not None and line.measured > line.goal]
    print(f"{len(missed)} of {len(lines)} goals missed: {', '.join(missed) or 'none'}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

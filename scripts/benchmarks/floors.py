"""What nobody can beat on this machine: measured in the same run."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile

from stats import Figure, median, noise, timed


def floors() -> list[Figure]:
    return [_fork_exec(), _python(), commit()]


def _fork_exec() -> Figure:
    def once() -> None:
        pid = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(pid, 0)

    return _floor("spawn and wait for `true`", timed(once, 200))


def _python() -> Figure:
    def once() -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    return _floor("`python -c pass`", timed(once, 30))


def commit(when: str = "") -> Figure:
    """On a busy disk this changes by the minute, and everything that is durable with it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        base = sqlite3.connect(f"{folder}/x.db", isolation_level=None)
        base.execute("pragma journal_mode=wal")
        base.execute("pragma synchronous=full")
        base.execute("create table t (a text)")

        def once() -> None:
            base.execute("begin immediate")
            base.execute("insert into t values ('x')")
            base.execute("commit")

        seconds = timed(once, 500)
        base.close()
    return _floor(f"one SQLite commit with fsync{when}", seconds)


def _floor(name: str, seconds: list[float]) -> Figure:
    return Figure(f"floor: {name}", median(seconds) * 1e3, "ms", f"median of {len(seconds)}", noise(seconds))

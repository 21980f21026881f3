"""What is submitted: jobs of many shapes, drawn from a seeded generator."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any

JOB = str(Path(__file__).parent / "job.py")
KILL_GRACE_S = 1.0
# Exit codes that mean something to gpuq's own commands, and some that do not.
CODES = (1, 2, 3, 42, 124, 125, 255)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGABRT, signal.SIGUSR1, signal.SIGKILL)
ORDINARY = {
    "well": 30,
    "long": 8,
    "code": 8,
    "signal": 6,
    "flaky": 8,
    "stray": 6,
    "deaf_stray": 4,
    "deaf": 5,
    "loud": 5,
}
# They leave somebody who hides, suspend their supervisor, remove their folder or talk in the daemon's name.
UNUSUAL = {"escapee": 5, "suspends": 2, "tidy": 4, "tidies_all": 3, "meddles": 4}
PRIORITIES = ("critical", "high", "normal", "normal", "normal", "low")


class Shapes:
    """`folder`: where the jobs keep their diary. Every submission has a name of its own."""

    def __init__(self, random: Random, folder: Path, gpus: int) -> None:
        self._random = random
        self._folder = folder
        self._gpus = gpus
        self._number = 0

    def draw(self, known: list[int]) -> dict[str, Any]:
        """The JSON of one submission. `known`: ids of earlier jobs that it may wait for."""
        random = self._random
        self._number += 1
        shape, seconds, codes = self._behaviour()
        spec: dict[str, Any] = {
            "name": f"chaos-{self._number}",
            "command": [sys.executable, "-I", "-S", JOB, str(self._folder), shape, f"{seconds:.2f}", *map(str, codes)],
            "cwd": "/",
            "env": {"PATH": os.environ["PATH"]},
            "gpus": random.choices(range(self._gpus + 1), weights=[3, 5, *[2] * (self._gpus - 1)])[0],
            "priority": random.choice(PRIORITIES),
            "max_retries": random.choice((0, 0, 1, 2, 3)),
            "kill_grace_s": KILL_GRACE_S,
        }
        spec.update(self._extras(known))
        return spec

    def _behaviour(self) -> tuple[str, float, list[int]]:
        random = self._random
        kind = random.choices((*ORDINARY, *UNUSUAL), weights=(*ORDINARY.values(), *UNUSUAL.values()))[0]
        short = random.uniform(0.02, 0.8)
        if kind == "long":
            return "plain", random.uniform(2.0, 5.0), [0]
        if kind == "code":
            return "plain", short, [random.choice(CODES)]
        if kind == "signal":
            return "plain", short, [-int(random.choice(SIGNALS))]
        if kind == "flaky":
            return "plain", short, [random.choice(CODES), random.choice((0, -int(signal.SIGABRT))), 0]
        if kind == "deaf":
            return "deaf", random.uniform(1.0, 6.0), [random.choice((0, 0, 7))]
        return ("plain" if kind == "well" else kind), short, [random.choice((0, 0, 0, 5))]

    def _extras(self, known: list[int]) -> dict[str, Any]:
        random = self._random
        extras: dict[str, Any] = {}
        what = random.choices(
            ("none", "time", "after", "after_any", "array", "hold", "key", "begin", "preemptible"),
            weights=(50, 8, 8, 5, 5, 6, 6, 4, 4),
        )[0]
        if what == "time":
            extras["time_limit_s"] = random.choice((0.5, 1.0, 60.0))
        elif what in {"after", "after_any"} and known:
            extras[what] = random.sample(known, min(len(known), random.choice((1, 1, 2))))
        elif what == "array":
            extras["array"] = random.choice(("0-3", "0-5%2", "1-7:3"))
        elif what == "hold":
            extras["hold"] = True
        elif what == "key":
            extras["key"] = f"key-{random.randrange(12)}"
        elif what == "preemptible":
            extras["preemptible"] = True
        elif what == "begin":
            extras["begin"] = "soon"
        return extras

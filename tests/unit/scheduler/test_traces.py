"""Real traces against an independent simulator, and against the goals for this scheduler."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.commands.replay import read_trace
from gpuq.scheduler.simulate import TraceJob, simulate, summary

DATA = Path(__file__).parent / "data"
TEAMS = ["team-a-0", "team-a-1", "team-a-2", "team-a-3"]
# Mean wait and longest wait of an 8-GPU job, seconds: strict first in first out, greedy, EASY with exact run times.
TABLE = {
    "team-a-0": ((231242, 399524), (156509, 424580), (177537, 354021)),
    "team-a-1": ((558874, 1073762), (519652, 1072509), (516977, 1072509)),
    "team-a-2": ((140038, 379376), (44436, 551863), (54551, 252227)),
    "team-a-3": ((407236, 1255134), (245444, 1110125), (273709, 1112449)),
    "tiresias-60": ((1378, 3686), (537, 3286), (676, 3103)),
}


@cache
def trace(name: str) -> list[TraceJob]:
    return read_trace(DATA / f"{name}.csv.gz")


@cache
def ours(name: str, declared: bool = True) -> dict[str, float]:
    jobs = trace(name) if declared else [replace(job, limit_s=None) for job in trace(name)]
    return summary(simulate(jobs))


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(
    ("column", "how"),
    [(0, {"backfill": "none"}), (1, {"backfill": "greedy"}), (2, {"backfill": "easy", "expect": "exact"})],
    ids=["fifo", "greedy", "easy"],
)
def test_an_independent_simulator_agrees(name: str, column: int, how: dict[str, Any]) -> None:
    numbers = summary(simulate(trace(name), order="fifo", **how))
    mean, largest = TABLE[name][column]
    assert numbers["mean_wait_s"] == pytest.approx(mean, rel=1e-3)
    assert numbers["largest_max_wait_s"] == pytest.approx(largest, rel=1e-3)


def test_declared_times_more_than_halve_the_mean_wait() -> None:
    ratios = [ours(name)["mean_wait_s"] / TABLE[name][1][0] for name in TEAMS]
    assert geometric_mean(ratios) <= 0.46
    assert max(ratios) <= 1.01


def test_the_biggest_jobs_wait_at_most_a_fifth_longer_than_in_strict_order() -> None:
    assert geometric_mean([ours(name)["largest_max_wait_s"] / TABLE[name][0][1] for name in TEAMS]) <= 1.2


def test_without_declarations_the_mean_wait_is_about_that_of_greedy() -> None:
    ratios = [ours(name, declared=False)["mean_wait_s"] / TABLE[name][1][0] for name in TEAMS]
    assert geometric_mean(ratios) <= 1.02

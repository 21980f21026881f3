"""Medians and ratios; nothing here knows what is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number. `goal` is what the project wants of it, as text."""

    name: str
    value: float
    unit: str
    detail: str = ""
    goal: str = ""

    def row(self) -> str:
        value = f"{self.value:,.0f}" if self.value >= 1000 else f"{self.value:.3g}"
        return f"| {self.name} | {value} {self.unit} | {self.detail} | {self.goal} |"

    def to_json(self) -> dict[str, object]:
        return asdict(self)


HEAD = "| what | measured | how | goal |\n|---|---|---|---|"


def quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def timed(work: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each round."""
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return seconds


def median(values: Sequence[float]) -> float:
    return statistics.median(values)

"""Medians and ratios; nothing here knows what is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number. `noise`: by how much of itself another run would give another one, see `noise`."""

    name: str
    value: float
    unit: str
    detail: str = ""
    noise: float = 0.0

    def row(self) -> str:
        value = f"{self.value:,.0f}" if self.value >= 1000 else f"{self.value:.3g}"
        return f"| {self.name} | {value} {self.unit} | {self.detail} |"

    def to_json(self) -> dict[str, object]:
        return asdict(self)


HEAD = "| what | measured | how |\n|---|---|---|"


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


def noise(values: Sequence[float]) -> float:
    """About a 95 % interval of the median, as a share of it: 1.57 x interquartile range / sqrt(n). Source: the notches
    of box plots, McGill, Tukey and Larsen, The American Statistician 32 (1978)."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return 1.57 * (high - low) / len(values) ** 0.5 / statistics.median(values)

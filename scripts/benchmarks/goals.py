"""What the project wants of each figure, and whether a run reached it. Pure: figures in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stats import Figure

# Measured at the beginning and at the end of a run: as much as these differ, the machine itself changed.
DRIFT = "floor: one SQLite commit with fsync"
REACHED, NOISE, MISSED = "reached", "within the noise", "**missed**"


@dataclass(frozen=True)
class Goal:
    """`limit`: in the figure's unit, or as a multiple of the figure `of`; `most`: whether less is better."""

    limit: float
    most: bool = True
    of: str = ""

    def text(self) -> str:
        number = f"{self.limit:,.0f}" if self.limit >= 1000 else f"{self.limit:g}"
        return f"{'≤' if self.most else '≥'} {number}" + (f" × {self.of}" if self.of else "")


GOALS: dict[str, tuple[Goal, ...]] = {
    "dispatch, p50": (Goal(4.5), Goal(1.1, of="gq-local, dispatch, p50")),
    "dispatch, p95": (Goal(8),),
    "throughput, one by one": (
        Goal(350, most=False),
        Goal(1, most=False, of="gq-local, throughput"),
        Goal(1, most=False, of="rq, throughput"),
    ),
    "throughput, a batch drained": (Goal(450, most=False),),
    "processor time, one by one": (Goal(4),),
    "processor time, a batch drained": (Goal(3.2),),
    "left on disk, one by one": (Goal(3),),
    "left on disk, a batch drained": (Goal(3),),
    "submission, one by one": (Goal(1200, most=False),),
    "submission, four clients together": (Goal(1500, most=False),),
    "submission, batch": (Goal(30_000, most=False),),
    "submission, memory of 50,000 at once": (Goal(250),),
    "submission, memory kept afterwards": (Goal(30),),
    "`gpuq status`": (Goal(4),),
    "`gpuq submit`": (Goal(4),),
    "`gpuq status`, 100,000 waiting": (Goal(4),),
    "`gpuq submit`, 100,000 waiting": (Goal(4),),
    "depth: dispatch with 100,000 waiting": (Goal(2),),
    "depth: Redis per waiting job": (Goal(200),),
    "SIGKILL of the daemon: `up` called → a waiting job runs": (Goal(2),),
    "the same: `up` called → 100 running jobs adopted": (Goal(2),),
    "100,000 waiting jobs read back into an empty Redis": (Goal(5),),
    **{f"storm: {verb}": (Goal(2),) for verb in ("hold", "release", "top", "update", "cancel", "retry")},
    "watching: processor": (Goal(0.3),),
    "watching: p95": (Goal(100),),
    **{
        f"page: {view}": (Goal(300),)
        for view in ("now", "now, of one user", "lanes", "job", "history", "dead letters", "reports", "admin")
    },
    "page: memory": (Goal(15),),
    "page: processor": (Goal(1),),
    "page: told": (Goal(2000),),
    "idle: processor": (Goal(0.1),),
    "idle: resident": (Goal(80),),
    "supervisor: memory": (Goal(12),),
}


@dataclass(frozen=True)
class Verdict:
    figure: Figure
    goal: Goal
    limit: float
    noise: float
    word: str

    def row(self) -> str:
        f = self.figure
        value = f"{f.value:,.0f}" if f.value >= 1000 else f"{f.value:.3g}"
        ratio = f.value / self.limit if self.limit else float("nan")
        return f"| {f.name} | {self.goal.text()} | {value} {f.unit} | {ratio:.2f} | ±{self.noise:.0%} | {self.word} |"


HEAD = "| what | goal | measured | ratio to the goal | noise | |\n|---|---|---|---|---|---|"


def judge(figures: Sequence[Figure]) -> list[Verdict]:
    """One for each goal whose figure was measured, and whose peer was too. A goal is missed when the figure is beyond
    it by more than its own noise and the drift of the machine together."""
    drift = _drift(figures)
    found = []
    for figure in figures:
        for goal in GOALS.get(figure.name, ()):
            base = _of(figures, goal.of)
            if base is not None:
                noise = figure.noise + drift + (base.noise if goal.of else 0.0)
                found.append(_verdict(figure, goal, goal.limit * (base.value if goal.of else 1.0), noise))
    return found


def missed(verdicts: Sequence[Verdict]) -> list[str]:
    return [verdict.figure.name for verdict in verdicts if verdict.word == MISSED]


def _verdict(figure: Figure, goal: Goal, limit: float, noise: float) -> Verdict:
    over = figure.value / limit - 1 if goal.most else limit / figure.value - 1
    return Verdict(figure, goal, limit, noise, REACHED if over <= 0 else NOISE if over <= noise else MISSED)


def _of(figures: Sequence[Figure], peer: str) -> Figure | None:
    """The peer's figure; its name has a version in it. Without a peer anything will do."""
    if not peer:
        return figures[0]
    title, _, what = peer.partition(", ")
    return next((f for f in figures if f.name.startswith(f"peer: {title} ") and f.name.endswith(f", {what}")), None)


def _drift(figures: Sequence[Figure]) -> float:
    """How much the slowest of the floors differs from the median one, as a share of it."""
    values = sorted(figure.value for figure in figures if figure.name.startswith(DRIFT))
    return values[-1] / values[len(values) // 2] - 1 if len(values) > 1 else 0.0

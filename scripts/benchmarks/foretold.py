"""How far off are run times and starts, as they are told when a job is submitted? On the tests' team traces."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from stats import Figure, median, quantile

from gpuq.cli.commands.replay import read_trace
from gpuq.scheduler.expect import Expectations
from gpuq.scheduler.forecast import forecast
from gpuq.scheduler.simulate import Placement, TraceJob, finished_run, simulate
from gpuq.scheduler.snapshot import Snapshot

DATA = Path(__file__).parents[2] / "tests/unit/scheduler/data"
# A relative error of a wait that was next to nothing says nothing.
SHORTEST_WAIT_S = 60.0


def foretold(every: int) -> list[Figure]:
    """Run times of all jobs, and the starts of every `every`-th."""
    traces = [read_trace(path) for path in sorted(DATA.glob("team-a-*.csv.gz"))]
    errors: dict[str, list[float]] = defaultdict(list)
    starts: list[float] = []
    for jobs in traces:
        told: dict[int, float] = {}

        def watch(job: TraceJob, snapshot: Snapshot, now: float, told: dict[int, float] = told) -> None:
            if job.row % every == 0:
                told[job.row] = forecast(snapshot, now).start[job.row] - now

        placed = simulate(jobs, watch=watch).placements
        starts += [
            abs(told[one.job.row] - one.wait_s) / one.wait_s
            for one in placed
            if one.job.row in told and one.wait_s >= SHORTEST_WAIT_S
        ]
        for source, ratio in _run_times(placed):
            errors[source].append(ratio)
    errors = {"all": [ratio for ratios in errors.values() for ratio in ratios], **errors}
    found = [
        Figure(f"run time, {source}", median(ratios), "×", f"p90 {quantile(ratios, 0.9):.3g} ×, {len(ratios)} jobs")
        for source, ratios in errors.items()
    ]
    how = f"p90 {quantile(starts, 0.9):.3g}, {len(starts)} jobs that waited at least {SHORTEST_WAIT_S:.0f} s"
    return [*found, Figure("start, error over the real wait", median(starts), "", how)]


def _run_times(placed: list[Placement]) -> list[tuple[str, float]]:
    """What each expectation rested on, and the larger of expected over real and real over expected; as known when the
    job was submitted. Runs shorter than a second count as one."""
    known = Expectations()
    ends = sorted(placed, key=lambda one: one.end_s)
    found, ended = [], 0
    for one in sorted(placed, key=lambda one: (one.job.submit_s, one.job.row)):
        while ended < len(ends) and ends[ended].end_s <= one.job.submit_s:
            known.learn(finished_run(ends[ended]))
            ended += 1
        expected = known.expect(one.job.user, (), one.job.gpus, one.job.limit_s, use_median=True)
        real = max(one.job.run_s, 1.0)
        found.append((_kind(expected.source), max(expected.seconds / real, real / expected.seconds)))
    return found


def _kind(source: str) -> str:
    """The words of the source without names and numbers."""
    if source.startswith("its --time"):
        return "capped by its --time"
    if source.endswith(("everyone", "nothing known yet")):
        return "of everyone, or nothing known"
    if source.endswith("this --time"):
        return "of the user on as many GPUs with this --time"
    return "of the user on as many GPUs" if " on " in source else "of the user"

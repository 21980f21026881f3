"""A trace of jobs replayed through the plan in virtual time, without preemption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import inf
from statistics import median
from typing import Literal

from gpuq.domain.outcome import Outcome
from gpuq.domain.priority import Priority, Ranking
from gpuq.domain.window import Window
from gpuq.ports.history import FinishedRun
from gpuq.scheduler.decide import decide
from gpuq.scheduler.expect import Expectation, Expectations
from gpuq.scheduler.order import Line
from gpuq.scheduler.placement import positions
from gpuq.scheduler.snapshot import Candidate, Device, Holding, Policy, Snapshot

Order = Literal["aged", "fifo"]
Backfill = Literal["easy", "greedy", "none"]
Knowledge = Literal["history", "exact"]
Watch = Callable[["TraceJob", Snapshot, float], None]


@dataclass(frozen=True, slots=True)
class TraceJob:
    """`row`: data row of the trace, from 0. Times in seconds from the trace's beginning; `limit_s` is the declared
    --time, None for a job that declares nothing."""

    row: int
    submit_s: float
    duration_s: float
    gpus: int
    user: str = ""
    limit_s: float | None = None
    priority: Priority = Priority.NORMAL

    @property
    def run_s(self) -> float:
        """A job is killed at its limit, so that it never runs longer."""
        return self.duration_s if self.limit_s is None else min(self.duration_s, self.limit_s)


@dataclass(frozen=True, slots=True)
class Placement:
    """`gpus`: indices on the node."""

    job: TraceJob
    start_s: float
    end_s: float
    node: int
    gpus: tuple[int, ...]

    @property
    def wait_s(self) -> float:
        return self.start_s - self.job.submit_s


def finished_run(placed: Placement) -> FinishedRun:
    """What expectations learn from a job of a trace, which names no command."""
    job = placed.job
    return FinishedRun(
        job_id=job.row,
        user=job.user,
        gpus=job.gpus,
        command=(),
        time_limit_s=job.limit_s,
        outcome=Outcome.SUCCEEDED,
        run_s=job.run_s,
        finished_at=placed.end_s,
    )


@dataclass(frozen=True, slots=True)
class Replay:
    """`placements` by row. `impossible`: jobs that ask for more GPUs than a node has; they take no part."""

    placements: list[Placement]
    impossible: list[TraceJob]
    gpus: int
    nodes: int


def simulate(
    jobs: Sequence[TraceJob],
    *,
    gpus: int = 8,
    nodes: int = 1,
    order: Order = "aged",
    backfill: Backfill = "easy",
    expect: Knowledge = "history",
    priority_aging_s: float | None = None,
    user_spacing_s: float = 0.0,
    window: Window | None = None,
    watch: Watch | None = None,
) -> Replay:
    """`expect`: what reservations know of run times; `exact` is the truth, `history` what has ended by then.
    `priority_aging_s`: seconds of waiting that are worth a step of priority; None: priorities are strict.
    `user_spacing_s`: how much later a job stands for each waiting job of its user. `window`: a planned
    drain of all nodes, in the trace's seconds; a job may take as long as it declares, or, where `expect` is exact, as
    long as it does. `watch` is shown every job as it arrives, what a forecast sees then, and the time."""
    possible = [job for job in jobs if job.gpus <= gpus]
    policy = Policy(backfill=backfill, ranking=Ranking(order, priority_aging_s, user_spacing_s))
    run = _Run(gpus, nodes, policy, expect, window, watch)
    placements = run.all(sorted(possible, key=lambda job: (job.submit_s, job.row)))
    placements.sort(key=lambda placement: placement.job.row)
    return Replay(placements, [job for job in jobs if job.gpus > gpus], gpus, nodes)


class _Run:
    def __init__(
        self, gpus: int, nodes: int, policy: Policy, expect: Knowledge, window: Window | None, watch: Watch | None
    ) -> None:
        self._gpus = gpus
        self._watch = watch
        self._ranking = policy.ranking
        self._waiting: Counter[str] = Counter()
        self._policy = policy
        self._expectations = Expectations() if expect == "history" else None
        self._devices = [
            Device(uuid=f"{node}:{index}", index=index, memory_mb=0, node=node)
            for node in range(nodes)
            for index in range(gpus)
        ]
        self._free = len(self._devices)
        self._window = window
        self._longest = _exactly if expect == "exact" else _declared
        # What a job's shape says must not change while it waits.
        self._line = Line((), policy, ends_in=None if window is None else self._longest)
        self._jobs: dict[int, TraceJob] = {}
        self._holdings: dict[int, Holding] = {}
        self._placed: dict[int, Placement] = {}
        self._ends: list[tuple[float, int]] = []
        # A reservation that rests on the truth needs no slack.
        self._promises: dict[int, float] | None = None if expect == "exact" else {}
        self._known: dict[tuple[str, int, float | None, bool], Expectation] = {}

    def all(self, arrivals: Sequence[TraceJob]) -> list[Placement]:
        coming = 0
        now = -inf
        while True:
            times = [arrivals[coming].submit_s] if coming < len(arrivals) else []
            if self._line.shapes and self._window is not None and (moment := self._window.next_moment(now)) is not None:
                times.append(moment)
            if self._ends:
                times.append(self._ends[0][0])
            if not times:
                break
            now = min(times)
            while self._ends and self._ends[0][0] <= now:
                self._finish(heappop(self._ends)[1])
            new = coming
            while coming < len(arrivals) and arrivals[coming].submit_s <= now:
                self._submit(arrivals[coming])
                coming += 1
            if self._watch is not None:
                for job in arrivals[new:coming]:
                    self._watch(job, self._snapshot(now, use_median=True), now)
            if self._line.shapes:
                self._plan(now)
        return list(self._placed.values())

    def _submit(self, job: TraceJob) -> None:
        self._jobs[job.row] = job
        self._line.add(
            Candidate(
                id=job.row,
                score=self._ranking.score(job.priority, job.submit_s, job.limit_s, self._waiting[job.user]),
                priority=job.priority,
                user=job.user,
                gpus=job.gpus,
                expected_s=job.run_s,
                time_limit_s=job.limit_s,
                submitted_at=job.submit_s,
            )
        )
        self._waiting[job.user] += 1

    def _finish(self, row: int) -> None:
        job = self._jobs.pop(row)
        del self._holdings[row]
        self._free += job.gpus
        if self._expectations is not None:
            self._expectations.learn(finished_run(self._placed[row]))
            self._known.clear()

    def _plan(self, now: float) -> None:
        if self._free == 0 and self._policy.backfill != "easy" and all(shape.gpus for shape in self._line.shapes):
            return
        decision = decide(self._snapshot(now), now)
        if self._promises is not None and decision.first is not None:
            self._promises.setdefault(decision.first.job.id, decision.first.at)
        for candidate, mask in decision.starts:
            self._start(candidate, mask, now)

    def _snapshot(self, now: float, *, use_median: bool = False) -> Snapshot:
        """`use_median`: with medians and their spans, as a forecast wants it."""
        expected = self._expected(use_median)
        return Snapshot(
            devices=self._devices,
            holdings=self._as_seen(now, use_median),
            waiting=self._line,
            policy=self._policy,
            expected=None if expected is None else lambda job: expected(job).seconds,
            promises=self._promises,
            window=self._window,
            longest=self._longest,
            span=None if expected is None else lambda job: expected(job).span,
        )

    def _start(self, candidate: Candidate, mask: int, now: float) -> None:
        self._line.remove(candidate)
        self._waiting[candidate.user] -= 1
        if self._promises is not None:
            self._promises.pop(candidate.id, None)
        job = self._jobs[candidate.id]
        chosen = list(positions(mask))
        devices = [self._devices[at] for at in chosen]
        self._free -= len(devices)
        self._holdings[job.row] = Holding(
            job_id=job.row,
            user=job.user,
            gpu_uuids=tuple(device.uuid for device in devices),
            started_at=now,
            expected_s=job.run_s,
        )
        end = now + job.run_s
        heappush(self._ends, (end, job.row))
        node = devices[0].node if devices else 0
        self._placed[job.row] = Placement(job, now, end, node, tuple(device.index for device in devices))

    def _as_seen(self, now: float, use_median: bool) -> list[Holding]:
        """With what is expected of each by now: a run that outlasts others of its kind is known to be a long one."""
        if self._expectations is None:
            return list(self._holdings.values())
        seen = []
        for row, held in self._holdings.items():
            job = self._jobs[row]
            elapsed = now - held.started_at
            expected = self._expectations.expect(job.user, (), job.gpus, job.limit_s, elapsed, use_median=use_median)
            seen.append(replace(held, expected_s=expected.seconds, span=expected.span))
        return seen

    def _expected(self, use_median: bool) -> Callable[[Candidate], Expectation] | None:
        """One question to history for all jobs of a kind, until something more has ended."""
        expectations, known = self._expectations, self._known
        if expectations is None:
            return None

        def expected(job: Candidate) -> Expectation:
            kind = (job.user, job.gpus, job.time_limit_s, use_median)
            found = known.get(kind)
            if found is None:
                found = expectations.expect(job.user, (), job.gpus, job.time_limit_s, use_median=use_median)
                known[kind] = found
            return found

        return expected


def _declared(job: Candidate) -> float:
    return inf if job.time_limit_s is None else job.time_limit_s


def _exactly(job: Candidate) -> float:
    return job.expected_s


def summary(replay: Replay) -> dict[str, float | int]:
    """Waits and completion times (from submission to end) in seconds. `utilisation`: GPU time in use over GPU time from
    the first submission to the last end. `largest_max_wait_s`: longest wait of the jobs with the most GPUs."""
    placed = replay.placements
    if not placed:
        return {
            "jobs": 0, "mean_wait_s": 0.0, "median_wait_s": 0.0, "p95_wait_s": 0.0, "max_wait_s": 0.0,
            "mean_jct_s": 0.0, "utilisation": 0.0, "makespan_s": 0.0, "largest_max_wait_s": 0.0,
        }  # fmt: skip
    waits = sorted(one.wait_s for one in placed)
    makespan = max(one.end_s for one in placed) - min(one.job.submit_s for one in placed)
    largest = max(one.job.gpus for one in placed)
    busy = sum((one.end_s - one.start_s) * one.job.gpus for one in placed)
    capacity = makespan * replay.gpus * replay.nodes
    return {
        "jobs": len(placed),
        "mean_wait_s": sum(waits) / len(waits),
        "median_wait_s": median(waits),
        "p95_wait_s": waits[max(0, -(-len(waits) * 95 // 100) - 1)],
        "max_wait_s": waits[-1],
        "mean_jct_s": sum(one.end_s - one.job.submit_s for one in placed) / len(placed),
        "utilisation": busy / capacity if capacity else 0.0,
        "makespan_s": makespan,
        "largest_max_wait_s": max(one.wait_s for one in placed if one.job.gpus == largest),
    }

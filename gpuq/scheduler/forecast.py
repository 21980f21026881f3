"""When will each job start and end? The plan run forward in virtual time, every run lasting as long as expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import hypot, inf
from typing import NamedTuple

from gpuq.domain.window import Window
from gpuq.scheduler.closing import closing_of
from gpuq.scheduler.decide import Decision, decide, yields_at
from gpuq.scheduler.fit import expected_end
from gpuq.scheduler.order import Line
from gpuq.scheduler.placement import positions
from gpuq.scheduler.preempt import victims
from gpuq.scheduler.snapshot import Candidate, Holding, Policy, Snapshot
from gpuq.scheduler.spread import Span


class Yielding(NamedTuple):
    """A preemptible job that will be asked to make room: when, in epoch seconds, and for which job."""

    at: float
    beneficiary: int


# Starts are more uncertain than the run times that they rest on: jobs come that are not foreseen, and a big job waits
# for the last of several ends. So many times as far, four of five starts lay within their span, in the traces of a team
# and in made-up ones (tests/unit/scheduler/test_spans.py).
UNFORESEEN = 1.8


@dataclass(frozen=True, slots=True)
class Forecast:
    """Job id → epoch seconds. `end` has the running jobs too. A job that can never start, or only when a GPU is back
    in service, has no start. `gpus`: of those with a start, the places in the snapshot of the GPUs that they get.
    `start_span`, `end_span`: from when to when it may be, for what has a start and an end. `yields`: of running and
    foreseen preemptible jobs, the first time that each is asked to make room."""

    start: dict[int, float] = field(default_factory=dict)
    end: dict[int, float] = field(default_factory=dict)
    gpus: dict[int, tuple[int, ...]] = field(default_factory=dict)
    start_span: dict[int, Span] = field(default_factory=dict)
    end_span: dict[int, Span] = field(default_factory=dict)
    yields: dict[int, Yielding] = field(default_factory=dict)


def forecast(snapshot: Snapshot, now: float, *, most: int | None = None) -> Forecast:
    """`most`: stop when this many waiting jobs have their start. New submissions and failures are not foreseen. A job
    that will have to yield has no end: its next start cannot be foreseen."""
    result = Forecast()
    known = snapshot.expected
    seconds: Callable[[Candidate], float] = known if known is not None else lambda job: job.expected_s
    closing = closing_of(snapshot, now)
    line = Line(snapshot.waiting, snapshot.policy, ends_in=None if closing is None else closing.ends_in)
    running: dict[int, Holding] = {}
    ends: list[tuple[float, int]] = []
    doubts = _Doubts(snapshot, now, result)
    for held in snapshot.holdings:
        end = max(expected_end(held, now), now)
        result.end[held.job_id] = end
        doubts.running(held, end)
        # The end is settled here, so that it does not double again in virtual time.
        running[held.job_id] = replace(held, expected_s=end - held.started_at, stopping=False)
        ends.append((end, held.job_id))
    if snapshot.paused is not None:
        return result
    heapify(ends)
    promises = None if snapshot.promises is None else dict(snapshot.promises)
    time = now
    while line.shapes and (most is None or len(result.start) < most):
        view = replace(snapshot, holdings=list(running.values()), waiting=line, promises=promises)
        decision = decide(view, time)
        if promises is not None and decision.first is not None:
            promises.setdefault(decision.first.job.id, decision.first.at)
        yielding = victims(decision, view, time)
        for job, mask in decision.starts:
            run_s = max(seconds(job), 1.0)
            line.remove(job)
            running[job.id] = _holding(job, mask, snapshot, time, run_s)
            result.start[job.id] = time
            result.gpus[job.id] = tuple(positions(mask))
            result.end[job.id] = time + run_s
            doubts.starts(job, time, run_s)
            heappush(ends, (time + run_s, job.id))
        for one in yielding:
            del running[one.job_id]
            result.end.pop(one.job_id, None)
            result.end_span.pop(one.job_id, None)
            result.yields.setdefault(one.job_id, Yielding(time, one.beneficiary))
        while ends and ends[0][1] not in running:
            heappop(ends)
        if yielding:
            continue
        soonest = min(ends[0][0] if ends else inf, _window_moment(snapshot.window, time))
        if soonest == inf:
            break
        time = max(time, min(soonest, _next_to_yield(decision, snapshot.policy, running.values(), time)))
        for job_id in _yield_to_drain(snapshot.window, running.values(), time):
            del running[job_id]
            result.end.pop(job_id, None)
            result.end_span.pop(job_id, None)
        while ends and ends[0][0] <= time:
            ended = heappop(ends)[1]
            doubts.ended(ended)
            running.pop(ended, None)
    return result


def _window_moment(window: Window | None, time: float) -> float:
    """When a planned drain begins or ends next; inf where nothing comes."""
    moment = None if window is None else window.next_moment(time)
    return inf if moment is None else moment


def _yield_to_drain(window: Window | None, running: Iterable[Holding], time: float) -> list[int]:
    """Who makes room for a drain that has begun: as far as is known here, those that are preemptible."""
    if window is None or not window.began(time):
        return []
    return [
        held.job_id
        for held in running
        if held.preemptible and not held.over_hours and (window.gpus is None or any(map(window.covers, held.gpu_uuids)))
    ]


class _Doubts:
    """How far off what is foretold may be. A start is as uncertain as the end that made room for it; the end of a job
    that is still to start as uncertain as its start and its run time together. Independent deviations add up by their
    squares; those to the early and to the late side are kept apart, because run times are skewed."""

    def __init__(self, snapshot: Snapshot, now: float, result: Forecast) -> None:
        self._span = snapshot.span
        self._now = now
        self._result = result
        # How much earlier and later than expected each job may end, and the last that has ended did.
        self._ends: dict[int, tuple[float, float]] = {}
        self._last = (0.0, 0.0)

    def running(self, held: Holding, end: float) -> None:
        low, high = held.span or (held.expected_s, held.expected_s)
        late = max(held.started_at + high, end)
        early = min(max(held.started_at + low, self._now), end)
        self._ends[held.job_id] = end - early, late - end
        self._result.end_span[held.job_id] = Span(early, late)

    def starts(self, job: Candidate, time: float, run_s: float) -> None:
        early, late = (UNFORESEEN * one for one in self._last) if time > self._now else (0.0, 0.0)
        self._result.start_span[job.id] = Span(max(self._now, time - early), time + late)
        low, high = (self._span(job) if self._span is not None else None) or (run_s, run_s)
        early, late = self._last if time > self._now else (0.0, 0.0)
        early, late = hypot(early, max(0.0, run_s - low)), hypot(late, max(0.0, high - run_s))
        self._ends[job.id] = early, late
        end = time + run_s
        self._result.end_span[job.id] = Span(max(self._now, end - early), end + late)

    def ended(self, job_id: int) -> None:
        self._last = self._ends.get(job_id, (0.0, 0.0))


def _next_to_yield(decision: Decision, policy: Policy, running: Iterable[Holding], time: float) -> float:
    """When the first in line may ask another running job for its GPUs; inf when it may not."""
    if decision.first is None:
        return inf
    moments = (yields_at(held, policy, time) for held in running if held.preemptible and held.gpu_uuids)
    return min((moment for moment in moments if moment > time), default=inf)


def _holding(job: Candidate, mask: int, snapshot: Snapshot, time: float, run_s: float) -> Holding:
    return Holding(
        job_id=job.id,
        user=job.user,
        gpu_uuids=tuple(snapshot.devices[at].uuid for at in positions(mask)),
        started_at=time,
        expected_s=run_s,
        mem_mb=job.gpu_mem_mb,
        priority=job.priority,
        group=job.group,
        array_id=job.array_id,
        preemptible=job.preemptible,
        preemptions_last_hour=job.preemptions_last_hour,
        over_hours=job.over_hours is not None,
    )

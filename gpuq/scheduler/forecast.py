"""When will each job start and end? The plan run forward in virtual time, every run lasting as long as expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf

from gpuq.domain.window import Window
from gpuq.scheduler.closing import closing_of
from gpuq.scheduler.decide import Decision, decide, yields_at
from gpuq.scheduler.fit import expected_end
from gpuq.scheduler.order import Line
from gpuq.scheduler.placement import positions
from gpuq.scheduler.preempt import victims
from gpuq.scheduler.snapshot import Candidate, Holding, Policy, Snapshot


@dataclass(frozen=True, slots=True)
class Forecast:
    """Job id → epoch seconds. `end` has the running jobs too. A job that can never start, or only when a GPU is back
    in service, has no start. `gpus`: of those with a start, the places in the snapshot of the GPUs that they get."""

    start: dict[int, float] = field(default_factory=dict)
    end: dict[int, float] = field(default_factory=dict)
    gpus: dict[int, tuple[int, ...]] = field(default_factory=dict)


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
    for held in snapshot.holdings:
        end = max(expected_end(held, now), now)
        result.end[held.job_id] = end
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
        yielding = [one.job_id for one in victims(decision, view, time)]
        for job, mask in decision.starts:
            run_s = max(seconds(job), 1.0)
            line.remove(job)
            running[job.id] = _holding(job, mask, snapshot, time, run_s)
            result.start[job.id] = time
            result.gpus[job.id] = tuple(positions(mask))
            result.end[job.id] = time + run_s
            heappush(ends, (time + run_s, job.id))
        for job_id in yielding:
            del running[job_id]
            result.end.pop(job_id, None)
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
        while ends and ends[0][0] <= time:
            running.pop(heappop(ends)[1], None)
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

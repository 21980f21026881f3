"""Which preemptible jobs are asked to yield to the first in line.

Never ping-pong: a job runs at least `preempt_min_run_s` before it is asked, and is asked at most
`preempt_max_per_hour` times an hour; after that it runs to its end.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from gpuq.scheduler.decide import Decision, occupied
from gpuq.scheduler.placement import positions
from gpuq.scheduler.snapshot import Holding, Policy, Preempt, Snapshot


def victims(decision: Decision, snapshot: Snapshot, now: float) -> list[Preempt]:
    """Those whose end lets the first in line start, none more than it needs: first those over their GPU-hours, then the
    youngest. Empty when the jobs that are being stopped already make room enough."""
    first = decision.first
    if first is None:
        return []
    able = [held for held in snapshot.holdings if _may_be_asked(held, snapshot.policy, now)]
    if not able:
        return []
    able.sort(key=lambda held: (not held.over_hours, -held.started_at, held.job_id))
    if _fits_without(set(), decision, snapshot, now):
        return []
    gone: list[Holding] = []
    for held in able:
        gone.append(held)
        if _fits_without({one.job_id for one in gone}, decision, snapshot, now):
            break
    else:
        return []
    for held in list(gone):
        fewer = {one.job_id for one in gone if one is not held}
        if _fits_without(fewer, decision, snapshot, now):
            gone.remove(held)
    return [Preempt(held.job_id, first.job.id) for held in gone]


def _may_be_asked(held: Holding, policy: Policy, now: float) -> bool:
    return (
        held.preemptible
        and not held.stopping
        and bool(held.gpu_uuids)
        and now - held.started_at >= policy.preempt_min_run_s
        and held.preemptions_last_hour < policy.preempt_max_per_hour
    )


def _fits_without(gone: Collection[int], decision: Decision, snapshot: Snapshot, now: float) -> bool:
    staying = [held for held in snapshot.holdings if held.job_id not in gone and not held.stopping]
    room = occupied(decision.room.machine, replace(snapshot, holdings=staying, waiting=()), now)
    for job, mask in decision.starts:
        for at in positions(mask):
            room.hold(at, now, job.gpu_mem_mb)
    assert decision.first is not None
    return room.fits(decision.first.shape)

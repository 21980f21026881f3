"""Which running jobs will be stopped so that a waiting one can start, and when, in the words of its reason."""

from __future__ import annotations

from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.scheduler.explain import NAMED, clock
from gpuq.scheduler.forecast import Forecast
from gpuq.scheduler.snapshot import Snapshot


def with_preemptions(
    found: list[Reason], snapshot: Snapshot, foreseen: Forecast, job_id: int, now: float
) -> list[Reason]:
    """The reasons of the job `job_id`; the one that tells of GPUs begins with those that will make room for it."""
    stopped = sorted(
        (foreseen.yields[held.job_id].at, held.job_id, held.priority.label)
        for held in snapshot.holdings
        if held.job_id in foreseen.yields and foreseen.yields[held.job_id].beneficiary == job_id
    )
    if not stopped:
        return found
    told = [
        f"job {victim} ({priority}, preemptible) will be stopped at {clock(at, now)} to make room"
        for at, victim, priority in stopped[:NAMED]
    ]
    if len(stopped) > NAMED:
        told.append(f"and {len(stopped) - NAMED} more")
    text = "; ".join(told)
    if not any(one.code is ReasonCode.RESOURCES for one in found):
        return [*found, Reason(ReasonCode.RESOURCES, text)]
    return [Reason(one.code, f"{text}; {one.text}") if one.code is ReasonCode.RESOURCES else one for one in found]

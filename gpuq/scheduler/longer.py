"""Whom it moves back when running jobs take longer: the forecast with it, and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gpuq.scheduler.forecast import forecast
from gpuq.scheduler.snapshot import Snapshot

# For a job without a time limit: nobody waits for its end.
_FOR_EVER_S = 100 * 365 * 86400.0
# Two forecasts of the same are the same to the last bit; less than this nobody would notice.
_SLACK_S = 1.0


@dataclass(frozen=True, slots=True)
class Delay:
    """A waiting job, and its estimated start now and then, epoch seconds; `start_then` None: beyond the forecast."""

    job_id: int
    start_now: float
    start_then: float | None


def first_delayed(
    snapshot: Snapshot, now: float, limits: Mapping[int, tuple[float | None, float | None]]
) -> Delay | None:
    """The first waiting job, by its estimated start, that would start later; None: none would. `limits`: by id of a
    running job, the time limit that it has, and would have, in seconds from its start, None: no limit.

    These jobs are taken to use up what they may, in both forecasts: who asks for more time means to use it, and what
    others were told rests on their earlier runs. A pause moves nobody, so it is not looked at.
    """
    without = forecast(_running_for(snapshot, {one: pair[0] for one, pair in limits.items()}), now)
    given = forecast(_running_for(snapshot, {one: pair[1] for one, pair in limits.items()}), now)
    moved = [
        Delay(job_id, start, then)
        for job_id, start in without.start.items()
        if (then := given.start.get(job_id)) is None or then > start + _SLACK_S
    ]
    return min(moved, key=lambda one: (one.start_now, one.job_id), default=None)


def _running_for(snapshot: Snapshot, limits: Mapping[int, float | None]) -> Snapshot:
    holdings = [
        replace(held, expected_s=limits[held.job_id] or _FOR_EVER_S) if held.job_id in limits else held
        for held in snapshot.holdings
    ]
    return replace(snapshot, holdings=holdings, paused=None)

"""The scheduler's forecast of the line, kept until an event changes it.

It is made from SQL alone, so it is the same whether a daemon runs or not, and needs no Redis, save for whether an agent
runs on another machine.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, replace
from math import inf

from gpuq.domain.job import Attempt, Job
from gpuq.domain.reasons import Reason
from gpuq.domain.window import Window
from gpuq.engine.attempt.tracked import TrackedAttempt, recorded
from gpuq.engine.context import QueryContext
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.snapshot.builder import SnapshotBuilder
from gpuq.engine.snapshot.candidates import ExpectedRuns, candidate, longest
from gpuq.engine.snapshot.limit_bypass import past_limits
from gpuq.engine.switches import Switches, read_switches
from gpuq.ports.records import Waiting
from gpuq.scheduler.budget import Over, behind_others
from gpuq.scheduler.explain import Explainer
from gpuq.scheduler.forecast import Forecast, forecast
from gpuq.scheduler.making_room import with_preemptions
from gpuq.scheduler.snapshot import Snapshot

# The forecast looks this far down the line; those behind it get no estimate.
FORECAST_JOBS = 1000
FORECAST_MAX_AGE_S = 30.0
# While events come in quickly, the last picture serves for this many times what it cost to make.
FORECAST_COST_FACTOR = 10.0
# A picture that took less than this is made anew for a single job that is not in it.
QUICK_S = 0.05


@dataclass(frozen=True, slots=True)
class ForecastPicture:
    """The snapshot and its forecast as of one event id and the switches that people had set by then.

    `at`: when it was made, epoch seconds. `known`: ids of the waiting jobs in it. `reach`: every job with a lower score
    was looked at.
    """

    event_id: int
    switches: Switches
    at: float
    snapshot: Snapshot
    forecast: Forecast
    explainer: Explainer
    known: frozenset[int]
    reach: float

    def misses(self, job: Job) -> bool:
        """Whether it belongs into the forecast and is not in it."""
        return job.id not in self.known and job.score < self.reach

    def reasons(self, job_id: int) -> list[Reason]:
        """Of one waiting job, the one that decides first. Empty when it is not in the snapshot."""
        return with_preemptions(self.explainer.reasons(job_id), self.snapshot, self.forecast, job_id, self.at)


def _passed(window: Window | None, since: float, now: float) -> bool:
    """Whether a planned drain has begun or ended since."""
    moment = None if window is None else window.next_moment(since)
    return moment is not None and moment <= now


class ForecastCache:
    """One per process; thread-safe."""

    def __init__(self, ctx: QueryContext, agent: AgentLiveness) -> None:
        self._ctx = ctx
        self._agent = agent
        self._snapshots = SnapshotBuilder(ctx, use_median=True)
        self._lock = threading.Lock()
        self._picture: ForecastPicture | None = None
        self._cost_s = 0.0

    def picture(self, wanted: Job | None = None, *, fresh: bool = False) -> ForecastPicture:
        """`wanted`: a queued job that somebody asks about; if it came after the last picture it is worth a new one,
        unless that takes long. `fresh`: one that has all that was committed, whatever it costs."""
        with self._lock:
            now = self._ctx.clock.now()
            begun = self._ctx.clock.monotonic()
            with self._ctx.records.read() as tx:
                event_id, switches = tx.last_event_id(), read_switches(tx, self._ctx.node)
                kept = self._picture
                if kept is not None and kept.switches == switches:
                    same = kept.event_id == event_id
                    missing = not same and self._cost_s < QUICK_S and wanted is not None and kept.misses(wanted)
                    max_age_s = FORECAST_MAX_AGE_S if same else 0.0 if fresh else FORECAST_COST_FACTOR * self._cost_s
                    if now - kept.at < max_age_s and not missing and not _passed(switches.window, kept.at, now):
                        return kept
                line = tx.line(limit=FORECAST_JOBS)
                reach = line[-1].score if len(line) >= FORECAST_JOBS else inf
                waiting = list(tx.waiting([job.id for job in line]).values())
                active = tx.live_attempts(self._ctx.node)
                self._snapshots.forget(switches)
                tracked_attempts = [self._live(job, attempt) for job, attempt in active]
                if len(waiting) >= FORECAST_JOBS:
                    usage = self._snapshots.usage(tracked_attempts, waiting)
                    waiting += past_limits(tx, waiting, usage, enough=FORECAST_JOBS)
            waiting.sort(key=lambda job: (job.score, job.id))
            self._ctx.run_times.refresh()
            # Also where nobody waits for one: `estimate` asks when a further job would start.
            self._snapshots.observe()
            snapshot = self._snapshots.snapshot(waiting, tracked_attempts)
            foreseen = forecast(snapshot, now)
            known = frozenset(job.id for job in waiting)
            explainer = Explainer(snapshot, now)
            self._picture = ForecastPicture(event_id, switches, now, snapshot, foreseen, explainer, known, reach)
            self._cost_s = self._ctx.clock.monotonic() - begun
            return self._picture

    def estimate(self, job: Waiting) -> float | None:
        """When a job that is not stored would start, epoch seconds; None beyond the forecast's reach."""
        picture = self.picture()
        stands = picture.snapshot.paused is not None or picture.switches.launch_trouble is not None
        if stands or not self._agent.is_alive():
            return None
        rules = picture.snapshot.policy
        new = behind_others(candidate(job), Over(rules.over_users, rules.over_groups))
        line = sorted([*picture.snapshot.waiting, new], key=lambda c: (c.score, c.id))
        known = picture.snapshot.expected
        its_own = ExpectedRuns(self._ctx, [job], use_median=True).seconds(new)
        bound, its_bound = picture.snapshot.longest, longest(self._ctx, [job])
        supposed = replace(
            picture.snapshot,
            waiting=line,
            longest=lambda c: bound(c) if bound is not None and c.id != job.id else its_bound(c),
            expected=lambda c: known(c) if known is not None and c.id != job.id else its_own,
            span=None,
        )
        return forecast(supposed, self._ctx.clock.now()).start.get(job.id)

    def _live(self, job: Job, attempt: Attempt) -> TrackedAttempt:
        launched = recorded(attempt)
        if launched is None:
            # What one attempt's records do not tell keeps nobody from an answer.
            with contextlib.suppress(OSError):
                launched = self._ctx.launcher.launched(attempt.run_dir, attempt.token)
        return TrackedAttempt.of_record(job, attempt, launched)

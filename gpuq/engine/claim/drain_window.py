"""What a planned drain does when its time comes: preemptible jobs and those with `--requeue` go back in line, others
run on; when it is over it is forgotten. All of it from what SQL says, so a drain that began while no daemon ran applies
with the first plan.
"""

from __future__ import annotations

from collections.abc import Collection

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.window import Window
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.claim.preempt import make_yield
from gpuq.engine.context import Context
from gpuq.engine.switches import planned_drain
from gpuq.ports.notify import Topic


class DrainWindow:
    """One thread only."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        # Attempts of which it is known that they run on, of this window.
        self._stay: set[str] = set()
        self._seen: Window | None = None

    def act(self, window: Window | None, tracked_attempts: Collection[TrackedAttempt]) -> None:
        """At every plan. Raises DatabaseUnavailable."""
        if window != self._seen:
            self._seen, self._stay = window, set()
        if window is None:
            return
        now = self._ctx.clock.now()
        if window.over(now):
            self._forget(window, now)
        elif window.began(now):
            self._make_room(window, tracked_attempts)

    def soon(self, window: Window | None, within_s: float) -> float:
        """Seconds until something changes by itself, `within_s` at most."""
        now = self._ctx.clock.now()
        moment = None if window is None else window.next_moment(now)
        return within_s if moment is None else min(within_s, moment - now)

    def _make_room(self, window: Window, tracked_attempts: Collection[TrackedAttempt]) -> None:
        there = [
            tracked
            for tracked in tracked_attempts
            if tracked.launched is not None and not tracked.stopping and tracked.token not in self._stay
            if window.gpus is None or any(map(window.covers, tracked.gpu_uuids))
        ]
        if not there:
            return
        with self._ctx.records.read() as tx:
            specs = tx.specs([tracked.job.id for tracked in there])
        for tracked in there:
            if tracked.job.preemptible or specs[tracked.job.id].requeue:
                make_yield(self._ctx, tracked, f"makes room for the drain that {window.by} planned")
            else:
                self._stay.add(tracked.token)

    def _forget(self, window: Window, now: float) -> None:
        """Unless somebody has planned another meanwhile."""
        with self._ctx.records.write() as tx:
            if planned_drain(tx, self._ctx.node) == window:
                tx.set_value(InstallationKey.MAINTENANCE.of(self._ctx.node), None, now)
        self._ctx.notifier.publish(Topic.CONTROL)

"""What an administrator has set against running jobs that run longer: the longest time limits, and a planned drain."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from gpuq.domain.job import Job
from gpuq.domain.times import iso
from gpuq.engine.context import ActionContext
from gpuq.engine.intake.limits import require_allowed_time
from gpuq.engine.limit_values import read_limits
from gpuq.engine.switches import planned_drain
from gpuq.errors import Refused
from gpuq.ports.records import Reader


class Bounds:
    """As of one transaction, for these running jobs."""

    def __init__(self, ctx: ActionContext, tx: Reader, jobs: Sequence[Job]) -> None:
        self._now = ctx.clock.now()
        self._book = read_limits(tx, {})
        self._window = planned_drain(tx, ctx.node)
        if self._window is None or self._window.over(self._now):
            self._window = None
            return
        self._gpus = {job.id: attempt.gpu_uuids for job, attempt in tx.live_attempts()}
        self._requeue = {job_id for job_id, spec in tx.specs([job.id for job in jobs]).items() if spec.requeue}

    def refusal(self, job: Job, group: str | None, limits: tuple[float | None, float | None]) -> Refused | None:
        """`limits`: in seconds (before, then), None: none; `group`: that it has, or is to have."""
        before, then = limits
        try:
            require_allowed_time(self._book, job.user, group, then)
        except Refused as error:
            return error
        return self._before_drain(job, before, then)

    def _before_drain(self, job: Job, before: float | None, then: float | None) -> Refused | None:
        window = self._window
        if window is None or job.preemptible or job.id in self._requeue:
            # Those make room when the drain begins.
            return None
        uuids = self._gpus.get(job.id, ())
        if window.gpus is not None and not any(map(window.covers, uuids)):
            return None
        start = job.started_at or self._now
        if not window.held_up(start + (before or inf), start + (then or inf), self._now):
            return None
        return Refused(
            f"job {job.id} cannot run longer: a drain is planned for {iso(window.at)}, and it would not end before",
            hint="ask for less, or ask an administrator of this queue; `gpuq drain` tells of the drain",
        )

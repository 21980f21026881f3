"""`gpuq down --stop-jobs`: ending what runs, when the agent has already stopped."""

from __future__ import annotations

import logging
import os
import select
import time

from gpuq.domain.job import Attempt
from gpuq.domain.stopping import MARGIN_S, StopTimes, effective_grace_s, notice_of
from gpuq.engine.attempt.stop_request import try_stop
from gpuq.engine.context import Context
from gpuq.engine.maintenance.reap import reap

log = logging.getLogger(__name__)


def stop_jobs(ctx: Context) -> int:
    """Asks every running job of this node to end, waits until all are gone, and writes their ends down: they go
    back in line and no retry is used, as with every drain. Returns how many were still alive at the end."""
    kill_at = time.monotonic()
    asked: list[Attempt] = []
    with ctx.records.read() as reader:
        attempts = [attempt for _, attempt in reader.live_attempts(ctx.node)]
        specs = reader.specs([attempt.job_id for attempt in attempts])
    live = [(attempt, specs[attempt.job_id]) for attempt in attempts]
    for attempt, spec in live:
        grace = effective_grace_s(spec.kill_grace_s, ctx.settings.kill_grace)
        _, before_s = notice_of(spec.signal)
        if try_stop(ctx, attempt.job_id, attempt.run_dir, reason="drain", grace_s=grace):
            kill_at = max(kill_at, StopTimes.of("drain", time.monotonic(), grace, before_s).kill_at)
            asked.append(attempt)
    _wait(ctx, asked, kill_at + MARGIN_S)
    reap(ctx, suspect_after_s=0.0)
    left = [attempt for attempt, _ in live if ctx.launcher.alive(attempt.run_dir)]
    for attempt in left:
        log.error("job %d did not end; its supervisor still works on it", attempt.job_id)
    return len(left)


def _wait(ctx: Context, attempts: list[Attempt], deadline: float) -> None:
    """Until every supervisor has ended (a pidfd says so) or the time is up."""
    poller = select.poll()
    open_fds: set[int] = set()
    for attempt in attempts:
        launched = ctx.launcher.launched(attempt.run_dir, attempt.token)
        fd = ctx.launcher.watch(launched) if launched is not None else None
        if fd is not None:
            open_fds.add(fd)
            poller.register(fd, select.POLLIN)
    while open_fds and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1000):
            poller.unregister(fd)
            os.close(fd)
            open_fds.discard(fd)
    for fd in open_fds:
        os.close(fd)

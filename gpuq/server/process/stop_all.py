"""`gpuq down --stop-jobs`: ending what runs, when the agent has already stopped."""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Sequence

from gpuq.domain.job import Attempt, Job
from gpuq.domain.stopping import MARGIN_S, StopTimes, effective_grace_s, notice_of
from gpuq.engine.attempt.stop_request import try_stop
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.overseer import LOOK_S, Overseer, Stop

log = logging.getLogger(__name__)

# Of an attempt that is just being started nothing tells the end.
_SOON_S = 0.05


def stop_jobs(ctx: Context) -> int:
    """Asks every running job of this node to end, waits until all are gone, and writes their ends down: they go
    back in line and no retry is used, as with every drain. Returns how many were still alive at the end."""
    kill_at = time.monotonic()
    asked: list[Attempt] = []
    with ctx.records.read() as reader:
        found = reader.live_attempts(ctx.node)
        specs = reader.specs([attempt.job_id for _, attempt in found])
    live = [(attempt, specs[attempt.job_id]) for _, attempt in found]
    overseer = _overseer(ctx, found)
    for attempt, spec in live:
        grace = effective_grace_s(spec.kill_grace_s, ctx.settings.kill_grace)
        _, before_s = notice_of(spec.signal)
        if try_stop(ctx, attempt.job_id, attempt.run_dir, reason="drain", grace_s=grace):
            own = StopTimes.of("drain", time.monotonic(), grace, before_s).kill_at
            overseer.expect(attempt.token, Stop("drain", own))
            kill_at = max(kill_at, own)
            asked.append(attempt)
    _wait(ctx, asked, kill_at + MARGIN_S, overseer)
    reap(ctx, suspect_after_s=0.0)
    left = [attempt for attempt, _ in live if ctx.launcher.alive(attempt.run_dir)]
    for attempt in left:
        log.error("job %d did not end; its supervisor still works on it", attempt.job_id)
    return len(left)


def _overseer(ctx: Context, found: Sequence[tuple[Job, Attempt]]) -> Overseer:
    """The agent's has stopped."""
    here = [(job, attempt) for job, attempt in found if attempt.boot_id == ctx.boot_id]
    tracked = [
        TrackedAttempt.of_record(job, attempt, ctx.launcher.launched(attempt.run_dir, attempt.token))
        for job, attempt in here
    ]
    return Overseer(ctx, lambda: [one for one in tracked if ctx.launcher.alive(one.run_dir)])


def _wait(ctx: Context, attempts: list[Attempt], deadline: float, overseer: Overseer) -> None:
    """Until every supervisor has ended (a pidfd says so) or the time is up."""
    poller = select.poll()
    open_fds: set[int] = set()
    unwatched = []
    for attempt in attempts:
        launched = ctx.launcher.launched(attempt.run_dir, attempt.token)
        fd = ctx.launcher.watch(launched) if launched is not None else None
        if fd is None:
            unwatched.append(attempt.run_dir)
            continue
        open_fds.add(fd)
        poller.register(fd, select.POLLIN)
    again_s = _SOON_S if unwatched else LOOK_S
    while (open_fds or any(map(ctx.launcher.alive, unwatched))) and (left := deadline - time.monotonic()) > 0:
        ended = poller.poll(min(left, again_s) * 1000)
        for fd, _ in ended:
            poller.unregister(fd)
            os.close(fd)
            open_fds.discard(fd)
        if not ended:
            again_s = overseer.look()
    for fd in open_fds:
        os.close(fd)

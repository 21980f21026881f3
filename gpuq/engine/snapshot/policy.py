"""The rules of this installation as the scheduler is shown them."""

from __future__ import annotations

from collections.abc import Mapping

from gpuq.engine.context import SnapshotContext
from gpuq.engine.hot.ranking import wanted
from gpuq.engine.switches import Switches
from gpuq.scheduler.budget import Over
from gpuq.scheduler.snapshot import Policy


def policy(
    ctx: SnapshotContext, switches: Switches, no_account: Mapping[tuple[str, int | None], str], over: Over
) -> Policy:
    """The rules that a plan obeys: from the settings, from the limits that people have set meanwhile, for whom nothing
    may start because there is `no_account`, and who is `over` the GPU-hours."""
    settings = ctx.settings
    return Policy(
        backfill=settings.backfill,
        cpu_jobs=settings.cpu_jobs,
        user_max_gpus=settings.user_max_gpus,
        user_max_running=settings.user_max_running,
        group_limits=switches.group_limits,
        preempt_min_run_s=settings.preempt_min_run,
        preempt_max_per_hour=settings.preempt_max_per_hour,
        ranking=wanted(ctx),
        no_account=no_account,
        limits=switches.limits,
        over_users=over.users,
        over_groups=over.groups,
    )

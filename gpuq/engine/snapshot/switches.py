"""What people have set for the whole queue: pause, drained GPUs, limits of groups. Durable, in SQL."""

from __future__ import annotations

from dataclasses import dataclass

from gpuq.engine.actions.pause import KEY as PAUSED
from gpuq.engine.actions.pause import pause_text
from gpuq.engine.attempt.launch_breaker import KEY as OBSTACLE
from gpuq.engine.context import Context
from gpuq.engine.hot.ranking import wanted
from gpuq.engine.snapshot.devices import Drained
from gpuq.ports.records import Reader
from gpuq.scheduler.snapshot import Policy

DRAINED = "drained:"
GROUP_LIMIT = "group-limit:"


@dataclass(frozen=True, slots=True)
class Switches:
    """`drained` by GPU uuid, of this node; `group_limits`: running jobs by group; `launch_trouble`: why nothing can be
    launched on this machine, not set by people but treated alike."""

    paused: str | None
    drained: dict[str, Drained]
    group_limits: dict[str, int]
    launch_trouble: str | None = None


def read_switches(ctx: Context) -> Switches:
    """What people have set, in a transaction of its own."""
    with ctx.records.read() as tx:
        return switches_in(ctx, tx)


def switches_in(ctx: Context, tx: Reader) -> Switches:
    """What people have set, as the transaction `tx` sees it; drains and launch trouble are those of this node."""
    paused = tx.value(PAUSED)
    drained = tx.values(f"{DRAINED}{ctx.node}:")
    limits = tx.values(GROUP_LIMIT)
    return Switches(
        paused=pause_text(paused) if paused else None,
        drained={
            key.removeprefix(f"{DRAINED}{ctx.node}:"): Drained(value["by"], value.get("reason"))
            for key, value in drained.items()
        },
        group_limits={key.removeprefix(GROUP_LIMIT): value["running"] for key, value in limits.items()},
        launch_trouble=tx.value(OBSTACLE + ctx.node),
    )


def policy(ctx: Context, switches: Switches) -> Policy:
    """The rules of the scheduler: those of the settings, with the group limits of now."""
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
    )

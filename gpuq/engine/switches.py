"""What holds for the whole queue: pause, drained GPUs, limits of users and groups, and whether this machine can launch.

Durable, in SQL. Read here by every room; `gpuq.engine.actions` and the launch breaker write it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.limits import LimitBook
from gpuq.domain.states import ACTIVE
from gpuq.domain.window import Window
from gpuq.engine.limit_values import read_limits
from gpuq.ports.records import JobFilter, Reader


@dataclass(frozen=True, slots=True)
class Drained:
    """Who took a GPU out of the queue, and why."""

    by: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Switches:
    """`drained` by GPU uuid, of this node; `group_limits`: running jobs by group; `launch_trouble`: why nothing can be
    launched on this machine, not set by people but treated alike; `limits`: of users and groups, the running jobs of
    the latter included; `window`: the drain that is planned for this node, also one that is over."""

    paused: str | None
    drained: dict[str, Drained]
    group_limits: dict[str, int]
    launch_trouble: str | None = None
    limits: LimitBook = field(default_factory=LimitBook)
    window: Window | None = None


def read_switches(tx: Reader, node: str) -> Switches:
    """All that people have set for the whole queue and for the GPUs of `node`, as of this transaction."""
    trouble, window = InstallationKey.LAUNCH_TROUBLE.of(node), InstallationKey.MAINTENANCE.of(node)
    single = tx.some_values([InstallationKey.PAUSED, trouble, window])
    pause = single.get(InstallationKey.PAUSED)
    prefix = InstallationKey.DRAINED.prefix(node)
    groups = group_limits(tx)
    return Switches(
        paused=_pause_text(pause) if pause else None,
        drained={
            key.removeprefix(prefix): Drained(value["by"], value.get("reason"))
            for key, value in tx.values(prefix).items()
        },
        group_limits={name: limit["running"] for name, limit in groups.items()},
        launch_trouble=None if trouble not in single else str(single[trouble]),
        limits=read_limits(tx, groups),
        window=Window.stored(single[window]) if window in single else None,
    )


def paused(tx: Reader) -> dict[str, Any] | None:
    """`{"by", "reason", "at"}` while the queue is paused."""
    value: dict[str, Any] | None = tx.value(InstallationKey.PAUSED)
    return value


def planned_drain(tx: Reader, node: str) -> Window | None:
    """The drain that is planned for that node, also one that is over."""
    value = tx.value(InstallationKey.MAINTENANCE.of(node))
    return None if value is None else Window.stored(value)


def group_limits(tx: Reader) -> dict[str, dict[str, Any]]:
    """By group: `{"running", "by", "at"}`."""
    prefix = InstallationKey.GROUP_LIMIT.prefix()
    return {key.removeprefix(prefix): value for key, value in tx.values(prefix).items()}


def launch_trouble(tx: Reader, node: str) -> str | None:
    """Why nothing can be launched on that node, a text for people."""
    found = tx.value(InstallationKey.LAUNCH_TROUBLE.of(node))
    return None if found is None else str(found)


def stuck_attempts(tx: Reader, node: str) -> dict[int, str]:
    """By job id: why its live attempt on that node does not come to its end, a text for people."""
    prefix = InstallationKey.STUCK.prefix(node)
    told = {int(key.removeprefix(prefix)): value for key, value in tx.values(prefix).items()}
    live = tx.jobs(JobFilter(states=ACTIVE, ids=tuple(told))) if told else []
    return {job.id: str(told[job.id]["text"]) for job in live if job.attempt == told[job.id]["attempt"]}


def idle_attempts(tx: Reader, node: str) -> dict[int, float]:
    """By job id: since when (epoch seconds) the GPUs of its live attempt on that node stand still."""
    prefix = InstallationKey.IDLE.prefix(node)
    told = {int(key.removeprefix(prefix)): value for key, value in tx.values(prefix).items()}
    live = tx.jobs(JobFilter(states=ACTIVE, ids=tuple(told))) if told else []
    return {job.id: float(told[job.id]["since"]) for job in live if job.attempt == told[job.id]["attempt"]}


def _pause_text(value: dict[str, Any]) -> str:
    return f"the queue is paused by {value['by']}" + (f": {value['reason']}" if value.get("reason") else "")

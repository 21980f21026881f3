"""Limits of groups: how many jobs of a group may run at once, whoever they belong to."""

from __future__ import annotations

from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.states import ACTIVE, WAITING
from gpuq.domain.times import iso
from gpuq.engine.access import require_admin
from gpuq.engine.context import Context
from gpuq.engine.snapshot.switches import GROUP_LIMIT
from gpuq.ports.notify import Topic


def limit_group(ctx: Context, name: str, running: int, caller: Caller) -> None:
    """`running` 0: no limit. Durable; jobs that run go on. Raises Forbidden."""
    require_admin(caller, "limit a group")
    now = ctx.clock.now()
    value = {"running": running, "by": caller.user, "at": iso(now)} if running else None
    with ctx.records.write() as tx:
        tx.set_value(f"{GROUP_LIMIT}{name}", value, now)
    ctx.notifier.publish(Topic.CONTROL)


def report(ctx: Context) -> list[dict[str, Any]]:
    """One row for each group that has a limit or jobs that are not final, by name, ready for JSON: group, running,
    waiting, limit (None: none), limited_by."""
    with ctx.records.read() as tx:
        limits = {key.removeprefix(GROUP_LIMIT): value for key, value in tx.values(GROUP_LIMIT).items()}
        counts = tx.count_by_group()
    return [
        {
            "group": name,
            "running": sum(counts.get(name, {}).get(state, 0) for state in ACTIVE),
            "waiting": sum(counts.get(name, {}).get(state, 0) for state in WAITING),
            "limit": limits.get(name, {}).get("running"),
            "limited_by": limits.get(name, {}).get("by"),
        }
        for name in sorted(limits.keys() | counts.keys())
    ]

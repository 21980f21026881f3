"""Limits of groups: how many jobs of a group may run at once, whoever they belong to."""

from __future__ import annotations

from gpuq.domain.caller import Caller
from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.times import iso
from gpuq.engine.access import require_admin
from gpuq.engine.context import ActionContext
from gpuq.ports.notify import Topic


def limit_group(ctx: ActionContext, name: str, running: int, caller: Caller) -> None:
    """`running` 0: no limit. Durable; jobs that run go on. Raises Forbidden."""
    require_admin(caller, "limit a group")
    now = ctx.clock.now()
    value = {"running": running, "by": caller.user, "at": iso(now)} if running else None
    with ctx.records.write() as tx:
        tx.set_value(InstallationKey.GROUP_LIMIT.of(name), value, now)
    ctx.notifier.publish(Topic.CONTROL)

"""Pause: no new job starts until resume; durable, so it survives restarts."""

from __future__ import annotations

from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.times import iso
from gpuq.engine.access import require_admin
from gpuq.engine.context import ActionContext
from gpuq.ports.notify import Topic


def pause(ctx: ActionContext, caller: Caller, reason: str | None = None) -> dict[str, Any]:
    """No job starts until `resume`; what runs goes on. Returns who paused it, why and when. Raises Forbidden."""
    require_admin(caller, "pause the queue")
    now = ctx.clock.now()
    value = {"by": caller.user, "reason": reason, "at": iso(now)}
    with ctx.records.write() as tx:
        tx.set_value(InstallationKey.PAUSED, value, now)
    ctx.notifier.publish(Topic.CONTROL)
    return value


def resume(ctx: ActionContext, caller: Caller) -> None:
    """Jobs start again; does nothing where the queue was not paused. Raises Forbidden."""
    require_admin(caller, "resume the queue")
    with ctx.records.write() as tx:
        tx.set_value(InstallationKey.PAUSED, None, ctx.clock.now())
    ctx.notifier.publish(Topic.CONTROL)

"""Pause: no new job starts until resume; durable, so it survives restarts."""

from __future__ import annotations

from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.times import iso
from gpuq.engine.access import require_admin
from gpuq.engine.context import Context
from gpuq.ports.notify import Topic

KEY = "paused"


def pause(ctx: Context, caller: Caller, reason: str | None = None) -> dict[str, Any]:
    """Stores that the queue is paused, by whom and why, and returns that. Raises Forbidden for all but
    administrators."""
    require_admin(caller, "pause the queue")
    now = ctx.clock.now()
    value = {"by": caller.user, "reason": reason, "at": iso(now)}
    with ctx.records.write() as tx:
        tx.set_value(KEY, value, now)
    ctx.notifier.publish(Topic.CONTROL)
    return value


def resume(ctx: Context, caller: Caller) -> None:
    """Ends a pause. Raises Forbidden for all but administrators."""
    require_admin(caller, "resume the queue")
    with ctx.records.write() as tx:
        tx.set_value(KEY, None, ctx.clock.now())
    ctx.notifier.publish(Topic.CONTROL)


def paused(ctx: Context) -> dict[str, Any] | None:
    """`{"by", "reason", "at"}` while the queue is paused."""
    with ctx.records.read() as tx:
        value: dict[str, Any] | None = tx.value(KEY)
        return value


def pause_text(value: dict[str, Any]) -> str:
    return f"the queue is paused by {value['by']}" + (f": {value['reason']}" if value.get("reason") else "")

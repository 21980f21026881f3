"""Limits of groups: how many jobs of a group may run at once, whoever they belong to."""

from __future__ import annotations

from gpuq.domain.caller import Caller
from gpuq.engine.actions.limits import set_limits
from gpuq.engine.context import ActionContext


def limit_group(ctx: ActionContext, name: str, running: int, caller: Caller) -> None:
    """`running` 0: no limit. Durable; jobs that run go on. Raises Forbidden."""
    set_limits(ctx, "group", name, {"running": running or None}, caller)

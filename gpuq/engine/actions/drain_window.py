"""A planned drain: of the machine or some GPUs, from a time on; durable, so it also applies when a daemon was away."""

from __future__ import annotations

from collections.abc import Collection

from gpuq.domain.caller import Caller
from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.window import LATEST, Window
from gpuq.engine.access import require_admin
from gpuq.engine.context import ActionContext
from gpuq.errors import NotFound, UsageError
from gpuq.ports.notify import Topic


def plan_drain(
    ctx: ActionContext,
    caller: Caller,
    at: float,
    *,
    until: float | None = None,
    gpus: Collection[int] | None = None,
    reason: str | None = None,
) -> Window:
    """In place of the one that was planned before, if any. `at` and `until` in epoch seconds (None: until
    `cancel_drain`), `gpus` by index (None: the whole machine). Raises Forbidden, UsageError, NotFound."""
    require_admin(caller, "plan a drain")
    now = ctx.clock.now()
    if not 0 <= at <= LATEST or (until is not None and until > LATEST):
        raise UsageError("at: a drain can be planned until the year 2100")
    if until is not None and until <= max(at, now):
        raise UsageError("until: the drain would be over before it begins", hint="write a later --until, or none")
    window = Window(at, until, _uuids(ctx, gpus), caller.user, reason)
    with ctx.records.write() as tx:
        tx.set_value(InstallationKey.MAINTENANCE.of(ctx.node), window.to_stored(), now)
    ctx.notifier.publish(Topic.CONTROL)
    return window


def cancel_drain(ctx: ActionContext, caller: Caller) -> None:
    """Jobs start again as if none had been planned; does nothing where none was. Raises Forbidden."""
    require_admin(caller, "cancel a drain")
    with ctx.records.write() as tx:
        tx.set_value(InstallationKey.MAINTENANCE.of(ctx.node), None, ctx.clock.now())
    ctx.notifier.publish(Topic.CONTROL)


def _uuids(ctx: ActionContext, gpus: Collection[int] | None) -> tuple[str, ...] | None:
    if gpus is None:
        return None
    known = {gpu.index: gpu.uuid for gpu in ctx.gpus.inventory()}
    for index in gpus:
        if index not in known:
            raise NotFound(f"this machine has no gpu {index}", hint="`gpuq gpus` lists them")
    return tuple(known[index] for index in dict.fromkeys(gpus))

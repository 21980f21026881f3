"""Drain: a GPU is taken out of the queue until undrain; durable, so it survives restarts."""

from __future__ import annotations

from gpuq.domain.caller import Caller
from gpuq.domain.gpu import Gpu
from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.times import iso
from gpuq.engine.access import require_admin
from gpuq.engine.context import ActionContext
from gpuq.errors import NotFound
from gpuq.ports.notify import Topic


def drain(ctx: ActionContext, index: int, caller: Caller, reason: str | None = None) -> None:
    """Nothing new starts on it; what runs there goes on. Survives restarts. Raises NotFound, Forbidden."""
    require_admin(caller, "drain a GPU")
    gpu = _by_index(ctx, index)
    now = ctx.clock.now()
    value = {"by": caller.user, "reason": reason, "at": iso(now)}
    with ctx.records.write() as tx:
        tx.set_value(InstallationKey.DRAINED.of(ctx.node, gpu.uuid), value, now)
    ctx.notifier.publish(Topic.CONTROL)


def undrain(ctx: ActionContext, index: int, caller: Caller) -> None:
    """New jobs may start on it again. Raises NotFound, Forbidden."""
    require_admin(caller, "undrain a GPU")
    gpu = _by_index(ctx, index)
    with ctx.records.write() as tx:
        tx.set_value(InstallationKey.DRAINED.of(ctx.node, gpu.uuid), None, ctx.clock.now())
    ctx.notifier.publish(Topic.CONTROL)


def _by_index(ctx: ActionContext, index: int) -> Gpu:
    for gpu in ctx.gpus.inventory():
        if gpu.index == index:
            return gpu
    raise NotFound(f"this machine has no gpu {index}", hint="`gpuq gpus` lists them")

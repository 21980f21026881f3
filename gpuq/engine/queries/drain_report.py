"""The planned drain of this node, as answers tell it."""

from __future__ import annotations

from typing_extensions import TypedDict

from gpuq.domain.times import iso
from gpuq.domain.window import Window
from gpuq.engine.context import QueryContext
from gpuq.engine.switches import planned_drain
from gpuq.ports.records import Reader


class DrainView(TypedDict):
    """The JSON of a planned drain. Times in ISO 8601 (UTC); `until` null: until `gpuq undrain`; `gpus` by index, null:
    the whole machine. `begun`: nothing new starts there now."""

    at: str | None
    until: str | None
    gpus: list[int] | None
    reason: str | None
    by: str
    begun: bool


def report(ctx: QueryContext, tx: Reader) -> DrainView | None:
    """None when none is planned, or it is over."""
    window = planned_drain(tx, ctx.node)
    now = ctx.clock.now()
    return None if window is None or window.over(now) else view(ctx, window, now)


def view(ctx: QueryContext, window: Window, now: float) -> DrainView:
    """Ready for JSON."""
    covered = [gpu.index for gpu in ctx.gpus.inventory() if window.covers(gpu.uuid)]
    return {
        "at": iso(window.at),
        "until": iso(window.until),
        "gpus": None if window.gpus is None else sorted(covered),
        "reason": window.reason,
        "by": window.by,
        "begun": window.began(now),
    }

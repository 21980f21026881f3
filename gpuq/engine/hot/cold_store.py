"""Whether the hot store may be believed: only with the marker that the last rebuild left in SQL and in it."""

from __future__ import annotations

from gpuq.engine.context import HotContext


def is_cold(ctx: HotContext) -> bool:
    """Whether the hot store was emptied, replaced, or never filled. Raises HotStoreUnavailable."""
    found = ctx.queue.epoch()
    return found is None or found != ctx.epoch.refresh()

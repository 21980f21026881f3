"""Telling the hot queue about committed changes. Only hints: whatever is missed here is found again by maintenance."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gpuq.engine.context import Context
from gpuq.errors import HotStoreCold, HotStoreUnavailable
from gpuq.ports.hot_queue import Member
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)


def offer(ctx: Context, members: Sequence[Member]) -> None:
    """Queued jobs become visible to the agent."""
    if not members:
        return
    try:
        ctx.queue.add(members)
    except HotStoreUnavailable as error:
        log.debug("hot queue not told of %d jobs: %s", len(members), error.message)
        missed(ctx, error)
    ctx.notifier.publish(Topic.QUEUE)


def missed(ctx: Context, error: HotStoreUnavailable) -> None:
    """A queued job may not stand in the hot queue now, although Redis may be whole again in a moment: it was out of
    memory, or did not answer in time. A cold store needs no such word, because its rebuild reads everything."""
    if not isinstance(error, HotStoreCold):
        ctx.notifier.publish(Topic.MISSED)


def withdraw(ctx: Context, members: Sequence[tuple[int, int]]) -> None:
    """(job id, gpus): jobs that are not queued any more. A member left behind fails the claim's guard."""
    if not members:
        return
    try:
        ctx.queue.remove(members)
    except HotStoreUnavailable as error:
        log.debug("hot queue not told that %d jobs left: %s", len(members), error.message)

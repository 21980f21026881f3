"""Telling the hot queue about committed changes. Only hints: rehydration finds whatever is missed here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gpuq.engine.context import Context
from gpuq.errors import HotStoreUnavailable
from gpuq.ports.hot_queue import Member

log = logging.getLogger(__name__)


def offer(ctx: Context, members: Sequence[Member]) -> None:
    """Queued jobs become visible to the agent."""
    if not members:
        return
    try:
        ctx.queue.add(members)
    except HotStoreUnavailable as error:
        log.debug("hot queue not told of %d jobs: %s", len(members), error.message)
    ctx.notifier.publish("queue")


def withdraw(ctx: Context, members: Sequence[tuple[int, int]]) -> None:
    """(job id, gpus): jobs that are not queued any more. A member left behind fails the claim's guard."""
    if not members:
        return
    try:
        ctx.queue.remove(members)
    except HotStoreUnavailable as error:
        log.debug("hot queue not told that %d jobs left: %s", len(members), error.message)

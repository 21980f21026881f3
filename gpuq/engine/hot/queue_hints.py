"""Hints to the hot queue after a commit. Losing one only delays: maintenance finds again whatever is missed here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gpuq.engine.context import Context
from gpuq.errors import HotStoreCold, HotStoreUnavailable
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)


def publish_jobs(ctx: Context, entries: Sequence[QueueEntry]) -> None:
    """Queued jobs become visible to the agent."""
    if not entries:
        return
    try:
        ctx.queue.add(entries)
    except HotStoreUnavailable as error:
        log.debug("hot queue not told of %d jobs: %s", len(entries), error.message)
        note_missed_hint(ctx, error)
    ctx.notifier.publish(Topic.QUEUE)


def note_missed_hint(ctx: Context, error: HotStoreUnavailable) -> None:
    """Asks maintenance to compare the hot queue with SQL soon, because a queued job may be absent from it: Redis was
    out of memory or did not answer in time. A cold store needs no such request: its rebuild reads every queued job."""
    if not isinstance(error, HotStoreCold):
        ctx.notifier.publish(Topic.MISSED)


def unpublish_jobs(ctx: Context, entries: Sequence[tuple[int, int]]) -> None:
    """(job id, gpus): jobs that are not queued any more. A member left behind fails the claim's guard."""
    if not entries:
        return
    try:
        ctx.queue.remove(entries)
    except HotStoreUnavailable as error:
        log.debug("hot queue not told that %d jobs left: %s", len(entries), error.message)

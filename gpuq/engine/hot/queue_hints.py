"""Hints to the hot queue after a commit. Losing one only delays: maintenance finds again whatever is missed here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from gpuq.engine.context import HotContext
from gpuq.errors import HotStoreCold, HotStoreUnavailable
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)


def publish_jobs(ctx: HotContext, entries: Sequence[QueueEntry]) -> None:
    """Queued jobs become visible to the agent."""
    if not entries:
        return
    _add(ctx, entries)
    ctx.notifier.publish(Topic.QUEUE)


def publish_known_jobs(ctx: HotContext, entries: Sequence[QueueEntry]) -> None:
    """As `publish_jobs`, of jobs that the agent of this process knows already: it needs not look at the queue anew."""
    if not entries:
        return
    _add(ctx, entries)
    ctx.notifier.publish_elsewhere(Topic.QUEUE)


def _add(ctx: HotContext, entries: Sequence[QueueEntry]) -> None:
    try:
        ctx.queue.add(entries)
    except HotStoreUnavailable as error:
        log.debug("hot queue not told of %d jobs: %s", len(entries), error.message)
        note_missed_hint(ctx, error)


def note_missed_hint(ctx: HotContext, error: HotStoreUnavailable) -> None:
    """A queued job may not stand in the hot queue now, although Redis may be whole again in a moment: it was out of
    memory, or did not answer in time. A cold store needs no such word, because its rebuild reads everything."""
    if not isinstance(error, HotStoreCold):
        ctx.notifier.publish(Topic.MISSED)


def unpublish_jobs(ctx: HotContext, entries: Sequence[tuple[int, int]]) -> None:
    """(job id, gpus): jobs that are not queued any more. A member left behind fails the claim's guard."""
    if not entries:
        return
    try:
        ctx.queue.remove(entries)
    except HotStoreUnavailable as error:
        log.debug("hot queue not told that %d jobs left: %s", len(entries), error.message)

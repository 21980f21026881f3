"""The first step of a start: its job leaves the hot queue and its GPUs are leased, all of them or none; and the two
ways back."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from gpuq.domain import failpoints
from gpuq.domain.gpu import Gpu
from gpuq.engine.context import Context
from gpuq.engine.hot.queue_hints import note_missed_hint
from gpuq.errors import HotStoreUnavailable
from gpuq.ports.hot_queue import GpuClaim, QueueEntry, Taken
from gpuq.ports.records import Waiting
from gpuq.scheduler.snapshot import Start

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leased:
    """A start whose leases are set and of which SQL knows nothing yet: so it is no attempt, and the job may turn out
    to be another one than was planned with. `waiting`: what the plan knew of it."""

    waiting: Waiting
    token: str
    gpus: tuple[Gpu, ...]

    @property
    def entry(self) -> QueueEntry:
        return QueueEntry(self.waiting.id, self.waiting.gpus, self.waiting.score)


def take_leases(
    ctx: Context,
    starts: Sequence[Start],
    waiting: Mapping[int, Waiting],
    ended_tokens: Sequence[str],
    unlisted: Container[int] = (),
) -> list[Leased]:
    """Those of the starts whose GPUs were free, or leased by `ended_tokens` alone. `unlisted`: ids of jobs that may not
    stand in the hot queue yet. Raises HotStoreUnavailable when nothing was leased."""
    gpus = ctx.gpu_by_uuid()
    leased: list[Leased] = []
    for start in starts:
        facts = waiting[start.job_id]
        chosen = tuple(gpus[uuid] for uuid in start.gpu_uuids)
        item = Leased(facts, ctx.new_token(), chosen)
        claims = [GpuClaim(gpu.uuid, facts.gpu_mem_mb, gpu.memory_mb) for gpu in chosen]
        try:
            answer = ctx.leases.take(
                item.entry,
                ctx.node,
                item.token,
                claims,
                ctx.settings.lease_ttl,
                ended_tokens,
                facts.id in unlisted,
            )
        except HotStoreUnavailable as error:
            # The answer may have been lost, not the call: then the member is gone, and the leases expire.
            note_missed_hint(ctx, error)
            if not leased:
                raise
            break
        if answer is Taken.TAKEN:
            leased.append(item)
            failpoints.point("lease.taken")
        elif answer is Taken.BUSY:
            log.warning("job %d: a GPU of %s is still leased to somebody", facts.id, [gpu.index for gpu in chosen])
    return leased


def give_back(ctx: Context, item: Leased) -> None:
    """The job stands in line again. Best effort: if Redis is away too, the leases expire and rehydration puts the
    member back."""
    try:
        ctx.leases.give_back(item.entry, ctx.node, item.token, [gpu.uuid for gpu in item.gpus])
    except HotStoreUnavailable as error:
        log.warning("job %d: lease not given back: %s", item.waiting.id, error.message)
        note_missed_hint(ctx, error)


def release(ctx: Context, item: Leased) -> None:
    """The GPUs alone: the job does not wait any more. Best effort, as leases expire."""
    try:
        ctx.leases.release(ctx.node, item.token, [gpu.uuid for gpu in item.gpus])
    except HotStoreUnavailable as error:
        log.warning("job %d: lease not released: %s", item.waiting.id, error.message)

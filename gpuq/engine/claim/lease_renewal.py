"""Keeping the leases of live attempts, and letting go of those that ended.

A lease is renewed three times in its TTL, all of this node's in one script that compares tokens. A lost lease is
not a lost job: the ledger of live attempts keeps its GPUs from being given again, and the lease is set anew.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.engine.node_lock import NodeLocks
from gpuq.errors import HotStoreUnavailable
from gpuq.ports.hot_queue import GpuClaim

log = logging.getLogger(__name__)


class LeaseRenewer:
    """`due_at`: monotonic seconds of the next renewal. `trouble`: why the last one was not made."""

    def __init__(self, ctx: Context, locks: NodeLocks) -> None:
        self._ctx = ctx
        self._locks = locks
        self._every_s = ctx.settings.lease_ttl / 3
        self.due_at = 0.0
        self.trouble: HotStoreUnavailable | None = None
        self._to_release: list[tuple[str, tuple[str, ...]]] = []

    def renew(self, tracked_attempts: Collection[TrackedAttempt]) -> None:
        """Renews the agent's key and the attempts' leases once they are due; a lease that is gone is set again.
        Without Redis it logs the first failure and is due again within a second."""
        now = self._ctx.clock.monotonic()
        if now < self.due_at:
            return
        self.due_at = now + self._every_s
        held = [tracked for tracked in tracked_attempts if tracked.gpu_uuids]
        try:
            self._locks.renew()
            if not self._locks.held:
                # The other agent has adopted what lives here and keeps its leases.
                return
            self._release_now()
            if held:
                pairs = [(tracked.token, tracked.gpu_uuids) for tracked in held]
                lost = set(self._ctx.leases.renew(self._ctx.node, pairs, self._ctx.settings.lease_ttl))
                for tracked in held:
                    if tracked.token in lost:
                        log.warning("job %d: lease was gone, set again", tracked.job.id)
                        hold_again(self._ctx, tracked.token, tracked.gpu_uuids, tracked.mem_mb, self._ctx.node)
            self.trouble = None
        except HotStoreUnavailable as error:
            self.due_at = now + min(1.0, self._every_s)
            if self.trouble is None:
                log.warning("leases not renewed: %s", error.message)
            self.trouble = error

    def release(self, ended: Sequence[TrackedAttempt], given: Collection[str] = ()) -> None:
        """After the commit of their end. What Redis does not hear now is released later, or expires. On the GPUs
        `given` to others their leases have made way already."""
        for tracked in ended:
            if left := tuple(uuid for uuid in tracked.gpu_uuids if uuid not in given):
                self._to_release.append((tracked.token, left))
        try:
            self._release_now()
        except HotStoreUnavailable as error:
            log.warning("leases not released yet: %s", error.message)
            self.due_at = 0.0

    def _release_now(self) -> None:
        while self._to_release:
            token, uuids = self._to_release[-1]
            self._ctx.leases.release(self._ctx.node, token, uuids)
            self._to_release.pop()


def hold_again(ctx: Context, token: str, uuids: Sequence[str], mem_mb: int | None, node: str) -> None:
    """Sets the leases of an attempt that is known to live. A GPU that this process does not see counts as 0 MiB
    in all, which matters for shares only."""
    sizes = {gpu.uuid: gpu.memory_mb for gpu in ctx.gpus.inventory()}
    claims = [GpuClaim(uuid, mem_mb, sizes.get(uuid, 0)) for uuid in uuids]
    ctx.leases.hold(node, token, claims, ctx.settings.lease_ttl)

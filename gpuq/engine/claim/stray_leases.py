"""Leases that no attempt of this node has, and that keep a GPU from being given all the same.

An agent that died between lease and claim leaves one, which ends by itself within its TTL. One that outlives that was
written by somebody else, and nobody will take it back: this agent has the node, so nobody else may hold its GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.engine.start_obstacles import StartObstacles
from gpuq.errors import HotStoreUnavailable

log = logging.getLogger(__name__)


class StrayLeases:
    """One agent's, for its node."""

    def __init__(self, ctx: Context, obstacles: StartObstacles) -> None:
        self._ctx = ctx
        self._obstacles = obstacles
        # (GPU uuid, token) → when it was first seen, monotonic seconds.
        self._seen: dict[tuple[str, str], float] = {}

    def look_again(self, known: Collection[TrackedAttempt]) -> None:
        """While some were seen: whether they have gone."""
        if self._seen:
            self.look(known)

    def look(self, known: Collection[TrackedAttempt]) -> None:
        """After a start that found a GPU leased. `known`: all attempts that may have leases. A Redis that is away is
        the next plan's trouble."""
        try:
            self._release_old({tracked.token for tracked in known})
        except HotStoreUnavailable as error:
            log.debug("leases not looked at: %s", error.message)
            return
        if self._seen:
            gpus = self._ctx.gpu_by_uuid()
            names = sorted({str(gpus[uuid].index) if uuid in gpus else uuid for uuid, _ in self._seen})
            why = f"Redis says that somebody else holds GPU {', '.join(names)}; it is freed within a minute"
            self._obstacles.meet("lease", why)
        else:
            self._obstacles.clear("lease")
            self._obstacles.tell()

    def _release_old(self, known: Collection[str]) -> None:
        now, ctx = self._ctx.clock.monotonic(), self._ctx
        found = ctx.leases.holders(ctx.node, ctx.gpu_by_uuid())
        strays = [(uuid, token) for uuid, held in found.items() for token in held if token not in known]
        self._seen = {stray: self._seen.get(stray, now) for stray in strays}
        for (uuid, token), since in list(self._seen.items()):
            if now - since > ctx.settings.lease_ttl:
                log.error("a lease of GPU %s outlived its time and is no attempt's: released (%.40s)", uuid, token)
                ctx.leases.release(ctx.node, token, [uuid])
                del self._seen[uuid, token]

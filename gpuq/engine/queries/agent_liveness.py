"""Whether an agent serves this node, here or on another machine that shares the database and the Redis."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from gpuq.engine.file_lock import is_held
from gpuq.errors import HotStoreUnavailable

if TYPE_CHECKING:
    from gpuq.engine.context import QueryContext

# Lists are asked for far more often than agents come and go.
ASK_REDIS_EVERY_S = 1.0


class AgentLiveness:
    """One per process; thread-safe.

    The file lock of this home dies with its holder, and trying it costs microseconds, so a lock that is held answers
    at once. Otherwise the agent's key in Redis shows whether one runs on another home or machine; it may outlive an
    agent that was killed by at most its TTL, the lease time. While Redis is away the file lock is all there is.
    """

    def __init__(self, ctx: QueryContext) -> None:
        self._ctx = ctx
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._elsewhere = False

    def is_alive(self) -> bool:
        return is_held(self._ctx.agent_lock_path) or self._is_elsewhere()

    def _is_elsewhere(self) -> bool:
        with self._lock:
            now = self._ctx.clock.monotonic()
            if self._asked_at is None or now - self._asked_at >= ASK_REDIS_EVERY_S:
                try:
                    self._elsewhere = self._ctx.agent_key.holder(self._ctx.node) is not None
                except HotStoreUnavailable:
                    self._elsewhere = False
                self._asked_at = self._ctx.clock.monotonic()
            return self._elsewhere

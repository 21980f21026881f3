"""One agent a node: a file lock that dies with its holder, a key in Redis against an agent on another home, and a
fence in SQL against one that was suspended meanwhile.

The key has a TTL, so another agent may take it from one that sleeps. The fence is the token of the agent that took the
node last, and every claim reads it in its own transaction. Transactions that write come one after the other: either
the sleeper's claim was committed before the fence changed hands, and the other one has adopted it, or it is refused.
"""

from __future__ import annotations

import json
import logging

from gpuq.domain.installation_keys import InstallationKey
from gpuq.engine.file_lock import FileLock
from gpuq.errors import AlreadyRunning, HotStoreUnavailable, NodeTaken
from gpuq.ports.hot_queue import AgentKey
from gpuq.ports.records import Reader, Records

log = logging.getLogger(__name__)


class Fence:
    """Whether the agent with this token may give the GPUs of this node."""

    def __init__(self, node: str, token: str) -> None:
        self._key = InstallationKey.AGENT.of(node)
        self._runs_key = InstallationKey.RUNS.of(node)
        self._token = token

    def check(self, tx: Reader) -> None:
        """In the transaction of what rests on it. Raises NodeTaken."""
        if tx.value(self._key) != self._token:
            raise NodeTaken("another agent took this node", hint="one agent a node; set GPUQ_NODE on the other home")

    def take(self, records: Records, now: float, runs: str | None = None) -> bool:
        """False when it was ours all the time. `runs`: the folder in which the node's jobs have their own; attempts in
        it need not name theirs. Raises DatabaseUnavailable."""
        with records.write() as tx:
            if tx.value(self._key) == self._token:
                return False
            tx.set_value(self._key, self._token, now)
            # Once and for all: attempts of before rest on it. A later home names its folders in full; and so does one
            # that JSON writes in another way than between quotes, which is how the database takes it.
            plain = runs is not None and json.dumps(runs, ensure_ascii=False) == f'"{runs}"'
            if plain and tx.value(self._runs_key) is None:
                tx.set_value(self._runs_key, runs, now)
        return True


class NodeLocks:
    """All locks of an agent. The key is renewed with the leases.

    `held`: the key was ours when it was last asked. `tenure` counts how often it was taken: when it changes, somebody
    else may have had the node in between.
    """

    def __init__(self, lock: FileLock, key: AgentKey, *, node: str, token: str, ttl_s: float) -> None:
        self._lock = lock
        self._key = key
        self._node = node
        self._token = token
        self._ttl_s = ttl_s
        self.fence = Fence(node, token)
        self.held = False
        self.tenure = 0

    def acquire(self) -> None:
        """Raises AlreadyRunning. A Redis that is away does not keep the agent from starting: it adopts what runs and
        starts nothing until Redis is back."""
        self._lock.acquire()
        try:
            taken = self._key.acquire(self._node, self._token, self._ttl_s)
        except HotStoreUnavailable as error:
            log.warning("agent key not set: %s", error.message)
            return
        if not taken:
            self._lock.release()
            raise AlreadyRunning(
                f"another agent serves the node {self._node!r} through this Redis",
                hint=f"one agent a node; if it died, its key goes by itself within {self._ttl_s:g} s; "
                "else set GPUQ_NODE or GPUQ_NAMESPACE",
            )
        self._taken()

    def renew(self) -> None:
        """Raises HotStoreUnavailable."""
        if self._key.renew(self._node, self._token, self._ttl_s):
            if not self.held:
                self._taken()
        # Flushed or expired during an outage or a suspension: taken again if nobody else has it.
        elif self._key.acquire(self._node, self._token, self._ttl_s):
            self._taken()
        else:
            if self.held:
                log.error(
                    "another agent took the node %r: this one starts nothing until that one is gone; one agent a node, "
                    "set GPUQ_NODE on one of the two homes",
                    self._node,
                )
            self.held = False

    def _taken(self) -> None:
        self.held = True
        self.tenure += 1

    def release(self) -> None:
        """Gives the agent's key and the file lock up. Without Redis the key ends by its TTL."""
        try:
            self._key.release(self._node, self._token)
        except HotStoreUnavailable as error:
            log.debug("agent key expires by itself: %s", error.message)
        self._lock.release()

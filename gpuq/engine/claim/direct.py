"""A job that starts with its submission: the lease first, then its row and its claim in one transaction.

The usual road takes two commits: the submission writes `queued`, the agent comes, plans, leases, and writes `starting`.
Where a job is alone, nothing is gained by that. So the submission, before it writes, asks the agent for a chance:

1. It takes the agent's lock, if the agent is between two turns; else the job goes the usual road. The agent stands
   still until the job is launched, so that its ledger and what it has read belong to one thread at a time, as ever.
2. The plan that every start comes from is made for this one job: limits, drained GPUs, foreign processes, accounts and
   the lane of jobs without GPUs count as they always do. Only if it says `Start`, and nothing else, there is a chance.
3. The GPUs are leased under a new token.
4. In the submission's transaction the job is stored as `queued`, with its event, and then moved to `starting` with its
   attempt, by the same guarded writes as on the usual road: if it is the only queued job in SQL, and the node's fence
   is the agent's.
5. After the commit the answer goes out; behind it the attempt is launched, and the agent goes on.

What a crash leaves, by the named points of `gpuq.domain.failpoints`:

| dies at                | SQL says      | leases | who finds it                                                       |
|------------------------|---------------|--------|--------------------------------------------------------------------|
| `lease.taken`          | nothing       | held   | they expire; who asked has no answer, and asks again               |
| `submit.before_commit` | nothing       | held   | likewise                                                           |
| `submit.committed`     | `starting`    | held   | the next agent: what never ran is `lost`, and uses no retry        |
| `submit.claimed`       | `starting`    | held   | likewise; who asked may have been answered                         |
| `launch.*` and later   | `starting`    | held   | as on the usual road                                               |

A submission that is refused, or whose commit fails, gives the leases back. One that is stored and finds that it may not
be claimed after all (somebody else's job came into line, the node was taken) gives them back, too, and its job waits in
line like any other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuq.domain import failpoints
from gpuq.engine.attempt.watcher import AttemptWatcher
from gpuq.engine.claim.chance import Chance
from gpuq.engine.claim.dispatcher import Dispatcher
from gpuq.errors import GpuqError, HotStoreUnavailable
from gpuq.ports.records import Waiting

log = logging.getLogger(__name__)


class DirectStart:
    """`is_idle`: whether a turn of the agent that began now would find nothing to write, and may start something.
    `redis_failed`: what the agent does about that."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        attempts: AttemptWatcher,
        is_idle: Callable[[], bool],
        redis_failed: Callable[[HotStoreUnavailable], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._attempts = attempts
        self._is_idle = is_idle
        self._redis_failed = redis_failed
        self._lock = threading.Lock()
        self._wanted = False

    @contextmanager
    def kept_out(self) -> Iterator[None]:
        """For what the agent does by itself. It comes first: no submission gets in between while it waits."""
        self._wanted = True
        with self._lock:
            self._wanted = False
            yield

    @contextmanager
    def chance(self, job: Waiting) -> Iterator[Chance | None]:
        """Any thread: GPUs for a job that is about to be stored in the block, None when it has to go the usual road.
        What was claimed is launched when the block is left; until then the agent stands still."""
        chance = self._look(job)
        if chance is None:
            yield None
            return
        try:
            yield chance
        except Exception:
            self._settle(chance)
            raise
        else:
            self._settle(chance)
        finally:
            self._lock.release()

    def _look(self, job: Waiting) -> Chance | None:
        """With one, the lock is held."""
        if self._wanted or not self._lock.acquire(blocking=False):
            return None
        chance = None
        try:
            if self._is_idle():
                chance = self._dispatcher.look_for_chance(job, self._attempts.holding)
        except HotStoreUnavailable as error:
            self._redis_failed(error)
        except GpuqError as error:
            log.debug("job not started with its submission: %s", error.message)
        finally:
            if chance is None:
                self._lock.release()
        return chance

    def _settle(self, chance: Chance) -> None:
        if chance.claimed is None:
            chance.give_up()
            return
        failpoints.point("submit.claimed")
        self._attempts.launch(chance.claimed)

"""The agent: one a node. It wakes on notification, plans, commits, launches, and writes down what ended.

One turn, in this order:

| step   | when                                     | what is so after it                                            |
|--------|------------------------------------------|----------------------------------------------------------------|
| hear   | always; waits until something is due     | the ledger knows every start, end and wake-up up to now        |
| renew  | three times in a lease's TTL             | leases and node are ours for a TTL, or known to be another's   |
| prove  | the node was taken since the last proof  | the fence is ours; what others started is in the ledger        |
| starts | `write_at` has passed                    | SQL says `running` of all that run                             |
| plan   | something ended, or `plan_at` has passed | what can start is leased, then claimed in SQL, then launched;  |
|        |                                          | the ends were written with the first claim                     |
| ends   | some are not written yet                 | they are, and their leases are released                        |
| list   | new jobs were handed over (`hear`)       | those that did not start stand in the hot queue                |
| sample | `sample_at` has passed                   | peaks are known, and written where they outgrew the request    |
| limits | a time limit has passed                  | SQL says `stopping` (the supervisor stops it by itself)        |

From prove to ends all is left out, and tried again a little later, while SQL does not answer; plan alone while Redis
does not. One thread does all of it; between two turns a submission may start its own job (`claim.direct`). Notify for
speed, poll for truth: every source of events is also looked at slowly by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence

from gpuq.domain import failpoints
from gpuq.engine.attempt.idle import record_usage
from gpuq.engine.attempt.launch_breaker import LaunchCircuitBreaker
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.attempt.updates import record_limits_reached, record_started
from gpuq.engine.attempt.watcher import AttemptWatcher, Happened
from gpuq.engine.claim.claim import write_turn
from gpuq.engine.claim.direct import DirectStart
from gpuq.engine.claim.dispatcher import POLL_S, Dispatcher
from gpuq.engine.claim.hot_trouble import HotTrouble
from gpuq.engine.claim.lease_renewal import LeaseRenewer
from gpuq.engine.claim.turn_state import TurnState
from gpuq.engine.context import Context
from gpuq.engine.node_lock import NodeLocks
from gpuq.engine.snapshot.builder import SnapshotBuilder
from gpuq.engine.snapshot.usage import sample
from gpuq.errors import DatabaseUnavailable, GpuqError, HotStoreUnavailable, NodeTaken
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)

SOON_S, SAMPLE_S = 0.5, 5.0  # after a store failed; between two looks at the GPUs
# A start is written this much later, together with others, or with its end if that comes first: a commit saved.
WRITE_AFTER_S = 0.02


class Agent:
    """A Service. `lock` keeps a second agent off this node. `last_turn_at`: epoch seconds, 0 before the first."""

    name = "agent"

    def __init__(self, ctx: Context, lock: NodeLocks) -> None:
        self._ctx = ctx
        self._lock = lock
        self._snapshots = SnapshotBuilder(ctx)
        self._lease_renewer = LeaseRenewer(ctx, lock)
        self._breaker = LaunchCircuitBreaker(ctx)
        self._obstacles = self._breaker.obstacles
        self._dispatcher = Dispatcher(ctx, self._snapshots, lock.fence, self._obstacles)
        self._hot_trouble = HotTrouble(ctx, self._obstacles)
        self._attempts = AttemptWatcher(ctx, self._breaker, self._write_soon)
        self._state = TurnState()
        self._write_after_s = WRITE_AFTER_S
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._unsubscribe: Callable[[], None] | None = None
        self.last_turn_at = 0.0
        self._direct = DirectStart(self._dispatcher, self._attempts, self._is_idle, self._hot_store_failed)
        self.hear, self.chance = self._dispatcher.hear, self._direct.chance  # for submissions, see `intake.to_agent`

    def start(self) -> None:
        """Opens, and takes turns on a thread of its own. Raises what `open` raises."""
        self.open()
        self._thread = threading.Thread(target=self._run, name="gpuq-agent", daemon=True)
        self._thread.start()

    def open(self) -> None:
        """Takes the node, hears of changes from now on, and adopts what SQL says is alive here: watched if its lock is
        held, ended as its exit record says if not. After it turns may be taken; `stop` ends it. Raises AlreadyRunning
        when this node has an agent; whatever it raises, it does not keep the node."""
        self._lock.acquire()
        try:
            self._breaker.open()
            self._unsubscribe = self._ctx.notifier.subscribe(self._on_topic)
            if self._lock.held:
                self._prove_standing(fresh=True)
            else:
                self._attempts.adopt()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """After the turn that is under way; the jobs run on. A second call does nothing."""
        if self._stopping:
            return
        self._stopping = True
        self._attempts.wake()
        if self._thread is not None:
            self._thread.join()
        if self._unsubscribe is not None:
            self._unsubscribe()
        with self._direct.kept_out():
            self._dispatcher.list_news()
            self._attempts.close()
        self._breaker.close()
        self._lock.release()

    def run_once(self) -> None:
        """A turn that leaves nothing unwritten. It plans, from all anew, if something ended or after `wake`."""
        self._dispatcher.forget()
        self.turn(0.0, write_after_s=0.0)

    def wake(self) -> None:
        """Any thread: something may be startable."""
        if not self._stopping:
            self._state.plan_at = 0.0
            self._attempts.wake()

    def _is_idle(self) -> bool:
        """Whether a turn that began now would find nothing to write, nothing that it has not seen, and might start."""
        if self._state.cache_stale or self._state.db_down or self._hot_trouble.lasts or self._attempts.ended:
            return False
        room = self._breaker.room.left(len(self._attempts.holding))
        return room > 0 and self._state.proved_tenure == self._lock.tenure and self._may_start()

    @property
    def tracked(self) -> Sequence[TrackedAttempt]:
        """The ledger, for reports; a copy that the agent's thread does not touch."""
        return list(self._attempts.tracked.values())

    def _on_topic(self, topic: Topic) -> None:
        if topic in {Topic.CHANGED, Topic.CONTROL}:
            self._state.cache_stale = True
        if topic in {Topic.QUEUE, Topic.CHANGED, Topic.LIVE, Topic.CONTROL} and not self._stopping:
            self._dispatcher.forget()
            self.wake()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.turn(self._timeout())
                self._obstacles.clear("agent")
            except GpuqError as error:
                log.warning("%s%s", error.message, f" ({error.hint})" if error.hint else "")
                self._plan_soon()
            except Exception as error:
                log.exception("a turn of the agent failed")
                self._obstacles.meet("agent", f"the agent fails: {type(error).__name__}: {error}")
                self._plan_soon()

    def _prove_standing(self, *, fresh: bool = False) -> None:
        """Nothing is given before this: the fence is ours, and what others started meanwhile stands in the ledger."""
        if self._lock.fence.take(self._ctx.records, self._ctx.clock.now(), str(self._ctx.home / "jobs")) or fresh:
            self._attempts.adopt()
        self._state.proved_tenure = self._lock.tenure

    def turn(self, timeout: float, *, write_after_s: float = WRITE_AFTER_S) -> None:
        """All steps of the table above. `timeout`: seconds to wait for something to happen; `write_after_s`: how much
        later a start may be written. A store that is away is logged, not raised, except for the last two steps."""
        self._write_after_s = write_after_s
        happened = self._attempts.wait(timeout)
        with self._direct.kept_out():
            self._hear(happened)
            self._lease_renewer.renew(self._attempts.tracked.values())
            self._write_and_plan()
            self._dispatcher.list_news()
            self._sample_gpus()
            record_limits_reached(self._ctx, self._attempts.tracked.values())
            self.last_turn_at = self._ctx.clock.now()

    def _write_and_plan(self) -> None:
        state = self._state
        due = self._ctx.clock.monotonic() >= state.plan_at
        try:
            if self._lock.held and state.proved_tenure != self._lock.tenure:
                self._prove_standing()
            if due or self._stopping or not state.db_down:
                self._write_starts()
                if (due or self._attempts.ended) and self._may_start():
                    self._dispatch()
                self._write_ends()
        except DatabaseUnavailable as error:
            # Nothing is forgotten: the ends stay in memory and in the attempts' records. Leases are still renewed.
            if not state.db_down:
                log.warning("nothing is started now; starts and ends are written later: %s", error.message)
            state.db_down = True
            self._dispatcher.forget()
            self._plan_soon()
            state.write_at = state.plan_at
        else:
            state.db_down = state.db_down and not due

    def _sample_gpus(self) -> None:
        now, tracked_attempts = self._ctx.clock.monotonic(), self._attempts.tracked.values()
        if now >= self._state.sample_at and any(tracked.gpu_uuids for tracked in tracked_attempts):
            self._state.sample_at = now + SAMPLE_S
            sample(self._snapshots.observe(), tracked_attempts)
            record_usage(self._ctx, tracked_attempts)

    def _may_start(self) -> bool:
        if self._stopping or not self._lock.held:
            if self._lease_renewer.trouble is not None:
                self._hot_trouble.met(self._lease_renewer.trouble)
            return False
        if self._breaker.is_open():
            self._plan_soon()
            return False
        return True

    def _plan_soon(self) -> None:
        """Not at once: what failed now would fail again."""
        self._state.plan_at = self._ctx.clock.monotonic() + SOON_S

    def _timeout(self) -> float:
        with self._direct.kept_out():
            now, wall = self._ctx.clock.monotonic(), self._ctx.clock.now()
            if self._attempts.ended:
                return SOON_S
            attempts = self._attempts.tracked.values()
            limits = [limit - wall for tracked in attempts if (limit := tracked.unrecorded_limit) is not None]
            limits.append(SOON_S if self._attempts.unwatched else POLL_S)
            if self._attempts.unrecorded:
                limits.append(self._state.write_at - now)
            return max(0.0, min(self._state.plan_at - now, self._lease_renewer.due_at - now, *limits))

    def _hear(self, happened: Happened) -> None:
        if self._attempts.hear(happened):
            # Again here, because what `wake` wrote may have met a write of this thread.
            self._state.plan_at = 0.0
        if self._state.cache_stale:
            self._state.cache_stale = False
            self._snapshots.forget()

    def _write_soon(self) -> None:
        self._state.write_at = self._ctx.clock.monotonic() + self._write_after_s

    def _write_starts(self) -> None:
        """All starts of this turn in one transaction."""
        unrecorded = self._attempts.unrecorded
        if unrecorded and self._ctx.clock.monotonic() >= self._state.write_at:
            if started := [tracked for tracked in unrecorded if tracked.result is None]:
                record_started(self._ctx, started)
            self._attempts.unrecorded = []

    def _write_ends(self) -> None:
        """All ends of this turn in one transaction, unless they were written with the starts that followed them."""
        if ended := list(self._attempts.ended):
            log.debug("written: %s", write_turn(self._ctx, ended).states)
            self._ends_written(ended)

    def _ends_written(self, ended: Sequence[TrackedAttempt], given: Collection[str] = ()) -> None:
        """`given`: UUIDs of the GPUs that were leased to others in the same step."""
        ended = self._attempts.forget_ended(ended)
        self._lease_renewer.release(ended, given)
        failpoints.point("finish.released")
        for tracked in ended:
            if (run := tracked.finished_run()) is not None:
                self._ctx.run_times.learn(run)

    def _dispatch(self) -> None:
        """Starts what can start; the ends of this turn go with the first of it. Raises DatabaseUnavailable."""
        self._state.plan_at = self._ctx.clock.monotonic() + POLL_S
        self._dispatcher.begin()
        try:
            while self._start_some():
                pass
            self._hot_trouble.over()
        except NodeTaken:
            # It is asked who has the node before anything else is started.
            self._dispatcher.forget()
            self._state.proved_tenure = -1
            self._lease_renewer.due_at = self._state.plan_at = 0.0
        except HotStoreUnavailable as error:
            self._hot_store_failed(error)

    def _hot_store_failed(self, error: HotStoreUnavailable) -> None:
        self._dispatcher.forget()
        self._hot_trouble.met(error)
        self._plan_soon()

    def _start_some(self) -> bool:
        """Whether a further look may pay."""
        running, ended = self._attempts.holding, list(self._attempts.ended)
        done = self._dispatcher.start_some(running, ended, self._breaker.room.left(len(running)))
        self._breaker.see_room(len(running) + len(done.claimed), crowded=done.crowded)
        for tracked in done.claimed:
            self._attempts.launch(tracked)
        if ended and done.ends_written:
            self._ends_written(ended, {uuid for tracked in done.claimed for uuid in tracked.gpu_uuids})
        self._state.plan_at = min(self._state.plan_at, self._ctx.clock.monotonic() + done.again_s)
        return done.more

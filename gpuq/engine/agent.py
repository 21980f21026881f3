"""The agent: one a node. It wakes on notification, plans, commits, launches, and writes down what ended.

A turn is: hear (reports, ends, wake-ups) → renew leases → write starts → plan → claim, and write the ends → launch. One
thread does all of it, so the ledger of live attempts needs no lock. Notify for speed, poll for truth: every source of
events is also looked at slowly by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence

from gpuq.domain import failpoints
from gpuq.engine.attempt.launch_breaker import Obstacle
from gpuq.engine.attempt.tracked import Live
from gpuq.engine.attempt.updates import note_limit_reached, note_outgrown, note_started
from gpuq.engine.attempt.watcher import Watch, ends
from gpuq.engine.claim.dispatcher import POLL_S, Dispatcher
from gpuq.engine.claim.lease_renewal import Keeper
from gpuq.engine.context import Context
from gpuq.engine.node_lock import NodeLocks
from gpuq.engine.outcome.finish import finish
from gpuq.engine.snapshot.builder import Lookout
from gpuq.engine.snapshot.usage import sample
from gpuq.errors import DatabaseUnavailable, GpuqError, HotStoreCold, HotStoreUnavailable, NodeTaken
from gpuq.ports.history import FinishedRun
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)

# After a store failed.
SOON_S = 0.5
SAMPLE_S = 5.0
# A start is written this much later, together with others, or with its end if that comes first: a commit saved.
NOTE_AFTER_S = 0.02


class Agent:
    """A Service. `lock` keeps a second agent off this node."""

    name = "agent"

    def __init__(self, ctx: Context, lock: NodeLocks) -> None:
        self._ctx = ctx
        self._lock = lock
        self._lookout = Lookout(ctx)
        self._dispatcher = Dispatcher(ctx, self._lookout, lock.fence)
        self._keeper = Keeper(ctx, lock)
        self._obstacle = Obstacle(ctx)
        self._watch = Watch(ctx, self._obstacle, self._note_soon)
        self._note_at = 0.0
        self._note_after_s = NOTE_AFTER_S
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._forget = False
        # The tenure of the node for which this ledger is known to be whole.
        self._proved = -1
        self._away = False
        self._late = False
        self._look_at = 0.0
        self._sample_at = 0.0
        self._unsubscribe: Callable[[], None] | None = None
        self.last_turn_at = 0.0

    # -- service -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Adopts what runs, then begins. Raises AlreadyRunning when this node has an agent."""
        self._lock.acquire()
        self._unsubscribe = self._ctx.notifier.subscribe(self._heard)
        self.take_over()
        self._thread = threading.Thread(target=self._run, name="gpuq-agent", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self.wake()
        if self._thread is not None:
            self._thread.join()
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._watch.close()
        self._lock.release()

    def run_once(self) -> None:
        """A turn that leaves nothing unwritten and believes nothing it remembers."""
        self._dispatcher.forget()
        self.turn(0.0, note_after_s=0.0)

    def wake(self) -> None:
        """Any thread: something may be startable."""
        self._look_at = 0.0
        self._watch.wake()

    @property
    def live(self) -> Sequence[Live]:
        """The ledger, for reports; a copy that the agent's thread does not touch."""
        return list(self._watch.live.values())

    def _heard(self, topic: Topic) -> None:
        if topic in {Topic.CHANGED, Topic.CONTROL}:
            self._forget = True
        if topic in {Topic.QUEUE, Topic.CHANGED, Topic.CONTROL} and not self._stopping:
            self._dispatcher.forget()
            self.wake()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.turn(self._timeout())
            except GpuqError as error:
                log.warning("%s%s", error.message, f" ({error.hint})" if error.hint else "")
                self._look_at = self._ctx.clock.monotonic() + SOON_S
            except Exception:
                log.exception("a turn of the agent failed")
                self._look_at = self._ctx.clock.monotonic() + SOON_S

    def take_over(self) -> None:
        """What SQL says is alive here: adopted if its lock is held, finished from its exit record if not."""
        if self._lock.held:
            self._prove(fresh=True)
        else:
            self._watch.adopt()

    def _prove(self, *, fresh: bool = False) -> None:
        """Nothing is given before this: the fence is ours, and what others started meanwhile stands in the ledger."""
        if self._lock.fence.take(self._ctx.records, self._ctx.clock.now()) or fresh:
            self._watch.adopt()
        self._proved = self._lock.tenure

    # -- one turn ------------------------------------------------------------------------------------------------

    def turn(self, timeout: float, *, note_after_s: float = NOTE_AFTER_S) -> None:
        self._note_after_s = note_after_s
        self._hear(timeout)
        self._keeper.renew(self._watch.live.values())
        due = self._ctx.clock.monotonic() >= self._look_at
        try:
            if self._lock.held and self._proved != self._lock.tenure:
                self._prove()
            if due or self._stopping or not self._late:
                self._write_starts()
                if (due or self._watch.ended) and self._may_start():
                    self._dispatch()
                self._write_ends()
        except DatabaseUnavailable as error:
            # Nothing is forgotten: the ends stay in memory and in the attempt folders. Leases are still renewed.
            if not self._late:
                log.warning("nothing is started now; starts and ends are written later: %s", error.message)
            self._late = True
            self._dispatcher.forget()
            self._look_at = self._note_at = self._ctx.clock.monotonic() + SOON_S
        else:
            self._late = self._late and not due
        now = self._ctx.clock.monotonic()
        if now >= self._sample_at and any(live.gpu_uuids for live in self._watch.live.values()):
            self._sample_at = now + SAMPLE_S
            sample(self._lookout.observe(), self._watch.live.values())
            note_outgrown(self._ctx, self._watch.live.values())
        self._mark_limits()
        self.last_turn_at = self._ctx.clock.now()

    def _may_start(self) -> bool:
        if self._stopping or not self._lock.held:
            return False
        if self._obstacle.in_the_way():
            self._look_at = self._ctx.clock.monotonic() + SOON_S
            return False
        return True

    def _timeout(self) -> float:
        now = self._ctx.clock.monotonic()
        if self._watch.ended:
            return SOON_S
        wall = self._ctx.clock.now()
        # A start that is not written yet cannot be marked; it has a time of its own.
        limits = [
            live.limit_end - wall
            for live in self._watch.live.values()
            if live.limit_end is not None and live.noted and not live.stopping
        ]
        unwatched = SOON_S if self._watch.unwatched else POLL_S
        if self._watch.unnoted:
            limits.append(self._note_at - now)
        due = min([self._look_at - now, self._keeper.due_at - now, unwatched, *limits])
        return max(0.0, min(due, POLL_S))

    def _hear(self, timeout: float) -> None:
        if self._watch.hear(timeout):
            # Again here, because what `wake` wrote may have met a write of this thread.
            self._look_at = 0.0
        if self._forget:
            self._forget = False
            self._lookout.forget()

    def _note_soon(self) -> None:
        self._note_at = self._ctx.clock.monotonic() + self._note_after_s

    # -- writing -------------------------------------------------------------------------------------------------

    def _write_starts(self) -> None:
        """All starts of this turn in one transaction."""
        unnoted = self._watch.unnoted
        if unnoted and self._ctx.clock.monotonic() >= self._note_at:
            started = [live for live in unnoted if live.result is None]
            if started:
                note_started(self._ctx, started)
            self._watch.unnoted = []

    def _write_ends(self) -> None:
        """All ends of this turn in one transaction, unless they were written with the starts that followed them."""
        if ended := list(self._watch.ended):
            written = finish(self._ctx, ends(ended))
            log.debug("written: %s", written.states)
            self._ends_written(ended)

    def _ends_written(self, ended: Sequence[Live], given: Collection[str] = ()) -> None:
        """`given`: UUIDs of the GPUs that were leased to others in the same step."""
        self._watch.over(ended)
        self._keeper.release(ended, given)
        failpoints.point("finish.released")
        for live in ended:
            self._learn(live)

    def _learn(self, live: Live) -> None:
        result = live.result
        if result is None or result.started_at is None or result.finished_at is None:
            return
        self._ctx.run_times.learn(
            FinishedRun(
                job_id=live.job.id,
                user=live.job.user,
                gpus=live.job.gpus,
                command=live.job.command,
                time_limit_s=live.job.time_limit_s,
                outcome=result.outcome,
                run_s=max(0.0, result.finished_at - result.started_at),
                finished_at=result.finished_at,
            )
        )

    def _mark_limits(self) -> None:
        now = self._ctx.clock.now()
        for live in self._watch.live.values():
            if live.limit_end is not None and now >= live.limit_end and not live.stopping and live.noted:
                live.stopping = True
                note_limit_reached(self._ctx, live)

    # -- starting ------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Starts what can start; the ends of this turn go with the first of it. Raises DatabaseUnavailable."""
        self._look_at = self._ctx.clock.monotonic() + POLL_S
        self._dispatcher.begin()
        try:
            while self._start_some():
                pass
            self._away = False
        except NodeTaken:
            # It is asked who has the node before anything else is started.
            self._dispatcher.forget()
            self._proved = -1
            self._keeper.due_at = self._look_at = 0.0
        except HotStoreCold:
            self._dispatcher.forget()
            self._ctx.epoch.refresh()
            self._ctx.notifier.publish(Topic.COLD)
            self._look_at = self._ctx.clock.monotonic() + SOON_S
        except HotStoreUnavailable as error:
            self._dispatcher.forget()
            if not self._away:
                log.warning("nothing can be started now: %s", error.message)
            self._away = True
            self._look_at = self._ctx.clock.monotonic() + SOON_S

    def _start_some(self) -> bool:
        """Whether a further look may pay."""
        ended = list(self._watch.ended)
        done = self._dispatcher.start_some(self._watch.holding, ends(ended))
        for item in done.claimed:
            self._watch.launch(item)
        if ended and done.ends_written:
            self._ends_written(ended, {gpu.uuid for item in done.claimed for gpu in item.gpus})
        self._look_at = min(self._look_at, self._ctx.clock.monotonic() + done.again_s)
        return done.more

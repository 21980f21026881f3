"""The agent: one a node. It wakes on notification, plans, commits, launches, and writes down what ended.

A turn is: hear (reports, ends, wake-ups) → renew leases → write starts → plan → claim, and write the ends → launch. One
thread does all of it, so the ledger of live attempts needs no lock. Notify for speed, poll for truth: every source of
events is also looked at slowly by itself.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections.abc import Callable, Collection, Sequence

from gpuq.domain import faults
from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.engine.adopt import adopt, end_of
from gpuq.engine.context import Context
from gpuq.engine.dispatch import POLL_S, Dispatcher
from gpuq.engine.finish import Ended, finish
from gpuq.engine.launch import launch
from gpuq.engine.leasing import Keeper
from gpuq.engine.live import Live
from gpuq.engine.look import Lookout
from gpuq.engine.node_lock import NodeLocks
from gpuq.engine.notes import note_limit_reached, note_outgrown, note_started
from gpuq.engine.obstacle import Obstacle, is_machines_fault
from gpuq.engine.usage import sample
from gpuq.errors import DatabaseUnavailable, GpuqError, HotStoreCold, HotStoreUnavailable, NodeTaken
from gpuq.ports.history import FinishedRun
from gpuq.ports.launcher import LaunchOrder

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
        self._live: dict[int, Live] = {}
        self._ended: list[Live] = []
        self._unnoted: list[Live] = []
        self._note_at = 0.0
        self._note_after_s = NOTE_AFTER_S
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, None)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._forget = False
        self._obstacle = Obstacle(ctx)
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
        for live in self._live.values():
            self._forget_fd(live)
        self._selector.close()
        os.close(self._wake_fd)
        self._lock.release()

    def run_once(self) -> None:
        """A turn that leaves nothing unwritten and believes nothing it remembers."""
        self._dispatcher.forget()
        self.turn(0.0, note_after_s=0.0)

    def wake(self) -> None:
        """Any thread: something may be startable."""
        self._look_at = 0.0
        os.eventfd_write(self._wake_fd, 1)

    @property
    def live(self) -> Sequence[Live]:
        """The ledger, for reports; a copy that the agent's thread does not touch."""
        return list(self._live.values())

    def _heard(self, topic: str) -> None:
        if topic in {"changed", "control"}:
            self._forget = True
        if topic in {"queue", "changed", "control"} and not self._stopping:
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
            self._adopt()

    def _prove(self, *, fresh: bool = False) -> None:
        """Nothing is given before this: the fence is ours, and what others started meanwhile stands in the ledger."""
        if self._lock.fence.take(self._ctx.records, self._ctx.clock.now()) or fresh:
            self._adopt()
        self._proved = self._lock.tenure

    def _adopt(self) -> None:
        found = adopt(self._ctx, known={live.token for live in self._live.values()})
        alive = {attempt.token for attempt in found.attempts}
        for live in [live for live in self._live.values() if live.token not in alive and live.result is None]:
            # Another agent has written its end.
            self._forget_fd(live)
            del self._live[live.job.id]
        for live in found.lives:
            self._live[live.job.id] = live
            if live.result is not None:
                self._ended.append(live)
                continue
            if live.launched is not None and not live.noted:
                self._unnoted.append(live)
            self._watch(live)

    # -- one turn ------------------------------------------------------------------------------------------------

    def turn(self, timeout: float, *, note_after_s: float = NOTE_AFTER_S) -> None:
        self._note_after_s = note_after_s
        self._hear(timeout)
        self._keeper.renew(self._live.values())
        due = self._ctx.clock.monotonic() >= self._look_at
        try:
            if self._lock.held and self._proved != self._lock.tenure:
                self._prove()
            if due or self._stopping or not self._late:
                self._write_starts()
                if (due or self._ended) and self._may_start():
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
        if now >= self._sample_at and any(live.gpu_uuids for live in self._live.values()):
            self._sample_at = now + SAMPLE_S
            sample(self._lookout.observe(), self._live.values())
            note_outgrown(self._ctx, self._live.values())
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
        if self._ended:
            return SOON_S
        wall = self._ctx.clock.now()
        # A start that is not written yet cannot be marked; it has a time of its own.
        limits = [
            live.limit_end - wall
            for live in self._live.values()
            if live.limit_end is not None and live.noted and not live.stopping
        ]
        unwatched = SOON_S if any(live.fd is None for live in self._live.values()) else POLL_S
        if self._unnoted:
            limits.append(self._note_at - now)
        due = min([self._look_at - now, self._keeper.due_at - now, unwatched, *limits])
        return max(0.0, min(due, POLL_S))

    def _hear(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            live = key.data
            if live is None:
                os.eventfd_read(self._wake_fd)
                # Again here, because what `wake` wrote may have met a write of this thread.
                self._look_at = 0.0
            elif live.launched is None:
                self._hear_report(live)
            else:
                self._hear_end(live)
        if self._forget:
            self._forget = False
            self._lookout.forget()
        for live in list(self._live.values()):
            if live.fd is None and live.result is None:
                self._ask(live)

    def _hear_report(self, live: Live) -> None:
        assert live.fd is not None
        launched = self._ctx.launcher.report(live.fd)
        if launched is None:
            self._forget_fd(live)
            self._end(live)
            return
        faults.point("start.heard")
        # The descriptor stays: it is readable again when the attempt is over.
        self._runs(live, launched)

    def _ask(self, live: Live) -> None:
        """Without a descriptor to wait on, the lock is asked; and the folder, if the report went to an agent that died
        before it read it."""
        if not self._ctx.launcher.alive(live.run_dir):
            self._end(live)
        elif live.launched is None and (launched := self._ctx.launcher.launched(live.run_dir)) is not None:
            self._runs(live, launched)
            self._watch(live)

    def _runs(self, live: Live, launched: Launched) -> None:
        live.launched = launched
        self._obstacle.passed()
        if not self._unnoted:
            self._note_at = self._ctx.clock.monotonic() + self._note_after_s
        self._unnoted.append(live)

    def _watch(self, live: Live) -> None:
        """Waits for the end by pidfd; without one the lock is asked every turn."""
        if live.launched is None:
            return
        live.fd = self._ctx.launcher.watch(live.launched)
        if live.fd is not None:
            self._selector.register(live.fd, selectors.EVENT_READ, live)

    def _hear_end(self, live: Live) -> None:
        self._forget_fd(live)
        if self._ctx.launcher.alive(live.run_dir):
            # The lock outlives the supervisor's PID only if somebody else holds it: asked again next turn.
            return
        self._end(live)

    def _forget_fd(self, live: Live) -> None:
        if live.fd is not None:
            self._selector.unregister(live.fd)
            os.close(live.fd)
            live.fd = None

    def _end(self, live: Live) -> None:
        live.result = end_of(self._ctx, live)
        faults.point("end.heard")
        if live.result is not None:
            if live.result.machine_fault:
                self._obstacle.met(live.result.error or "")
            self._ended.append(live)

    # -- writing -------------------------------------------------------------------------------------------------

    def _write_starts(self) -> None:
        """All starts of this turn in one transaction."""
        if self._unnoted and self._ctx.clock.monotonic() >= self._note_at:
            started = [live for live in self._unnoted if live.result is None]
            if started:
                note_started(self._ctx, started)
            self._unnoted = []

    def _write_ends(self) -> None:
        """All ends of this turn in one transaction, unless they were written with the starts that followed them."""
        if self._ended:
            ended = self._ended
            written = finish(self._ctx, _ends(ended))
            log.debug("written: %s", written.states)
            self._ends_written(ended)

    def _ends_written(self, ended: Sequence[Live], given: Collection[str] = ()) -> None:
        """`given`: UUIDs of the GPUs that were leased to others in the same step."""
        self._ended = [live for live in self._ended if live not in ended]
        for live in ended:
            # The reaper may have written this end, and the job may live again.
            if self._live.get(live.job.id) is live:
                del self._live[live.job.id]
        self._keeper.release(ended, given)
        faults.point("finish.released")
        self._lookout.drop([live.job.id for live in ended])
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
        for live in self._live.values():
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
            self._ctx.notifier.publish("cold")
            self._look_at = self._ctx.clock.monotonic() + SOON_S
        except HotStoreUnavailable as error:
            self._dispatcher.forget()
            if not self._away:
                log.warning("nothing can be started now: %s", error.message)
            self._away = True
            self._look_at = self._ctx.clock.monotonic() + SOON_S

    def _start_some(self) -> bool:
        """Whether a further look may pay."""
        ended = list(self._ended)
        holding = [live for live in self._live.values() if live.result is None]
        done = self._dispatcher.start_some(holding, _ends(ended))
        for item in done.claimed:
            live = Live.of_claim(item)
            self._live[item.job.id] = live
            self._launch(live, item.order)
        if ended and done.ends_written:
            self._ends_written(ended, {gpu.uuid for item in done.claimed for gpu in item.gpus})
        self._look_at = min(self._look_at, self._ctx.clock.monotonic() + done.again_s)
        return done.more

    def _launch(self, live: Live, order: LaunchOrder) -> None:
        try:
            live.fd = launch(self._ctx, order)
        except OSError as error:
            now, ours = self._ctx.clock.now(), is_machines_fault(error)
            why = f"could not be launched: {error}"
            live.result = Result(Outcome.LAUNCH_ERROR, error=why, finished_at=now, machine_fault=ours)
            if ours:
                self._obstacle.met(str(error.strerror))
            self._ended.append(live)
            self.wake()
            return
        self._selector.register(live.fd, selectors.EVENT_READ, live)


def _ends(lives: Sequence[Live]) -> list[Ended]:
    return [live.ended(live.result) for live in lives if live.result is not None]

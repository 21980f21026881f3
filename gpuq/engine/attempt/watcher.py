"""The ledger of this node's live attempts, and how their starts and ends are heard.

An attempt's supervisor reports through a pipe, whose end is the end of the attempt; an adopted one is watched by its
pidfd. Whatever has no descriptor is asked for, by its lock. One thread only, but for `wake`.
"""

from __future__ import annotations

import logging
import os
import selectors
from collections.abc import Callable, Collection, Sequence

from gpuq.domain import failpoints
from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.engine.attempt import stuck
from gpuq.engine.attempt.adopt import adopt, end_of, holds_lock
from gpuq.engine.attempt.launch import launch
from gpuq.engine.attempt.launch_breaker import LaunchCircuitBreaker, is_machines_fault, told
from gpuq.engine.attempt.limit_order import see_told
from gpuq.engine.attempt.mishaps import alone
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.errors import DatabaseUnavailable
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)

Happened = Sequence[tuple[selectors.SelectorKey, int]]
# A look at everything that could tell whether an attempt is dead takes some time.
DOUBT_AGAIN_S = 2.0
# After the database was away, or a supervisor could not be told its limits.
REFRESH_AGAIN_S = 5.0


class AttemptWatcher:
    """`tracked` by job id, until the end is written; `unrecorded`: they run, and that is not written. `when_running` is
    called before the first is put there."""

    def __init__(self, ctx: Context, breaker: LaunchCircuitBreaker, when_running: Callable[[], None]) -> None:
        self._ctx = ctx
        self._breaker = breaker
        self._when_running = when_running
        self.tracked: dict[int, TrackedAttempt] = {}
        self._ended: list[TrackedAttempt] = []
        self.unrecorded: list[TrackedAttempt] = []
        # Somebody has changed an active job, which is looked at from `_refresh_at` on.
        self._stale = False
        self._refresh_at = 0.0
        self._unsubscribe: Callable[[], None] | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, None)

    def wake(self) -> None:
        """Ends a `wait` that waits. Any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """Stops watching; the attempts live on."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        for tracked in self.tracked.values():
            self._unwatch(tracked)
        self._selector.close()
        os.close(self._wake_fd)

    @property
    def holding(self) -> list[TrackedAttempt]:
        """Those that are not known to have ended, or whose end cannot be written: SQL says of both that they run."""
        now = self._ctx.clock.monotonic()
        return [tracked for tracked in self.tracked.values() if tracked.result is None or tracked.ask_at > now]

    @property
    def ended(self) -> list[TrackedAttempt]:
        """Their end is known and not written; without those whose end could not be, until it is tried again."""
        now = self._ctx.clock.monotonic()
        return [tracked for tracked in self._ended if tracked.ask_at <= now]

    @property
    def unwatched(self) -> bool:
        """Whether one must be asked, because nothing tells of its end."""
        return any(tracked.fd is None for tracked in self.tracked.values())

    def adopt(self) -> None:
        """What SQL says is alive here: watched if its lock is held, ended as its exit record says if not."""
        if self._unsubscribe is None:
            self._unsubscribe = self._ctx.notifier.subscribe(self._on_topic)
        found = adopt(self._ctx, known={tracked.token for tracked in self.tracked.values()})
        alive = {attempt.token for attempt in found.attempts}
        for tracked in [one for one in self.holding if one.result is None and one.token not in alive]:
            # Another agent has written its end.
            self._unwatch(tracked)
            del self.tracked[tracked.job.id]
        for tracked in found.tracked_attempts:
            self.tracked[tracked.job.id] = tracked
            self._breaker.outputs.note(tracked)
            if tracked.result is not None:
                self._ended.append(tracked)
                continue
            if tracked.launched is not None and not tracked.start_recorded:
                self.unrecorded.append(tracked)
            self._watch_process(tracked)

    def launch(self, claimed: TrackedAttempt) -> None:
        """Takes a claimed attempt into the ledger and carries its order out. One that cannot be launched has ended."""
        tracked = self.tracked[claimed.job.id] = claimed
        self._breaker.outputs.note(tracked)
        assert tracked.order is not None
        # Not kept: it holds the whole environment of the job.
        order, tracked.order = tracked.order, None
        try:
            tracked.fd = launch(self._ctx, order)
        except Exception as error:
            now, ours = self._ctx.clock.now(), is_machines_fault(error)
            why = f"could not be launched: {error}"
            tracked.result = Result(Outcome.LAUNCH_ERROR, error=why, finished_at=now, machine_fault=ours)
            if ours:
                if not isinstance(error, OSError):
                    log.exception("the launch of job %d failed", claimed.job.id)
                self._breaker.failed(tracked, told(error))
            self._ended.append(tracked)
            self.wake()
            return
        self._selector.register(tracked.fd, selectors.EVENT_READ, tracked)

    def forget_ended(self, ended: Collection[TrackedAttempt]) -> list[TrackedAttempt]:
        """Their ends are written, apart from what could not be; those that are."""
        now = self._ctx.clock.monotonic()
        written = [tracked for tracked in ended if tracked.ask_at <= now]
        self._ended = [tracked for tracked in self._ended if tracked not in written]
        for tracked in written:
            tracked.let_go_of_records(self._ctx.launcher)
            # The reaper may have written this end, and the job may live again.
            if self.tracked.get(tracked.job.id) is tracked:
                del self.tracked[tracked.job.id]
        return written

    def wait(self, timeout: float) -> Happened:
        """Waits at most so many seconds for something to happen; what it was `hear` makes out."""
        return self._selector.select(timeout)

    def hear(self, happened: Happened) -> bool:
        """Takes in what has happened, and what nothing tells of; whether there was a `wake`."""
        woken = False
        for key, _ in happened:
            tracked = key.data
            if tracked is None:
                os.eventfd_read(self._wake_fd)
                woken = True
            else:
                with alone(self._ctx, tracked):
                    self._hear(tracked)
                if tracked.doubt is not None:
                    # What its descriptor says would be said again at once.
                    self._unwatch(tracked)
        now = self._ctx.clock.monotonic()
        for tracked in self.holding:
            if tracked.fd is None and tracked.ask_at <= now and tracked.result is None:
                with alone(self._ctx, tracked):
                    self._poll(tracked)
        self._tell_doubts()
        if now >= self._refresh_at and (self._stale or any(one.limits_untold for one in self.tracked.values())):
            self._refresh(now)
        return woken

    def _on_topic(self, topic: Topic) -> None:
        if topic is Topic.LIVE:
            self._stale = True

    def _refresh(self, now: float) -> None:
        """Takes in what people changed of active jobs, and sees to it that their supervisors were told."""
        # Before the look: what is changed during it is looked at again.
        self._stale = False
        try:
            with self._ctx.records.read() as tx:
                for job, _ in tx.live_attempts(self._ctx.node):
                    tracked = self.tracked.get(job.id)
                    if tracked is not None and tracked.token == job.token:
                        tracked.take_changes(job)
                        if tracked.limits_changed:
                            see_told(self._ctx, tx, tracked)
        except DatabaseUnavailable as error:
            log.info("what was changed of running jobs is looked at later: %s", error.message)
            self._stale = True
        if self._stale or any(one.limits_untold for one in self.tracked.values()):
            self._refresh_at = now + REFRESH_AGAIN_S

    def _hear(self, tracked: TrackedAttempt) -> None:
        if tracked.launched is None:
            self._read_report(tracked)
        else:
            self._check_ended(tracked)

    def _tell_doubts(self) -> None:
        for tracked in self.tracked.values():
            if tracked.doubt != tracked.doubt_told:
                tracked.doubt_told = tracked.doubt
                if tracked.doubt is None:
                    stuck.clear(self._ctx, tracked)
                else:
                    stuck.tell(self._ctx, tracked, tracked.doubt)

    def _read_report(self, tracked: TrackedAttempt) -> None:
        assert tracked.fd is not None
        launched = self._ctx.launcher.report(tracked.fd)
        if launched is None:
            self._unwatch(tracked)
            self._end(tracked)
            return
        failpoints.point("start.heard")
        # The descriptor stays: it is readable again when the attempt is over.
        self._mark_running(tracked, launched)
        if self._ctx.launcher.told_end(tracked.token) is not None:
            self._unwatch(tracked)
            self._end(tracked)

    def _poll(self, tracked: TrackedAttempt) -> None:
        """The lock; and the folder, if the report went to an agent that died before it read it."""
        if not holds_lock(self._ctx, tracked):
            self._end(tracked)
            return
        tracked.doubt = None
        if (
            tracked.launched is None
            and (launched := self._ctx.launcher.launched(tracked.run_dir, tracked.token)) is not None
        ):
            self._mark_running(tracked, launched)
            self._watch_process(tracked)

    def _mark_running(self, tracked: TrackedAttempt, launched: Launched) -> None:
        tracked.launched = launched
        self._breaker.launched(tracked.job.id)
        if not self.unrecorded:
            self._when_running()
        self.unrecorded.append(tracked)

    def _watch_process(self, tracked: TrackedAttempt) -> None:
        if tracked.launched is None:
            return
        tracked.fd = self._ctx.launcher.watch(tracked.launched)
        if tracked.fd is not None:
            self._selector.register(tracked.fd, selectors.EVENT_READ, tracked)

    def _check_ended(self, tracked: TrackedAttempt) -> None:
        # The end of its report, or what its supervisor has to tell that cannot write the end down.
        if tracked.fd is not None:
            self._ctx.launcher.report(tracked.fd)
        self._unwatch(tracked)
        # The lock outlives the supervisor's PID only if somebody else holds it: asked again next time.
        if self._ctx.launcher.told_end(tracked.token) is not None or not holds_lock(self._ctx, tracked):
            self._end(tracked)

    def _end(self, tracked: TrackedAttempt) -> None:
        tracked.result = end_of(self._ctx, tracked)
        failpoints.point("end.heard")
        if tracked.result is None:
            tracked.ask_at = self._ctx.clock.monotonic() + DOUBT_AGAIN_S if tracked.doubt is not None else 0.0
        else:
            self._ended.append(tracked)
            if tracked.result.machine_fault:
                self._breaker.failed(tracked, tracked.result.error or "")

    def _unwatch(self, tracked: TrackedAttempt) -> None:
        if tracked.fd is not None:
            self._selector.unregister(tracked.fd)
            os.close(tracked.fd)
            tracked.fd = None

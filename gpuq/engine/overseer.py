"""The overseer: sees to it that a stop comes to its end whatever becomes of the supervisor that is to carry it out.

A supervisor needs nobody as long as it works. When one is told to stop, it is looked at twice a second until its job
is gone; all others once a minute, at the cost of reading two lines of /proc. What is done about one that stands
still or does not listen is decided in gpuq.domain.oversight: it is continued, and at last its attempt is taken over,
which a daemon that is started anew goes on with. How an attempt ended that was taken over is heard and written by the
agent, like any other end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from gpuq.domain.job import Job
from gpuq.domain.oversight import Evidence, Sight, Step, SupervisorState, decide
from gpuq.domain.states import JobState
from gpuq.domain.stopping import grace_left_s, notice_of
from gpuq.engine.attempt import families, stuck
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.errors import DatabaseUnavailable, GpuqError
from gpuq.ports.notify import Topic
from gpuq.ports.records import JobFilter

log = logging.getLogger(__name__)

LOOK_S = 0.5
SLOW_S = 60.0
# Between two looks at what an attempt has of processes that no control group holds, while it is younger than SLOW_S.
FAMILY_S = 10.0
# From the claim to the report it takes milliseconds.
STARTING_S = 20.0
_SHORTEST_S = 0.02


@dataclass(frozen=True, slots=True)
class Stop:
    """Why an attempt is being stopped, and when SIGKILL is due (monotonic seconds). `deadline`: the same as SQL has it,
    by the wall clock, when it was read first; None for a stop that SQL does not know."""

    reason: str
    kill_at: float
    deadline: float | None = None


@dataclass(slots=True)
class _Watch:
    """What was seen of one supervisor since it gave rise to a look, in monotonic seconds. `told`: what people were."""

    unread_since: float | None = None
    unreaped_since: float | None = None
    continued: int = 0
    told: str | None = None

    def evidence(self, sight: Sight, stop: Stop | None, now: float) -> Evidence:
        self.unread_since = _since(self.unread_since, sight.unread, now)
        self.unreaped_since = _since(self.unreaped_since, sight.main_ended, now)
        if sight.state is SupervisorState.RUNS and not sight.unread:
            self.continued = 0
        return Evidence(
            sight,
            kill_late_s=None if stop is None else now - stop.kill_at,
            unread_s=None if self.unread_since is None else now - self.unread_since,
            unreaped_s=None if self.unreaped_since is None else now - self.unreaped_since,
            continued=self.continued,
        )


class Overseer:
    """A Service. `attempts`: the live ones of this node, asked for from its own thread."""

    name = "overseer"

    def __init__(self, ctx: Context, attempts: Callable[[], Sequence[TrackedAttempt]]) -> None:
        self._ctx = ctx
        self._attempts = attempts
        self._watches: dict[str, _Watch] = {}
        self._stops: dict[str, Stop] = {}
        self._slow_at = self._family_at = float("-inf")
        # Attempts of which something is noted; None: it is not known what an earlier daemon has.
        self._noted: set[str] | None = None
        self._wake = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """The first look, at all, is at once: it may have to go on with what an earlier daemon began."""
        self._unsubscribe = self._ctx.notifier.subscribe(self._on_topic)
        self._thread = threading.Thread(target=self._run, name="gpuq-overseer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """After the look that is under way. A second call does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        self._wake.set()
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._thread is not None:
            self._thread.join()

    def run_once(self) -> None:
        self.look()

    def expect(self, token: str, stop: Stop) -> None:
        """Of an attempt that is stopped, and SQL does not say so."""
        self._stops[token] = stop

    def look(self, *, asked: bool = True) -> float:
        """One round; returns after how many seconds the next one is due, if nothing is heard before. `asked`: somebody
        may have been told to stop since the last one."""
        now = self._ctx.clock.monotonic()
        slow = now >= self._slow_at
        if slow:
            self._slow_at = now + SLOW_S
            self._ctx.launcher.oversight.resume_fork_server()
        live = [tracked for tracked in self._attempts() if tracked.result is None]
        if asked or slow or self._stops:
            self._read_stops(live)
        tokens = {tracked.token for tracked in live}
        self._watches = {token: watch for token, watch in self._watches.items() if token in tokens}
        again = [self._oversee(tracked) for tracked in live if self._is_suspect(tracked, slow=slow)]
        if slow:
            stuck.forget(self._ctx)
        self._see_families(live, now, slow=slow)
        return max(0.0, min([*again, self._family_at - now, self._slow_at - now]))

    def _see_families(self, live: Collection[TrackedAttempt], now: float, *, slow: bool) -> None:
        """The young more often: who goes his own way does so early."""
        if now < self._family_at and not slow:
            return
        self._family_at = now + FAMILY_S
        young = self._ctx.clock.now() - SLOW_S
        due = [tracked for tracked in live if slow or tracked.claimed_at > young]
        families.note(self._ctx, due)
        noted = {tracked.token for tracked in live if tracked.family}
        if self._noted is None or self._noted - noted:
            families.forget(self._ctx)
        self._noted = noted

    def _on_topic(self, topic: Topic) -> None:
        if topic is Topic.STOPS:
            self._wake.set()

    def _run(self) -> None:
        again_s = 0.0
        while not self._over.is_set():
            if asked := self._wake.wait(again_s):
                # A stop that goes well is over by then, and many are looked at at once.
                self._over.wait(LOOK_S)
                self._wake.clear()
            if self._over.is_set():
                return
            again_s = SLOW_S
            try:
                again_s = max(_SHORTEST_S, self.look(asked=asked))
            except Exception:
                log.exception("a look at the supervisors failed")

    def _read_stops(self, live: Collection[TrackedAttempt]) -> None:
        """When the SIGKILL of each is due, on the clock that nobody sets: so a wall clock that jumps takes no grace. A
        later one never takes the place of an earlier one."""
        if not live:
            self._stops.clear()
            return
        try:
            with self._ctx.records.read() as tx:
                stopping = tx.jobs(JobFilter(states=frozenset({JobState.STOPPING})))
        except DatabaseUnavailable as error:
            log.info("stops are looked after as they were last known: %s", error.message)
            return
        tokens = {tracked.token for tracked in live}
        self._stops = {token: stop for token, stop in self._stops.items() if token in tokens}
        for job in stopping:
            if job.token in tokens:
                self._stops[job.token] = self._stop_of(job, self._stops.get(job.token))

    def _stop_of(self, job: Job, before: Stop | None) -> Stop:
        reason, deadline = job.stop_reason or "cancel", job.stop_deadline or 0.0
        if before is not None and (before.reason, before.deadline) == (reason, deadline):
            return before
        kill_at = self._ctx.clock.monotonic() + max(0.0, deadline - self._ctx.clock.now())
        return Stop(reason, kill_at if before is None else min(kill_at, before.kill_at), deadline)

    def _is_suspect(self, tracked: TrackedAttempt, *, slow: bool) -> bool:
        if tracked.token in self._stops or tracked.token in self._watches:
            return True
        if not slow:
            return False
        if tracked.launched is None:
            return self._ctx.clock.now() - tracked.claimed_at >= STARTING_S
        return not self._ctx.launcher.oversight.is_well(tracked.launched)

    def _oversee(self, tracked: TrackedAttempt) -> float:
        """Returns after how many seconds it is to be looked at again."""
        watch = self._watches.setdefault(tracked.token, _Watch())
        try:
            return self._act(tracked, watch)
        except (OSError, GpuqError) as error:
            # Of one attempt, and not of the others.
            log.warning("job %d attempt %d cannot be looked after now: %s", tracked.job.id, tracked.number, error)
            return LOOK_S

    def _act(self, tracked: TrackedAttempt, watch: _Watch) -> float:
        ctx, stop = self._ctx, self._stops.get(tracked.token)
        sight = ctx.launcher.oversight.look(tracked.run_dir, tracked.launched)
        seen = watch.evidence(sight, stop, ctx.clock.monotonic())
        step = decide(seen)
        if step is Step.CONTINUE:
            watch.continued += 1
            self._tell(tracked, watch, f"{_what(sight)}; it is continued")
            ctx.launcher.oversight.resume(sight)
        elif step is Step.TAKE_OVER:
            self._tell(tracked, watch, f"{_what(sight)}; gpuq ends the job without it")
            again_s = self._take_over(tracked, stop)
            return LOOK_S if again_s is None else min(again_s, LOOK_S)
        elif stop is None and not sight.unread and not sight.main_ended:
            # All is well again.
            stuck.clear(ctx, tracked) if watch.told else None
            del self._watches[tracked.token]
        return LOOK_S

    def _take_over(self, tracked: TrackedAttempt, stop: Stop | None) -> float | None:
        grace_s = 0.0
        if stop is not None:
            with self._ctx.records.read() as tx:
                spec, _, _ = tx.spec(tracked.job.id)
            _, before_s = notice_of(spec.signal)
            grace_s = grace_left_s(stop.reason, self._ctx.clock.monotonic(), stop.kill_at, before_s)
        return self._ctx.launcher.oversight.take_over(
            tracked.run_dir,
            tracked.token,
            tracked.launched,
            reason=None if stop is None else stop.reason,
            grace_s=grace_s,
        )

    def _tell(self, tracked: TrackedAttempt, watch: _Watch, text: str) -> None:
        if watch.told == text:
            return
        watch.told = text
        log.warning("job %d attempt %d: %s", tracked.job.id, tracked.number, text)
        stuck.tell(self._ctx, tracked, text)


def _since(before: float | None, holds: bool, now: float) -> float | None:
    return None if not holds else now if before is None else before


def _what(sight: Sight) -> str:
    who = "its supervisor" if sight.pid is None else f"its supervisor (pid {sight.pid})"
    return f"{who} {'stands still' if sight.state is SupervisorState.STANDS_STILL else 'does not answer'}"

"""From the queue to claimed attempts: look, plan, preempt, claim. The agent launches what comes out.

It remembers what it read of the queue until somebody says that it changed, or until POLL_S have passed.

Of a new job whoever stored it in this process hands over the facts (`hear`), so that nothing has to be read for it;
whatever does not start in the same turn is put into the hot queue behind it. Should the daemon die in between, the row
is there and its member is not: as after a hint that was lost, the next comparison with SQL finds it. What was handed
over is believed only if nothing else was heard of the queue meanwhile; else it is read from SQL like the rest.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.claim.chance import Chance, look_for_chance
from gpuq.engine.claim.claim import claim
from gpuq.engine.claim.drain_window import DrainWindow
from gpuq.engine.claim.preempt import preempt
from gpuq.engine.claim.stray_leases import StrayLeases
from gpuq.engine.context import Context
from gpuq.engine.hot.queue_hints import publish_known_jobs
from gpuq.engine.node_lock import Fence
from gpuq.engine.snapshot.builder import HEADS, SnapshotBuilder
from gpuq.engine.snapshot.limit_bypass import more_behind
from gpuq.engine.start_obstacles import StartObstacles
from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.records import Waiting
from gpuq.scheduler.plan import plan
from gpuq.scheduler.snapshot import Action, Preempt, Start

POLL_S = 5.0
# While a GPU is kept from us by something that may go away by itself.
FOREIGN_S = 1.0


@dataclass(frozen=True, slots=True)
class Dispatched:
    """`claimed`: to be launched. `more`: a further look may pay. `again_s`: look again after this many seconds,
    whatever is heard. `crowded`: something waits for which there was no room among the attempts."""

    claimed: Sequence[TrackedAttempt] = ()
    ends_written: bool = False
    more: bool = False
    again_s: float = POLL_S
    crowded: bool = False


class Dispatcher:
    """One thread only."""

    def __init__(self, ctx: Context, snapshots: SnapshotBuilder, fence: Fence, obstacles: StartObstacles) -> None:
        self._ctx = ctx
        self._strays = StrayLeases(ctx, obstacles)
        self._window = DrainWindow(ctx)
        self._fence = fence
        self._snapshots = snapshots
        self._stale = True
        self._read_at = 0.0
        self._news: deque[Waiting] = deque()
        # Of those that were heard of: they do not stand in the hot queue yet.
        self._unlisted: dict[int, QueueEntry] = {}

    def hear(self, jobs: Iterable[Waiting]) -> None:
        """New queued jobs, as they were just stored, of which the hot queue does not know. Any thread; what they are
        good for is seen at the next turn."""
        self._news.extend(jobs)

    def look_for_chance(self, job: Waiting, tracked_attempts: Collection[TrackedAttempt]) -> Chance | None:
        """GPUs for a job that is about to be stored, if nothing stands in line as far as is known. Raises as
        `start_some` does."""
        if self._stale or self._news or self._unlisted or not self._snapshots.line_is_empty:
            return None
        return look_for_chance(self._ctx, self._snapshots, self._fence, job, tracked_attempts)

    def list_news(self) -> None:
        """Puts what was heard of and has not started into the hot queue, where every process sees it. Never raises."""
        self._take_in()
        if self._unlisted:
            entries, self._unlisted = list(self._unlisted.values()), {}
            publish_known_jobs(self._ctx, entries)

    def _take_in(self) -> None:
        found = []
        while self._news:
            job = self._news.popleft()
            found.append(job)
            self._unlisted[job.id] = QueueEntry(job.id, job.gpus, job.score)
        if found and not self._snapshots.take_in(found):
            self._stale = True

    def forget(self) -> None:
        """What was read of the queue is not to be believed any more. Any thread."""
        self._stale = True

    def begin(self) -> None:
        """A slow look: another process may have paused the queue or changed a job without our hearing of it."""
        now = self._ctx.clock.monotonic()
        if now - self._read_at >= POLL_S:
            # Noted here, because a paused queue is not read further, and each wake would look slowly again.
            self._read_at, self._stale = now, True
            self._snapshots.forget()

    def start_some(
        self,
        tracked_attempts: Collection[TrackedAttempt],
        ended: Sequence[TrackedAttempt],
        room: int = sys.maxsize,
    ) -> Dispatched:
        """One plan and its commit. `tracked_attempts` hold their GPUs; those of `ended` are free, and their ends are
        written with the starts, if there are any. `room`: how many may be started at most. Raises HotStoreUnavailable,
        DatabaseUnavailable and NodeTaken; then nothing is written."""
        window = self._snapshots.switches().window
        self._window.act(window, tracked_attempts)
        done = self._start_some(tracked_attempts, ended, room)
        return replace(done, again_s=self._window.soon(window, done.again_s)) if window is not None else done

    def _start_some(
        self, tracked_attempts: Collection[TrackedAttempt], ended: Sequence[TrackedAttempt], room: int
    ) -> Dispatched:
        if self._snapshots.switches().paused is not None:
            return Dispatched()
        self._strays.look_again([*tracked_attempts, *ended])
        self._snapshots.hours.note_ended(ended)
        waiting = self._waiting(tracked_attempts)
        if not waiting or not room:
            return Dispatched(crowded=bool(waiting))
        snapshot = self._snapshots.snapshot(waiting, tracked_attempts)
        actions = plan(snapshot, self._ctx.clock.now(), waits=0)
        self._preempt(actions, tracked_attempts)
        self._snapshots.remember_reservations(actions)
        # A foreign process may end without telling us.
        again_s = FOREIGN_S if any(device.unavailable for device in snapshot.devices) else POLL_S
        starts = [action for action in actions if isinstance(action, Start)]
        if not starts:
            return Dispatched(again_s=again_s)
        crowded, starts = len(starts) > room, starts[:room]
        claimed = self._claim(starts, waiting, ended)
        started = {start.job_id for start in starts}
        self._snapshots.drop(started)
        # What the plan believed of a job that could not be claimed was wrong.
        self._stale = self._stale or len(claimed) < len(starts)
        if len(claimed) < len(starts):
            self._strays.look([*tracked_attempts, *ended, *claimed])
        more = False
        if claimed and len(waiting) >= HEADS:
            usage = self._snapshots.usage([*tracked_attempts, *claimed], waiting)
            more = more_behind(waiting, started, usage, HEADS)
            # What was read does not reach further.
            self._stale = self._stale or more
        return Dispatched(claimed, True, more and not crowded, again_s, crowded)

    def _claim(
        self, starts: Sequence[Start], waiting: Sequence[Waiting], ended: Sequence[TrackedAttempt]
    ) -> list[TrackedAttempt]:
        by_id = {job.id: job for job in waiting}
        claimed = claim(self._ctx, starts, by_id, self._fence, ended, self._unlisted)
        for tracked in claimed:
            self._unlisted.pop(tracked.job.id, None)
        return claimed

    def _preempt(self, actions: Sequence[Action], tracked_attempts: Collection[TrackedAttempt]) -> None:
        victims = {action.job_id: action.beneficiary for action in actions if isinstance(action, Preempt)}
        for tracked in tracked_attempts if victims else ():
            if tracked.job.id in victims:
                preempt(self._ctx, tracked, victims[tracked.job.id])

    def _waiting(self, tracked_attempts: Collection[TrackedAttempt]) -> list[Waiting]:
        self._take_in()
        now = self._ctx.clock.monotonic()
        fresh = self._stale or now - self._read_at >= POLL_S
        if fresh:
            # Before the reading, so that a change in between is not taken as seen.
            self._stale = False
            self._read_at = now
            if self._unlisted:
                self._snapshots.drop(self._unlisted)
                self.list_news()
        return self._snapshots.waiting(tracked_attempts, fresh=fresh)

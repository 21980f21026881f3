"""The ledger of this node's live attempts, and how their starts and ends are heard.

An attempt's supervisor reports through a pipe, whose end is the end of the attempt; an adopted one is watched by its
pidfd. Whatever has no descriptor is asked for, by its lock. One thread only, but for `wake`.
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable, Collection, Sequence

from gpuq.domain import failpoints
from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.engine.attempt.adopt import adopt, end_of
from gpuq.engine.attempt.launch import launch
from gpuq.engine.attempt.launch_breaker import Obstacle, is_machines_fault
from gpuq.engine.attempt.tracked import Live
from gpuq.engine.claim.claim import Claimed
from gpuq.engine.context import Context
from gpuq.engine.outcome.finish import Ended


class Watch:
    """`live` by job id, until the end is written; `ended`: their end is known and not written; `unnoted`: they run, and
    that is not written. `when_running` is called before the first is put there."""

    def __init__(self, ctx: Context, obstacle: Obstacle, when_running: Callable[[], None]) -> None:
        self._ctx = ctx
        self._obstacle = obstacle
        self._when_running = when_running
        self.live: dict[int, Live] = {}
        self.ended: list[Live] = []
        self.unnoted: list[Live] = []
        self._selector = selectors.DefaultSelector()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake_fd, selectors.EVENT_READ, None)

    def wake(self) -> None:
        """Ends a `hear` that waits. Any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        for live in self.live.values():
            self._let_go(live)
        self._selector.close()
        os.close(self._wake_fd)

    @property
    def holding(self) -> list[Live]:
        """Those that are not known to have ended."""
        return [live for live in self.live.values() if live.result is None]

    @property
    def unwatched(self) -> bool:
        """Whether one must be asked, because nothing tells of its end."""
        return any(live.fd is None for live in self.live.values())

    def adopt(self) -> None:
        """What SQL says is alive here: watched if its lock is held, ended as its exit record says if not."""
        found = adopt(self._ctx, known={live.token for live in self.live.values()})
        alive = {attempt.token for attempt in found.attempts}
        for live in [live for live in self.holding if live.token not in alive]:
            # Another agent has written its end.
            self._let_go(live)
            del self.live[live.job.id]
        for live in found.lives:
            self.live[live.job.id] = live
            if live.result is not None:
                self.ended.append(live)
                continue
            if live.launched is not None and not live.noted:
                self.unnoted.append(live)
            self._follow(live)

    def launch(self, claimed: Claimed) -> None:
        live = self.live[claimed.job.id] = Live.of_claim(claimed)
        try:
            live.fd = launch(self._ctx, claimed.order)
        except OSError as error:
            now, ours = self._ctx.clock.now(), is_machines_fault(error)
            why = f"could not be launched: {error}"
            live.result = Result(Outcome.LAUNCH_ERROR, error=why, finished_at=now, machine_fault=ours)
            if ours:
                self._obstacle.met(str(error.strerror))
            self.ended.append(live)
            self.wake()
            return
        self._selector.register(live.fd, selectors.EVENT_READ, live)

    def over(self, ended: Collection[Live]) -> None:
        """Their ends are written."""
        self.ended = [live for live in self.ended if live not in ended]
        for live in ended:
            # The reaper may have written this end, and the job may live again.
            if self.live.get(live.job.id) is live:
                del self.live[live.job.id]

    def hear(self, timeout: float) -> bool:
        """Waits at most so many seconds for something to happen; whether it was a `wake`."""
        woken = False
        for key, _ in self._selector.select(timeout):
            live = key.data
            if live is None:
                os.eventfd_read(self._wake_fd)
                woken = True
            elif live.launched is None:
                self._hear_report(live)
            else:
                self._hear_end(live)
        for live in self.holding:
            if live.fd is None:
                self._ask(live)
        return woken

    def _hear_report(self, live: Live) -> None:
        assert live.fd is not None
        launched = self._ctx.launcher.report(live.fd)
        if launched is None:
            self._let_go(live)
            self._end(live)
            return
        failpoints.point("start.heard")
        # The descriptor stays: it is readable again when the attempt is over.
        self._runs(live, launched)

    def _ask(self, live: Live) -> None:
        """The lock; and the folder, if the report went to an agent that died before it read it."""
        if not self._ctx.launcher.alive(live.run_dir):
            self._end(live)
        elif live.launched is None and (launched := self._ctx.launcher.launched(live.run_dir)) is not None:
            self._runs(live, launched)
            self._follow(live)

    def _runs(self, live: Live, launched: Launched) -> None:
        live.launched = launched
        self._obstacle.passed()
        if not self.unnoted:
            self._when_running()
        self.unnoted.append(live)

    def _follow(self, live: Live) -> None:
        if live.launched is None:
            return
        live.fd = self._ctx.launcher.watch(live.launched)
        if live.fd is not None:
            self._selector.register(live.fd, selectors.EVENT_READ, live)

    def _hear_end(self, live: Live) -> None:
        self._let_go(live)
        # The lock outlives the supervisor's PID only if somebody else holds it: asked again next time.
        if not self._ctx.launcher.alive(live.run_dir):
            self._end(live)

    def _end(self, live: Live) -> None:
        live.result = end_of(self._ctx, live)
        failpoints.point("end.heard")
        if live.result is not None:
            if live.result.machine_fault:
                self._obstacle.met(live.result.error or "")
            self.ended.append(live)

    def _let_go(self, live: Live) -> None:
        if live.fd is not None:
            self._selector.unregister(live.fd)
            os.close(live.fd)
            live.fd = None


def ends(lives: Sequence[Live]) -> list[Ended]:
    return [live.ended(live.result) for live in lives if live.result is not None]

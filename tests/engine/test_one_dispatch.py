"""One plan and its commit, with a plan and a claim that the test plays: what is read again, and when to look again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.engine.claim import dispatcher
from gpuq.engine.claim.dispatcher import FOREIGN_S, POLL_S, Dispatched, Dispatcher
from gpuq.engine.snapshot.builder import HEADS
from gpuq.scheduler.snapshot import Preempt, Start


class Queue:
    """What a snapshot builder, a plan and a claim would say, and what they were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs, self.planned, self.claimed, self.behind = 2, [1], 1, False
        self.paused: str | None = None
        self.unavailable = False
        self.now = 50.0
        self.fresh: list[bool] = []
        self.told: list[Any] = []
        self.victims: list[int] = []
        snapshots = SimpleNamespace(
            switches=lambda: SimpleNamespace(paused=self.paused, window=None),
            hours=SimpleNamespace(note_ended=lambda ended: None),
            waiting=self._waiting,
            snapshot=lambda waiting, tracked: SimpleNamespace(devices=[SimpleNamespace(unavailable=self.unavailable)]),
            remember_reservations=lambda actions: self.told.append("reservations"),
            drop=lambda started: self.told.append(started),
            forget=lambda: self.told.append("forget"),
            usage=lambda tracked, waiting: [one.job.id for one in tracked],
        )
        clock = SimpleNamespace(monotonic=lambda: self.now, now=lambda: 1000.0)
        monkeypatch.setattr(dispatcher, "plan", self._plan)
        monkeypatch.setattr(dispatcher, "claim", self._claim)
        monkeypatch.setattr(dispatcher, "preempt", lambda ctx, tracked, of: self.told.append((tracked.job.id, of)))
        monkeypatch.setattr(dispatcher, "more_behind", self._more)
        ctx: Any = SimpleNamespace(clock=clock)
        self.looks: list[int] = []
        strays = SimpleNamespace(look_again=lambda known: None, look=lambda known: self.looks.append(len(known)))
        monkeypatch.setattr(dispatcher, "StrayLeases", lambda *_: strays)
        obstacles: Any = None
        self.dispatcher = Dispatcher(ctx, snapshots, "the fence", obstacles)  # type: ignore[arg-type]

    def _waiting(self, tracked: Any, fresh: bool) -> list[Any]:
        self.fresh.append(fresh)
        return [SimpleNamespace(id=number) for number in range(1, self.jobs + 1)]

    def _plan(self, snapshot: Any, now: float, waits: int) -> list[Any]:
        assert (now, waits) == (1000.0, 0)
        return [
            *(Start(job_id=number, gpu_uuids=()) for number in self.planned),
            *(Preempt(job_id=number, beneficiary=9) for number in self.victims),
        ]

    def _claim(self, ctx: Any, starts: Any, jobs: Any, fence: Any, ended: Any, unlisted: Any) -> list[Any]:
        assert ([start.job_id for start in starts], sorted(jobs), fence) == (
            self.planned, list(range(1, self.jobs + 1)), "the fence",
        )  # fmt: skip
        return [SimpleNamespace(job=SimpleNamespace(id=number)) for number in self.planned[: self.claimed]]

    def _more(self, waiting: Any, started: Any, usage: Any, heads: int) -> bool:
        self.told.append((len(waiting), started, usage, heads))
        return self.behind

    def start(self) -> Dispatched:
        tracked: Any = [SimpleNamespace(job=SimpleNamespace(id=number)) for number in (70, 71)]
        return self.dispatcher.start_some(tracked, [])


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


def test_nothing_is_planned_while_the_queue_is_paused_or_empty(queue: Queue) -> None:
    queue.paused = "for a reason"
    assert queue.start() == Dispatched((), ends_written=False, more=False, again_s=POLL_S)
    assert (queue.fresh, queue.told) == ([], [])
    queue.paused, queue.jobs = None, 0
    assert queue.start() == Dispatched()
    assert queue.told == []


@pytest.mark.parametrize(("unavailable", "again_s"), [(False, POLL_S), (True, FOREIGN_S)])
def test_a_plan_that_starts_none_is_made_again_later(queue: Queue, unavailable: bool, again_s: float) -> None:
    queue.planned, queue.unavailable = [], unavailable
    assert queue.start() == Dispatched((), ends_written=False, more=False, again_s=again_s)
    assert queue.told == ["reservations"]


def test_what_is_started_is_claimed_with_the_ends_and_dropped_from_what_was_read(queue: Queue) -> None:
    queue.planned, queue.claimed, queue.victims = [2, 1], 2, [71, 5]
    done = queue.start()
    assert [tracked.job.id for tracked in done.claimed] == [2, 1]
    assert done == Dispatched(done.claimed, ends_written=True, more=False, again_s=POLL_S)
    assert queue.told == [(71, 9), "reservations", {1, 2}]


@pytest.mark.parametrize(
    ("jobs", "claimed", "behind", "more"),
    [(HEADS, 1, True, True), (HEADS, 1, False, False), (HEADS - 1, 1, True, False), (HEADS, 0, True, False)],
)
def test_a_further_look_pays_where_something_was_claimed_and_more_may_stand_behind(
    queue: Queue, jobs: int, claimed: int, behind: bool, more: bool
) -> None:
    queue.jobs, queue.claimed, queue.behind = jobs, claimed, behind
    done = queue.start()
    assert (len(done.claimed), done.more, done.ends_written) == (claimed, more, True)
    asked = [(HEADS, {1}, [70, 71, 1], HEADS)] if jobs == HEADS and claimed else []
    assert queue.told == ["reservations", {1}, *asked]
    queue.start()
    # Read again where it did not reach further, and where the plan was wrong.
    assert queue.fresh == [True, more or not claimed]


def test_the_queue_is_read_again_when_somebody_says_so_or_after_a_while(queue: Queue) -> None:
    for _ in range(2):
        queue.start()
    queue.dispatcher.forget()
    queue.start()
    queue.now += POLL_S - 0.1
    queue.start()
    queue.dispatcher.begin()
    assert "forget" not in queue.told
    queue.now += 0.2
    queue.dispatcher.begin()
    assert queue.told[-1] == "forget"
    queue.start()
    queue.start()
    assert queue.fresh == [True, False, True, False, True, False]
    queue.now += POLL_S
    queue.dispatcher.begin()
    assert queue.told[-1] == "forget"
    queue.start()
    assert queue.fresh[-1] is True


def test_a_paused_queue_is_looked_at_slowly_once_in_a_while_and_not_at_every_wake(queue: Queue) -> None:
    queue.paused = "for a reason"
    for passed in (POLL_S, 0.0, 1.0, POLL_S - 1.5, 1.0):
        queue.now += passed
        queue.dispatcher.begin()
        queue.start()
    assert queue.told == ["forget", "forget"]
    queue.paused = None
    queue.start()
    assert queue.fresh == [True]

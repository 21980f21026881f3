"""What the maintenance tasks are, when each is due, and what is noted of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.file_lock import FileLock, is_held
from gpuq.engine.maintenance import timers
from gpuq.engine.maintenance.timers import Maintenance
from gpuq.errors import AlreadyRunning, DatabaseUnavailable, HotStoreUnavailable


@pytest.fixture
def maintenance(world: Any) -> Iterator[Maintenance]:
    made = Maintenance(world.ctx, FileLock(world.settings.home / "maintain.lock", "maintenance"))
    yield made
    made.stop()


class Diary:
    """What was noted, in order; `error` is raised by the first note of a task."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def note_start(self, task: str, at: float) -> None:
        if self.error is not None:
            raise self.error
        self.notes.append(("start", task, at))

    def note_ok(self, task: str, at: float) -> None:
        self.notes.append(("ok", task, at))

    def note_error(self, task: str, at: float, error: str) -> None:
        self.notes.append(("error", task, at, error))

    def taken(self) -> list[tuple[Any, ...]]:
        notes, self.notes = self.notes, []
        return notes


@pytest.fixture
def noted(world: Any) -> tuple[Any, Diary, Callable[..., None]]:
    """The world, its diary, and a task that takes one second and ends as it is told."""
    diary = Diary()
    ctx = replace(world.ctx, maintenance_runs=diary)
    maintenance = Maintenance(ctx, FileLock(world.settings.home / "maintain.lock", "maintenance"))

    def run(error: Exception | None = None, task: str = "reap") -> None:
        def work() -> None:
            world.clock.forward(1)
            if error is not None:
                raise error

        maintenance._guarded(task, work)()

    return world, diary, run


def test_a_routine_success_is_noted_every_five_minutes_and_no_more_often(noted: Any) -> None:
    world, diary, run = noted
    begun = world.clock.now()
    run()
    assert diary.taken() == [("start", "reap", begun), ("ok", "reap", begun + 1)]
    world.clock.forward(timers.DIARY_S - 1.5)
    run()
    assert diary.taken() == []
    run(task="promote")
    assert [note[:2] for note in diary.taken()] == [("start", "promote"), ("ok", "promote")]
    world.clock.time = begun + timers.DIARY_S
    run()
    assert diary.taken() == [("start", "reap", begun + timers.DIARY_S), ("ok", "reap", begun + timers.DIARY_S + 1)]


def test_a_failure_and_the_recovery_from_it_are_noted_at_once(noted: Any) -> None:
    world, diary, run = noted
    run()
    diary.taken()
    begun = world.clock.now()
    run(HotStoreUnavailable("Redis does not answer"))
    assert diary.taken() == [("start", "reap", begun), ("error", "reap", begun + 1, "Redis does not answer")]
    run(ValueError("no number"))
    assert diary.taken()[1] == ("error", "reap", begun + 2, "ValueError: no number")
    run()
    assert [note[0] for note in diary.taken()] == ["start", "ok"]
    # It has recovered: the next one is routine again.
    run()
    assert diary.taken() == []


def test_a_diary_that_cannot_be_written_is_written_with_the_next_run(noted: Any) -> None:
    _, diary, run = noted
    diary.error = DatabaseUnavailable("the disk is full")
    run()
    run(ValueError("no number"))
    assert diary.taken() == []
    diary.error = None
    run()
    assert [note[0] for note in diary.taken()] == ["start", "ok"]


def test_each_task_has_its_period_and_no_run_is_left_out_because_it_is_late(
    maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("promote", "reap", "retain"):
        monkeypatch.setattr(timers, name, lambda _: None)
    maintenance.start()
    jobs = {job.id: job for job in maintenance._scheduler.get_jobs()}
    assert {name: job.trigger.interval.total_seconds() for name, job in jobs.items()} == {
        "rehydrate": timers.COLD_CHECK_S,
        "reconcile": timers.RECONCILE_S,
        "reap": timers.REAP_S,
        "retain": timers.RETAIN_S,
        "promote": timers.PROMOTE_S,
        "safeguard": timers.SAFEGUARD_S,
        "clean": timers.CLEAN_S,
    }
    assert set(jobs) == set(timers.TASKS)
    for job in jobs.values():
        assert (job.coalesce, job.max_instances, job.misfire_grace_time) == (True, 1, None)


def test_a_start_rebuilds_a_warm_store_too_and_promotes_retains_and_reaps_at_once(
    world: Any, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {name: threading.Event() for name in ("promote", "retain", "reap")}
    for name, event in seen.items():
        monkeypatch.setattr(timers, name, lambda _, event=event: event.set())
    before = world.ctx.queue.epoch()
    maintenance.start()
    assert world.ctx.queue.epoch() != before
    assert all(event.wait(30) for event in seen.values())


def test_maintenance_is_one_a_home_until_it_stops_and_stops_once(world: Any, maintenance: Maintenance) -> None:
    path = world.settings.home / "maintain.lock"
    maintenance.start()
    second = Maintenance(world.ctx, FileLock(path, "maintenance"))
    with pytest.raises(AlreadyRunning, match=rf"^maintenance is already running as pid {os.getpid()}$"):
        second.start()
    assert is_held(path)
    maintenance.stop()
    assert not is_held(path)
    assert not maintenance._scheduler.running
    assert not maintenance._clock_watch.is_alive()
    heard: list[str] = []
    maintenance._soon = lambda task, after_s=0.0: heard.append(task)  # type: ignore[method-assign]
    world.ctx.notifier.publish("delayed")
    assert heard == []
    third = FileLock(path, "maintenance")
    third.acquire()
    maintenance.stop()
    assert is_held(path)
    third.release()


def test_every_task_of_one_round_is_done_on_the_callers_thread(world: Any, maintenance: Maintenance) -> None:
    world.ctx.queue.rebuild(iter(()), epoch="another")
    world.ctx.queue.open("another")
    due = world.submit("a", begin=world.clock.now() + 1)
    dead = world.submit("a", max_retries=0)
    letter = world.submit("a", max_retries=0)
    maintenance.run_once()
    agent = world.agent()
    agent.run_once()
    world.launcher.run(letter)
    agent.run_once()
    world.launcher.end(letter, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    with world.ctx.records.read() as tx:
        assert tx.dead_letter(letter) is not None
    agent.stop()
    world.launcher.die(dead)
    lost = world.submit("a")
    world.ctx.queue.remove([(lost, 1)])
    world.clock.forward(world.settings.dlq_days * 86400 + 1)
    maintenance.run_once()
    assert world.state(due) == "queued"
    assert (world.state(dead), world.job(dead).lost_count) == ("queued", 0)
    with world.ctx.records.read() as tx:
        assert tx.dead_letter(letter) is None
    # A difference counts at the second look.
    maintenance.run_once()
    assert lost in {entry.job_id for entry in world.ctx.queue.heads(9)}


@pytest.mark.parametrize(("in_s", "asked"), [(0.5, True), (29.9, True), (30.0, False), (500.0, False), (-5.0, True)])
def test_the_next_due_job_is_promoted_when_it_is_due_if_no_round_comes_before(
    world: Any, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch, in_s: float, asked: bool
) -> None:
    monkeypatch.setattr(timers, "promote", lambda ctx: ctx.clock.now() + in_s)
    added: list[dict[str, Any]] = []
    monkeypatch.setattr(maintenance._scheduler, "add_job", lambda work, kind, **words: added.append(words))
    before = datetime.now(UTC)
    maintenance._promote()
    after = datetime.now(UTC)
    assert len(added) == asked
    if asked:
        wait = timedelta(seconds=max(0.0, in_s))
        # To the millisecond of the clock that is promised.
        assert before + wait - timedelta(seconds=0.001) <= added[0]["run_date"] <= after + wait
        assert (added[0]["id"], added[0]["replace_existing"]) == ("promote-next", True)
    maintenance.stop()
    maintenance._promote()
    assert len(added) == asked


def test_without_a_next_due_job_nothing_is_asked_for(
    world: Any, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "promote", lambda _: None)
    monkeypatch.setattr(maintenance._scheduler, "add_job", lambda *_, **__: pytest.fail("asked for"))
    maintenance._promote()


def test_a_difference_between_the_stores_is_looked_at_again_soon(
    world: Any, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, datetime]] = []
    monkeypatch.setattr(
        maintenance._scheduler, "modify_job", lambda task, next_run_time: asked.append((task, next_run_time))
    )
    maintenance._reconcile()
    assert asked == []
    job_id = world.submit("a")
    world.ctx.queue.remove([(job_id, 1)])
    before = datetime.now(UTC)
    maintenance._reconcile()
    [(task, at)] = asked
    assert task == "reconcile"
    assert before < at <= datetime.now(UTC) + timedelta(seconds=timers.RECONCILE_AGAIN_S)
    maintenance._reconcile()
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == [job_id]
    assert len(asked) == 1
    world.ctx.queue.remove([(job_id, 1)])
    maintenance.stop()
    maintenance._reconcile()
    assert len(asked) == 1


def test_what_is_heard_is_answered_by_the_task_that_it_is_for(
    world: Any, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    maintenance.start()
    asked: list[str] = []
    monkeypatch.setattr(maintenance, "_soon", lambda task, after_s=0.0: asked.append(task))
    for topic in ("delayed", "cold", "missed", "queue", "events", "control"):
        world.ctx.notifier.publish(topic)
    assert asked == ["promote", "rehydrate"]


def test_a_cold_store_is_rebuilt_and_a_warm_one_left_alone(world: Any, maintenance: Maintenance) -> None:
    job_id = world.submit("a")
    epoch = world.ctx.queue.epoch()
    world.ctx.queue.remove([(job_id, 1)])
    maintenance.rebuild_if_cold()
    assert (world.ctx.queue.epoch(), world.ctx.queue.heads(5)) == (epoch, [])
    maintenance.rebuild_if_cold(always=True)
    assert world.ctx.queue.epoch() != epoch
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == [job_id]


def test_the_clock_is_watched_although_a_look_at_it_failed(
    maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "CLOCK_LOOK_S", 0.001)
    looks: list[int] = []
    again = threading.Event()

    def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            raise ValueError("the database is away")
        again.set()

    monkeypatch.setattr(maintenance, "follow_clock", look)
    maintenance.start()
    assert again.wait(30)


def test_a_stop_waits_for_the_look_at_the_clock_that_is_under_way(
    maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "CLOCK_LOOK_S", 0.001)
    looking, stopped, over = threading.Event(), threading.Event(), []

    def look() -> None:
        looking.set()
        # Nobody sets it before the stop has returned, which waits for the end of this.
        over.append(stopped.wait(0.5))

    monkeypatch.setattr(maintenance, "follow_clock", look)
    maintenance.start()
    assert looking.wait(30)
    maintenance.stop()
    stopped.set()
    assert over[-1] is False
    assert not maintenance._clock_watch.is_alive()


def test_only_a_clock_that_was_set_back_shortens_backoffs(
    world: Any, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortened: list[Any] = []
    monkeypatch.setattr(timers, "shorten_backoffs", shortened.append)
    for jump, told in ((60, 0), (-60, 1), (-1, 1)):
        world.clock.jump(jump)
        maintenance.follow_clock()
        assert len(shortened) == told

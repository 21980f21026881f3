"""Verbs on very many jobs at once: what that costs, and that none of them gets away meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.engine.actions.bulk import BulkAction, run_many
from gpuq.engine.actions.cancel import cancel, cancel_many
from gpuq.engine.actions.change import TOP, updating
from gpuq.engine.actions.hold import HOLD, RELEASE, hold
from gpuq.engine.actions.retry import RETRY
from gpuq.errors import DatabaseUnavailable, UsageError
from gpuq.ports.records import DeadLetter, JobFilter, Move
from gpuq.stores.sql.core.rows import Prepared

BOB = Caller("bob", uid=1001, gid=1001)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def world(request: pytest.FixtureRequest, make_world: Callable[..., Any]) -> Any:
    if request.param == "sqlite":
        return make_world()
    return make_world(database_url=str(request.getfixturevalue("postgres_url")))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the driver was called, `many` rows at once or a `statement`."""
    counted: Counter[str] = Counter()
    one, many, rows = Prepared.__call__, Prepared.each, Prepared.insert_rows

    def counting_one(self: Prepared, *arguments: Any) -> Any:
        counted["statement"] += 1
        return one(self, *arguments)

    def counting_many(self: Prepared, driver: Any, values: Sequence[Mapping[str, Any]]) -> int:
        counted["many"] += 1
        return many(self, driver, values)

    def counting_rows(self: Prepared, *arguments: Any) -> None:
        counted["many"] += 1
        rows(self, *arguments)

    monkeypatch.setattr(Prepared, "__call__", counting_one)
    monkeypatch.setattr(Prepared, "each", counting_many)
    monkeypatch.setattr(Prepared, "insert_rows", counting_rows)
    return counted


def states(world: Any, ids: Sequence[int]) -> list[str]:
    with world.ctx.records.read() as tx:
        found = {job.id: str(job.state) for job in tx.jobs(JobFilter(ids=tuple(ids)))}
    return [found[job_id] for job_id in ids]


def cost_of_each_verb(world: Any, calls: Counter[str], count: int) -> dict[str, tuple[int, int]]:
    """(statements, calls with many rows) of a storm over so many jobs, by verb."""
    world.submit("somebody", "else's", by=BOB)
    world.clock.forward(1)
    ids = [world.submit("train", str(number)) for number in range(count)]
    costs: dict[str, tuple[int, int]] = {}

    def storm(name: str, act: Callable[[], Any], state: str) -> None:
        calls.clear()
        done = act()
        assert [one.error for one in done] == [None] * count
        costs[name] = calls["statement"], calls["many"]
        assert set(states(world, ids)) == {state}

    storm("hold", lambda: run_many(world.ctx, ids, world.user, HOLD), "held")
    storm("top while held", lambda: run_many(world.ctx, ids, world.user, TOP), "held")
    storm("release", lambda: run_many(world.ctx, ids, world.user, RELEASE), "queued")
    storm("top", lambda: run_many(world.ctx, ids, world.user, TOP), "queued")
    storm("update", lambda: run_many(world.ctx, ids, world.user, updating({"priority": "low"})), "queued")
    storm("cancel", lambda: cancel_many(world.ctx, ids, world.user), "cancelled")
    storm("retry", lambda: run_many(world.ctx, ids, world.user, RETRY), "queued")
    stories = {tuple(world.story(job_id)) for job_id in ids}
    assert {story[-1] for story in stories} == {"queued"}
    # Submitted, held, (moved), released, (moved), changed, cancelled, retried: a row for each.
    assert {len(story) for story in stories} <= {6, 7, 8}
    return costs


def test_a_storm_takes_as_many_questions_as_a_handful_of_jobs(
    make_world: Callable[..., Any], calls: Counter[str]
) -> None:
    few, many = cost_of_each_verb(make_world(), calls, 3), cost_of_each_verb(make_world(), calls, 60)
    assert few == many
    assert max(sum(cost) for cost in many.values()) <= 12


def test_every_verb_storms_on_either_database(world: Any, calls: Counter[str]) -> None:
    assert set(cost_of_each_verb(world, calls, 5)) >= {"hold", "release", "top", "update", "cancel", "retry"}


def test_a_storm_tells_the_hot_queue_once(make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world()
    ids = [world.submit("a") for _ in range(20)]
    told: list[str] = []
    run = world.link.run_warm

    def script(name: str, *words: Any) -> Any:
        told.append(name)
        return run(name, *words)

    monkeypatch.setattr(world.link, "run_warm", script)
    run_many(world.ctx, ids, world.user, HOLD)
    run_many(world.ctx, ids, world.user, RELEASE)
    cancel_many(world.ctx, ids, world.user)
    assert told == ["remove", "add", "remove"]
    assert world.ctx.queue.heads(5) == []


def test_nothing_that_waits_is_left_when_the_first_running_job_hears_of_the_cancel(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = world.submit("train", gpus=1, array="0-9%2")
    elements = [array + number for number in range(10)]
    agent = world.agent()
    agent.run_once()
    running = [job_id for job_id in elements if world.state(job_id) == "starting"]
    assert len(running) == 2
    for job_id in running:
        world.launcher.run(job_id)
    left: list[list[str]] = []
    stop = world.launcher.request_stop

    def hear(run_dir: str, **words: Any) -> None:
        left.append([state for state in states(world, elements) if state == "queued"])
        left.append([str(entry.job_id) for entry in world.ctx.queue.heads(9)])
        stop(run_dir, **words)
        agent.run_once()

    monkeypatch.setattr(world.launcher, "request_stop", hear)
    done = cancel_many(world.ctx, elements, world.user)
    assert left == [[], [], [], []]
    assert {one.job_id: one.state for one in done} == {
        job_id: JobState.STOPPING if job_id in running else JobState.CANCELLED for job_id in elements
    }
    for job_id in running:
        world.launcher.end(job_id, Outcome.CANCELLED, signal=15)
    agent.run_once()
    assert set(states(world, elements)) == {"cancelled"}
    assert len(world.launcher.orders) == 2, "no other element was started only to be killed"


def test_those_that_wait_for_each_other_are_cancelled_together_and_nobody_is_woken_in_between(world: Any) -> None:
    first = world.submit("a", hold=True)
    chain = [first]
    for _ in range(4):
        chain.append(world.submit("b", after_any=[chain[-1]]))
    outside = world.submit("c", after_any=[chain[2], chain[4]], by=BOB)
    later = world.submit("d", after_any=[first], begin=world.clock.now() + 60, by=BOB)
    never = world.submit("e", after=[first], by=BOB)
    patient = world.submit("f", after=[first], by=BOB, keep_waiting=True)
    done = cancel_many(world.ctx, chain, world.user)
    assert [one.state for one in done] == [JobState.CANCELLED] * 5
    assert [world.story(job_id)[-1:] for job_id in chain] == [["cancelled"]] * 5
    assert {"queued"}.isdisjoint(state for job_id in chain for state in world.story(job_id))
    assert states(world, [outside, later, never, patient]) == ["queued", "delayed", "cancelled", "blocked"]
    assert [entry.job_id for entry in world.ctx.queue.heads(9)] == [outside]
    with world.ctx.records.read() as tx:
        assert tx.events(job_id=outside)[-1].detail == f"job {chain[2]} ended; nothing left to wait for"


def test_a_storm_touches_only_what_its_caller_may_and_says_so_for_each(world: Any) -> None:
    mine, theirs, held = world.submit("a"), world.submit("a", by=BOB), world.submit("a", hold=True)
    over = world.submit("a")
    cancel(world.ctx, over, world.user)
    wanted = [mine, theirs, held, over, 99, mine]

    def names(done: Any) -> list[str]:
        return [str(one.state) if one.error is None else type(one.error).__name__ for one in done]

    done = names(cancel_many(world.ctx, wanted, world.user, reason="wrong data"))
    assert done == ["cancelled", "Forbidden", "cancelled", "WrongState", "NotFound"]
    assert states(world, [mine, theirs, held]) == ["cancelled", "queued", "cancelled"]
    assert world.job(mine).error == "wrong data"
    done = names(run_many(world.ctx, [theirs, mine, 99], world.user, updating({"time_limit_s": 5})))
    assert done == ["Forbidden", "WrongState", "NotFound"]
    assert world.job(theirs).time_limit_s is None
    assert names(run_many(world.ctx, [theirs], world.admin, updating({"time_limit_s": 5}))) == ["queued"]
    assert world.job(theirs).time_limit_s == 5


def test_active_jobs_of_a_storm_keep_their_own_graces(world: Any) -> None:
    ids = [world.submit("a", gpus=0, kill_grace_s=float(10 + number)) for number in range(3)]
    world.agent().run_once()
    for job_id in ids:
        world.launcher.run(job_id)
    cancel_many(world.ctx, ids, world.user)
    assert sorted(stop["grace_s"] for stop in world.launcher.stops) == [10, 11, 12]
    # Asked again, at once.
    cancel_many(world.ctx, ids[:1], world.user)
    assert world.launcher.stops[-1]["grace_s"] == 0
    cancel_many(world.ctx, ids[1:], world.user, force=True)
    assert [stop["grace_s"] for stop in world.launcher.stops[-2:]] == [0, 0]


def test_a_chain_that_is_retried_together_waits_as_it_did(world: Any) -> None:
    first = world.submit("a", hold=True)
    second = world.submit("b", after_any=[first])
    third = world.submit("c", after=[second])
    cancel_many(world.ctx, [first, second, third], world.user)
    with world.ctx.records.write() as tx:
        tx.add_dead_letter(DeadLetter(second, world.clock.now(), "exit_nonzero", None, 1, None))
    done = run_many(world.ctx, [first, second, third], world.user, RETRY)
    assert [str(one.state) for one in done] == ["queued", "blocked", "blocked"]
    with world.ctx.records.read() as tx:
        assert tx.count_dead_letters() == 0
    assert [entry.job_id for entry in world.ctx.queue.heads(9)] == [first]


def test_of_two_with_one_key_that_are_retried_together_the_first_comes_back(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.submit("a", key="k")
    cancel(world.ctx, first, world.user)
    second = world.submit("a", key="k")
    cancel(world.ctx, second, world.user)
    opened: list[int] = []
    write = world.ctx.records.write
    monkeypatch.setattr(world.ctx.records, "write", lambda: (opened.append(1), write())[1])
    one, two = run_many(world.ctx, [first, second], world.user, RETRY)
    assert len(opened) == 1, "the database did not have to find it"
    assert (one.state, str(two.error)) == (JobState.QUEUED, f"job {first} carries the key 'k' now")
    assert states(world, [first, second]) == ["queued", "cancelled"]


def test_jobs_that_are_retried_together_are_spaced_as_one_after_the_other(make_world: Callable[..., Any]) -> None:
    together, apart = make_world(user_spacing=60.0), make_world(user_spacing=60.0)
    places = []
    for world in (together, apart):
        ids = [world.submit("a") for _ in range(3)]
        cancel_many(world.ctx, ids, world.user)
        world.clock.forward(5)
        for some in [ids] if world is together else [[job_id] for job_id in ids]:
            run_many(world.ctx, some, world.user, RETRY)
        places.append([world.job(job_id).score for job_id in ids])
    assert places[0] == places[1]
    assert len(set(places[0])) == 3


def test_jobs_that_are_changed_together_are_judged_by_what_each_asked_for(world: Any) -> None:
    plain, shared = world.submit("a", gpus=0), world.submit("a", gpus=1)
    array = world.submit("a", gpus=2, array="0-2", env={"K": "V"})
    ids = [plain, shared, array, array + 1, array + 2]
    done = run_many(world.ctx, ids, world.user, updating({"gpu_mem_mb": 100, "signal": "USR1@60"}))
    assert [type(one.error) for one in done] == [UsageError, *[type(None)] * 4]
    assert [world.job(job_id).gpu_mem_mb for job_id in ids] == [None, 100, 100, 100, 100]
    with world.ctx.records.read() as tx:
        spec = tx.spec(array + 2)[0]
    assert (spec.signal, spec.gpu_mem_mb, spec.env, spec.gpus) == ("USR1@60", 100, {"K": "V"}, 2)
    run_many(world.ctx, ids, world.user, updating({"gpus": 3}))
    assert {(entry.job_id, entry.gpus) for entry in world.ctx.queue.heads(9)} == {(job_id, 3) for job_id in ids}


def test_a_job_that_changes_in_the_same_moment_keeps_none_of_the_others_from_being_done(world: Any) -> None:
    ids = [world.submit("a") for _ in range(4)]

    def act(step: Any, job: Any) -> JobState:
        state = HOLD.act(step, job)
        if job.id == ids[2]:
            # Somebody who takes no turns with us: a release that writes under another lock.
            gone = {"outcome": Outcome.CANCELLED, "finished_at": step.now}
            step.tx.move(Move(job.id, JobState.CANCELLED, frozenset({job.state}), "root", step.now, set=gone))
        return state

    done = run_many(world.ctx, ids, world.user, BulkAction(act))
    assert [one.state and str(one.state) for one in done] == ["held", "held", None, "held"]
    assert type(done[2].error).__name__ == "WrongState"
    assert states(world, ids) == ["held", "held", "queued", "held"]


def test_on_a_full_disk_a_storm_still_stops_what_runs(
    make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    active, waiting = world.submit("a", gpus=4), world.submit("a", gpus=4)
    world.agent().run_once()
    world.launcher.run(active)

    @contextmanager
    def full() -> Iterator[Any]:
        raise DatabaseUnavailable("the disk is full")
        yield

    monkeypatch.setattr(world.ctx.records, "write", full)
    with pytest.raises(DatabaseUnavailable):
        cancel_many(world.ctx, [waiting], world.user)
    one, two = cancel_many(world.ctx, [active, waiting], world.user)
    assert (one.state, type(two.error)) == (JobState.STOPPING, DatabaseUnavailable)
    assert len(world.launcher.stops) == 1


def test_one_job_is_done_by_the_same_code(world: Any) -> None:
    job_id = world.submit("a")
    assert str(hold(world.ctx, job_id, world.user).state) == "held"
    assert str(cancel(world.ctx, job_id, world.user).state) == "cancelled"

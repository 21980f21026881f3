"""What verbs on the queue and on many jobs write, whom they wake, and what they are refused for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.domain.times import iso
from gpuq.engine.actions import bulk, dead_letters
from gpuq.engine.actions.bulk import BulkAction, run_many
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.change import TOP, top, update
from gpuq.engine.actions.drain import drain, undrain
from gpuq.engine.actions.groups import limit_group
from gpuq.engine.actions.hold import HOLD, RELEASE, hold, release
from gpuq.engine.actions.pause import pause, resume
from gpuq.engine.actions.retry import RETRY, retry
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.queries import health
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.queries.forecast_cache import ForecastCache
from gpuq.engine.switches import Drained, read_switches
from gpuq.errors import DatabaseUnavailable, Forbidden, HotStoreUnavailable, NotFound, Refused

BOB = Caller("bob", uid=1001, gid=1001)


def topics_of(world: Any) -> list[str]:
    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    return topics


def switches(world: Any) -> Any:
    with world.ctx.records.read() as tx:
        return read_switches(tx, "box")


def turn(world: Any) -> Any:
    agent = world.agents[0] if world.agents else world.agent()
    agent.wake()
    agent.run_once()
    return agent


def ends(world: Any, job_id: int, outcome: Outcome) -> None:
    turn(world)
    world.launcher.run(job_id)
    turn(world)
    world.launcher.end(job_id, outcome, **({"exit_code": 1} if outcome is Outcome.EXIT_NONZERO else {}))
    turn(world)


def test_the_agent_is_woken_by_every_switch_and_the_switch_is_read_back(world: Any) -> None:
    topics, now = topics_of(world), iso(world.clock.now())
    assert pause(world.ctx, world.admin, "a move") == {"by": "root", "reason": "a move", "at": now}
    assert switches(world).paused == "the queue is paused by root: a move"
    pause(world.ctx, world.admin)
    assert switches(world).paused == "the queue is paused by root"
    resume(world.ctx, world.admin)
    resume(world.ctx, world.admin)
    assert switches(world).paused is None
    assert topics == ["control"] * 4
    uuids = [gpu.uuid for gpu in world.ctx.gpus.inventory()]
    drain(world.ctx, 2, world.admin)
    drain(world.ctx, 0, world.admin, "a fan")
    assert switches(world).drained == {uuids[0]: Drained("root", "a fan"), uuids[2]: Drained("root", None)}
    undrain(world.ctx, 0, world.admin)
    assert set(switches(world).drained) == {uuids[2]}
    assert topics == ["control"] * 7
    limit_group(world.ctx, "g", 1, world.admin)
    limit_group(world.ctx, "h", 5, world.admin)
    assert switches(world).group_limits == {"g": 1, "h": 5}
    limit_group(world.ctx, "g", 0, world.admin)
    assert switches(world).group_limits == {"h": 5}
    assert topics == ["control"] * 10


def test_only_an_administrator_turns_switches(world: Any) -> None:
    topics = topics_of(world)
    for verb in (
        lambda: pause(world.ctx, world.user),
        lambda: resume(world.ctx, world.user),
        lambda: limit_group(world.ctx, "g", 1, world.user),
        lambda: drain(world.ctx, 0, world.user),
        lambda: undrain(world.ctx, 0, world.user),
    ):
        with pytest.raises(Forbidden, match="alice may not"):
            verb()
    assert (topics, switches(world).paused, switches(world).group_limits) == ([], None, {})


# Retry.


def test_a_retry_by_hand_counts_failures_and_losses_anew(make_world: Any) -> None:
    world = make_world("sim:4", retry_base=0.01)
    job_id = world.submit("a", max_retries=1)
    ends(world, job_id, Outcome.LOST)
    world.clock.forward(60)
    promote(world.ctx)
    ends(world, job_id, Outcome.EXIT_NONZERO)
    world.clock.forward(60)
    promote(world.ctx)
    ends(world, job_id, Outcome.EXIT_NONZERO)
    job = world.job(job_id)
    assert (str(job.state), job.retries_used, job.lost_count, job.attempt) == ("failed", 1, 1, 3)
    retry(world.ctx, job_id, world.user)
    job = world.job(job_id)
    assert (str(job.state), job.retries_used, job.lost_count, job.attempt) == ("queued", 0, 0, 3)


def test_a_retried_job_stands_where_one_submitted_now_would_stand(make_world: Any) -> None:
    world = make_world("sim:4", user_spacing=50.0)
    job_id = world.submit("a", priority="high", time_limit_s=600)
    cancel(world.ctx, job_id, world.user)
    world.clock.forward(1000)
    world.submit("b", priority="high", time_limit_s=600)
    other = world.submit("b", priority="high", time_limit_s=600)
    retry(world.ctx, job_id, world.user)
    assert world.job(job_id).score == world.job(other).score + 50


def test_a_retried_job_waits_for_what_it_depends_on(world: Any) -> None:
    first = world.submit("a", hold=True)
    job_id = world.submit("a", after=[first])
    cancel(world.ctx, job_id, world.user)
    topics = topics_of(world)
    assert str(retry(world.ctx, job_id, world.user).state) == "blocked"
    assert (topics, world.ctx.queue.heads(5)) == (["events"], [])


def test_a_job_whose_key_has_been_taken_is_not_retried(world: Any) -> None:
    job_id = world.submit("a", key="k")
    cancel(world.ctx, job_id, world.user)
    other = world.submit("a", key="k")
    with pytest.raises(Refused, match=f"job {other} carries the key 'k' now"):
        retry(world.ctx, job_id, world.user)
    cancel(world.ctx, other, world.user)
    assert str(retry(world.ctx, job_id, world.user).state) == "queued"


# Many at once.


def test_many_are_done_in_parts_and_told_of_after_each(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PER_TRANSACTION", 2)
    jobs = [world.submit("a") for _ in range(5)]
    topics = topics_of(world)
    committed: list[int] = []

    def count() -> None:
        assert topics.count("events") == len(committed)
        committed.append(1)

    done = run_many(world.ctx, jobs, world.user, BulkAction(HOLD.act, committed=count))
    assert [one.job_id for one in done] == jobs
    assert {world.state(job_id) for job_id in jobs} == {"held"}
    assert (topics, len(committed), world.ctx.queue.heads(9)) == (["events"] * 3, 3, [])
    topics.clear()
    run_many(world.ctx, jobs[:3], world.user, RELEASE)
    assert topics == ["queue", "events", "queue", "events"]
    assert [entry.job_id for entry in world.ctx.queue.heads(9)] == jobs[:3]
    topics.clear()
    run_many(world.ctx, jobs[:2], world.user, TOP)
    # What the agent remembers is out of date before it is told of the new places.
    assert topics == ["changed", "queue", "events"]


def test_a_store_that_goes_away_among_many_is_raised_and_what_was_committed_stays(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PER_TRANSACTION", 2)
    jobs = [world.submit("a") for _ in range(4)]

    def act(step: Any, job: Any) -> Any:
        if job.id == jobs[3]:
            raise DatabaseUnavailable("the disk is full")
        return HOLD.act(step, job)

    with pytest.raises(DatabaseUnavailable):
        run_many(world.ctx, jobs, world.user, BulkAction(act))
    assert [world.state(job_id) for job_id in jobs] == ["held", "held", "queued", "queued"]


def test_a_verb_on_many_refuses_each_by_itself(world: Any) -> None:
    mine, others, held = world.submit("a"), world.submit("a", by=BOB), world.submit("a", hold=True)
    done = run_many(world.ctx, [mine, others, held, 99], world.user, RETRY)
    assert [type(one.error).__name__ for one in done] == ["WrongState", "Forbidden", "WrongState", "NotFound"]
    assert {one.state for one in done} == {None}


def test_jobs_moved_to_the_front_together_stand_in_the_reverse_order_of_their_moves(world: Any) -> None:
    jobs = [world.submit("a") for _ in range(4)]
    run_many(world.ctx, jobs[1:3], world.user, TOP)
    assert [entry.job_id for entry in world.ctx.queue.heads(9)] == [jobs[2], jobs[1], jobs[0], jobs[3]]
    first = world.job(jobs[0]).score
    assert [world.job(job_id).score - first for job_id in jobs[1:3]] == [-(2.0**-12), -(2.0**-11)]
    run_many(world.ctx, jobs[2:], world.admin, TOP)
    assert [world.job(job_id).score - first for job_id in jobs[2:]] == [-(2.0**-11), -(2.0**-11) - 1]


def test_a_user_passes_only_jobs_of_its_own_and_an_administrator_everybody(world: Any) -> None:
    others = world.submit("a", by=BOB)
    world.clock.forward(0.001)
    mine, last = world.submit("a"), world.submit("a")
    world.clock.forward(10)
    newest = world.submit("a")
    top(world.ctx, newest, world.user)
    assert world.job(others).score < world.job(newest).score < world.job(mine).score
    top(world.ctx, last, world.admin)
    assert world.job(last).score == min(world.job(newest).score, world.job(others).score) - 1
    other_priority = world.submit("a", priority="low")
    before = world.job(other_priority).score
    top(world.ctx, other_priority, world.user)
    assert world.job(other_priority).score == before


def test_only_a_new_priority_or_time_limit_takes_the_place_from_a_job_that_was_moved_to_the_front(world: Any) -> None:
    other, moved = world.submit("a"), world.submit("a")
    top(world.ctx, moved, world.admin)
    place = world.job(moved).score
    update(world.ctx, moved, world.user, {"name": "n", "group": "g"})
    assert world.job(moved).score == place < world.job(other).score
    update(world.ctx, moved, world.user, {"time_limit_s": 8 * 3600.0})
    assert world.job(moved).score == world.job(other).score


# Holding, releasing, cancelling.


def test_a_job_is_held_by_its_user_or_by_an_administrator(world: Any) -> None:
    root_own = world.submit("a", by=world.admin)
    hold(world.ctx, root_own, world.admin)
    assert world.job(root_own).held_by == "user"
    job_id = world.submit("a")
    hold(world.ctx, job_id, world.admin)
    hold(world.ctx, job_id, world.user)
    assert world.job(job_id).held_by == "admin"
    assert world.queries.why(job_id)["reason"]["code"] == "HeldByAdmin"
    with pytest.raises(Forbidden):
        release(world.ctx, job_id, world.user)
    with pytest.raises(Forbidden, match="bob may not hold it"):
        hold(world.ctx, job_id, BOB)


def test_the_cancel_of_a_job_frees_those_that_waited_for_its_end(world: Any) -> None:
    first = world.submit("a", hold=True)
    free, bound = world.submit("a", after_any=[first]), world.submit("a", after=[first])
    topics = topics_of(world)
    cancel(world.ctx, first, world.user)
    assert (world.state(free), world.state(bound), topics) == ("queued", "cancelled", ["queue", "events"])
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == [free]


# Dead letters.


def test_dead_letters_are_listed_newest_first_up_to_a_number_and_dropped_by_their_owner(world: Any) -> None:
    jobs = []
    for _ in range(3):
        jobs.append(world.submit("a", max_retries=0))
        ends(world, jobs[-1], Outcome.EXIT_NONZERO)
        world.clock.forward(1)
    listed = [letter["job_id"] for letter in dead_letters.list_letters(world.ctx, BOB)]
    assert listed == jobs[::-1]
    assert [letter["job_id"] for letter in dead_letters.list_letters(world.ctx, BOB, limit=2)] == jobs[:0:-1]
    with pytest.raises(Forbidden, match="bob may not drop the dead letter of it"):
        dead_letters.remove(world.ctx, jobs[0], BOB)
    with pytest.raises(Forbidden):
        dead_letters.retry(world.ctx, jobs[0], BOB)
    assert str(dead_letters.retry(world.ctx, jobs[0], world.user).state) == "queued"
    assert [letter["job_id"] for letter in dead_letters.list_letters(world.ctx, BOB)] == jobs[:0:-1]
    with pytest.raises(NotFound, match="99"):
        dead_letters.retry(world.ctx, 99, world.user)


# What is answered.


def test_health_names_the_store_that_is_away(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.agent()
    agent = AgentLiveness(world.ctx)

    def no_redis() -> None:
        raise HotStoreUnavailable("Redis does not answer")

    def no_database() -> None:
        raise DatabaseUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.queue, "epoch", no_redis)
        found = health.readyz(world.ctx, agent)
        assert found["checks"]["redis"] == {"ok": False, "detail": "Redis does not answer"}
        assert (found["ready"], found["checks"]["database"]["ok"]) == (False, True)
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.records, "read", no_database)
        broken.setattr(world.ctx.maintenance_runs, "runs", no_database)
        found = health.readyz(world.ctx, agent)
        assert found["checks"]["database"] == {"ok": False, "detail": "the disk is full"}
        assert (found["ready"], found["maintenance"]) == (False, [])
        assert found["checks"]["redis"] == {"ok": True, "detail": "answers"}
        assert found["checks"]["agent"] == {"ok": True, "detail": "runs"}
    world.ctx.queue.rebuild(iter(()), epoch="another")
    found = health.readyz(world.ctx, agent)
    assert found["checks"]["redis"] == {"ok": False, "detail": "is being rebuilt from the database"}
    assert health.readyz(world.ctx, agent)["ready"] is False


def test_nobody_can_say_when_a_job_would_start_while_nothing_starts_anything(world: Any) -> None:
    forecasts = ForecastCache(world.ctx, AgentLiveness(world.ctx))
    job_id = world.submit("a")
    with world.ctx.records.read() as tx:
        waiting = tx.waiting([job_id])[job_id]
    # One like it that is not stored.
    supposed = replace(waiting, id=job_id + 1, score=waiting.score + 1)
    assert forecasts.estimate(supposed) is None
    agent = world.agent()
    assert forecasts.estimate(supposed) == world.clock.now()
    pause(world.ctx, world.admin)
    assert forecasts.estimate(supposed) is None
    resume(world.ctx, world.admin)
    assert forecasts.estimate(supposed) == world.clock.now()
    agent.stop()


def test_a_supposed_job_is_expected_to_run_as_long_as_its_kind_and_the_others_as_theirs(make_world: Any) -> None:
    world = make_world("sim:1")
    for command, seconds in (("long", 3000), ("short", 30)):
        for _ in range(3):
            job_id = world.submit(command)
            turn(world)
            world.launcher.run(job_id)
            turn(world)
            world.clock.forward(seconds)
            world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
            turn(world)
    running, behind = world.submit("short"), world.submit("long")
    turn(world)
    world.launcher.run(running)
    turn(world)
    with world.ctx.records.read() as tx:
        waiting = tx.waiting([behind])[behind]
    forecasts = ForecastCache(world.ctx, AgentLiveness(world.ctx))
    supposed = replace(waiting, id=behind + 1, score=waiting.score + 1, command=("short",))
    now = world.clock.now()
    assert forecasts.estimate(supposed) == pytest.approx(now + 30 + 3000)
    before = replace(supposed, score=waiting.score - 1)
    assert forecasts.estimate(before) == pytest.approx(now + 30)

"""The agent's own time: when it looks again, what it does when a store is away, and its thread."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome, Result
from gpuq.engine.agent import SAMPLE_S, SOON_S, WRITE_AFTER_S, Agent
from gpuq.engine.attempt import adopt as adoption
from gpuq.engine.attempt.launch_breaker import LaunchCircuitBreaker
from gpuq.engine.attempt.watcher import AttemptWatcher
from gpuq.engine.claim.dispatcher import FOREIGN_S, POLL_S
from gpuq.engine.file_lock import FileLock, is_held
from gpuq.engine.node_lock import NodeLocks
from gpuq.errors import DatabaseUnavailable, HotStoreUnavailable
from gpuq.ports.hot_queue import Taken
from gpuq.stores import redis as redis_stores


def turn(world: Any, agent: Agent) -> None:
    agent.wake()
    agent.run_once()


def running(world: Any, **fields: Any) -> tuple[int, Agent]:
    job_id = world.submit("train", **fields)
    agent = world.agents[0] if world.agents else world.agent()
    turn(world, agent)
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    return job_id, agent


def no_redis(*_: object, **__: object) -> Any:
    raise HotStoreUnavailable("Redis does not answer")


def locks(world: Any) -> NodeLocks:
    key = redis_stores.RedisAgentKey(world.link)
    return NodeLocks(FileLock(world.ctx.agent_lock_path, "an agent"), key, node="box", token="own", ttl_s=30)


# When it looks again.


def test_an_idle_agent_looks_again_after_its_period_and_a_due_limit_or_lease_comes_before(make_world: Any) -> None:
    world = make_world("sim:2", lease_ttl=30)
    agent = world.agent()
    turn(world, agent)
    assert agent._timeout() == POLL_S == 5.0
    world.clock.forward(4)
    assert agent._timeout() == 1
    world.clock.forward(2)
    assert agent._timeout() == 0
    _, agent = running(world, time_limit_s=100)
    turn(world, agent)
    world.clock.forward(3)
    # The plan is due in two seconds, the leases in one: they were renewed before these nine.
    assert agent._timeout() == 1
    turn(world, agent)
    world.clock.forward(96)
    turn(world, agent)
    assert agent._timeout() == 1
    world.clock.forward(0.5)
    assert agent._timeout() == 0.5


def test_a_start_is_written_a_little_later_with_others_and_not_before(world: Any) -> None:
    job_id = world.submit("train")
    agent = world.agent()
    turn(world, agent)
    world.launcher.run(job_id)
    agent.turn(0.0)
    assert world.state(job_id) == "starting"
    assert agent._timeout() == pytest.approx(WRITE_AFTER_S)
    world.clock.forward(WRITE_AFTER_S - 0.01)
    agent.turn(0.0)
    assert world.state(job_id) == "starting"
    world.clock.forward(0.01)
    agent.turn(0.0)
    assert world.state(job_id) == "running"
    assert agent._timeout() > WRITE_AFTER_S


def test_a_gpu_that_somebody_else_uses_is_looked_at_again_soon(make_world: Any) -> None:
    world = make_world("sim:1")
    world.driver_says({0: {"used_mb": 9000}})
    world.submit("train")
    agent = world.agent()
    turn(world, agent)
    assert agent._timeout() == FOREIGN_S == 1.0
    world.driver_says({})
    world.clock.forward(FOREIGN_S + 0.1)
    agent.turn(0.0)
    assert world.launcher.orders


def test_an_attempt_without_a_descriptor_is_asked_for_twice_a_second(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, _ = running(world)
    world.agents.pop().stop()
    monkeypatch.setattr(world.launcher, "watch", lambda _: None)
    agent = world.agent()
    turn(world, agent)
    assert agent._timeout() == SOON_S == 0.5
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(job_id) == "completed"
    assert agent._timeout() > SOON_S


def test_gpus_that_jobs_hold_are_looked_at_every_five_seconds(make_world: Any) -> None:
    world = make_world("sim:1")
    world.driver_says({0: {"utilisation": 0.5}})
    agent = world.agent()
    turn(world, agent)
    _, agent = running(world)
    [tracked] = agent.tracked
    looks = len(tracked.utilisation)
    for forward, more in ((SAMPLE_S - 0.5, 0), (0.5, 1), (1, 1), (SAMPLE_S - 1, 2), (SAMPLE_S + 1, 3)):
        world.clock.forward(forward)
        agent.turn(0.0)
        assert len(tracked.utilisation) == looks + more
    assert set(tracked.utilisation) == {0.5}


def test_who_waits_for_events_is_woken_once_by_each_word(world: Any) -> None:
    watcher = AttemptWatcher(world.ctx, LaunchCircuitBreaker(world.ctx), lambda: None)
    try:
        assert not watcher.hear(watcher.wait(0))
        watcher.wake()
        watcher.wake()
        assert watcher.hear(watcher.wait(30))
        assert not watcher.hear(watcher.wait(0))
        assert not watcher.unwatched
    finally:
        watcher.close()


# When a store is away.


def test_an_agent_that_finds_no_redis_takes_over_what_runs_and_starts_nothing_until_it_is_back(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, _ = running(world)
    world.agents.pop().stop()
    with monkeypatch.context() as broken:
        for name in ("acquire", "renew"):
            broken.setattr(redis_stores.RedisAgentKey, name, no_redis)
        agent = world.agent()
        assert [tracked.job.id for tracked in agent.tracked] == [job_id]
        other = world.submit("train")
        turn(world, agent)
        assert world.state(other) == "queued"
        world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
        agent.run_once()
        assert world.state(job_id) == "completed"
    world.clock.forward(1)
    turn(world, agent)
    assert world.state(other) == "starting"


def test_an_agent_without_redis_says_so_once_and_tries_again_a_little_later(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent = world.agent()
    job_id = world.submit("train")

    def told() -> int:
        return sum("nothing can be started on this machine" in record.message for record in caplog.records)

    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.queue, "heads", no_redis)
        turn(world, agent)
        assert agent._timeout() == SOON_S
        turn(world, agent)
        assert told() == 1
    agent.run_once()
    assert world.state(job_id) == "queued", "before its time"
    world.clock.forward(SOON_S)
    agent.run_once()
    assert world.state(job_id) == "starting"
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.queue, "heads", no_redis)
        turn(world, agent)
    assert told() == 2


def test_an_agent_that_finds_the_store_cold_has_it_rebuilt(world: Any) -> None:
    agent = world.agent()
    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    world.submit("train")
    world.ctx.queue.rebuild(iter(()), epoch="another")
    topics.clear()
    turn(world, agent)
    assert topics.count("cold") == 1
    assert agent._timeout() == SOON_S


def test_an_agent_without_a_database_says_so_once(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, agent = running(world)
    world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)

    def away() -> Any:
        raise DatabaseUnavailable("the disk is full")

    def told() -> int:
        return sum("are written later: the disk is full" in record.message for record in caplog.records)

    for times in (1, 2):
        with monkeypatch.context() as broken:
            broken.setattr(world.ctx.records, "write", away)
            for _ in range(3):
                agent.turn(0.0)
                world.clock.forward(SOON_S)
            assert told() == times
            assert world.state(first) == "running"
        agent.turn(0.0)
        if times == 1:
            assert world.state(first) == "completed"
            first, agent = running(world)
            world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)


def test_while_the_database_is_away_it_is_not_asked_at_every_event(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, agent = running(world)
    world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)
    asked: list[int] = []

    def away() -> Any:
        asked.append(1)
        raise DatabaseUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.records, "write", away)
        agent.turn(0.0)
        before = len(asked)
        agent.turn(0.0)
        agent.turn(0.0)
        assert len(asked) == before
        world.clock.forward(SOON_S)
        agent.turn(0.0)
        assert len(asked) > before


def test_a_machine_that_cannot_launch_is_asked_again_and_not_before(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, agent = running(world)
    lost = Result(Outcome.LAUNCH_ERROR, error="no space", machine_fault=True)
    monkeypatch.setattr(world.launcher, "outcome", lambda *_: lost)
    world.launcher.die(job_id)
    agent.run_once()
    assert world.state(job_id) == "queued"
    turn(world, agent)
    assert world.state(job_id) == "queued"
    assert agent._timeout() == SOON_S
    assert world.queries.why(job_id)["reason"]["code"] == "LaunchTrouble"
    world.clock.forward(1)
    turn(world, agent)
    assert world.state(job_id) == "starting"


def test_what_another_agent_has_ended_is_no_longer_watched(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = LaunchCircuitBreaker(world.ctx)
    job_id, _ = running(world)
    watcher = AttemptWatcher(world.ctx, breaker, lambda: None)
    try:
        watcher.adopt()
        [tracked] = watcher.holding
        assert tracked.fd is not None
        monkeypatch.setattr(adoption, "log", logging.getLogger("quiet"))
        world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
        world.agents[0].run_once()
        assert world.state(job_id) == "completed"
        watcher.adopt()
        assert (watcher.tracked, watcher.ended, tracked.fd) == ({}, [], None)
    finally:
        watcher.close()


def test_a_lease_that_somebody_has_leaves_the_job_in_line(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = world.submit("train")
    agent = world.agent()
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.leases, "take", lambda *_: Taken.BUSY)
        turn(world, agent)
    assert world.state(job_id) == "queued"
    assert "a GPU of [0] is still leased to somebody" in caplog.text
    caplog.clear()
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.leases, "take", lambda *_: Taken.MISSING)
        turn(world, agent)
    assert "still leased" not in caplog.text
    turn(world, agent)
    assert world.state(job_id) == "starting"


def test_an_end_that_was_written_with_the_next_start_is_not_written_again(
    make_world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world("sim:1")
    first, agent = running(world)
    second = world.submit("train")
    world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)
    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    agent.run_once()
    assert (world.state(first), world.state(second)) == ("completed", "starting")
    assert "end not written" not in caplog.text
    assert topics.count("events") == 1


# Its thread.


def test_an_agent_takes_turns_by_itself_until_it_is_stopped(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = threading.Event()
    start = world.launcher.start

    def tell(order: Any) -> int:
        launched.set()
        return int(start(order))

    monkeypatch.setattr(world.launcher, "start", tell)
    agent = Agent(world.ctx, locks(world))
    agent.start()
    try:
        assert is_held(world.ctx.agent_lock_path)
        job_id = world.submit("train")
        assert launched.wait(30)
    finally:
        agent.stop()
    assert all(thread.name != "gpuq-agent" for thread in threading.enumerate())
    assert not is_held(world.ctx.agent_lock_path)
    agent.stop()
    assert world.state(job_id) == "starting"
    # Nobody hears of it any more.
    world.ctx.notifier.publish("queue")


def test_a_turn_that_failed_is_told_of_and_followed_by_another(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(world.ctx, locks(world))
    agent.open()
    agent.turn(0.0)
    world.clock.forward(POLL_S)
    waits: list[float] = []
    failures: list[Exception] = [DatabaseUnavailable("the disk is full", hint="make room"), ValueError("a slip")]
    failures.append(DatabaseUnavailable("without advice"))
    third = threading.Event()

    def fail(timeout: float) -> None:
        waits.append(timeout)
        if failures:
            raise failures.pop(0)
        third.set()
        agent._stopping = True

    monkeypatch.setattr(agent, "turn", fail)
    agent._run()
    assert third.is_set()
    # What failed would fail again at once.
    assert waits == [0.0, SOON_S, SOON_S, SOON_S]
    told = [record.getMessage() for record in caplog.records if record.name == "gpuq.engine.agent"]
    assert told == ["the disk is full (make room)", "a turn of the agent failed", "without advice"]
    agent._stopping = False
    agent.stop()


def test_a_stopped_agent_starts_nothing_any_more(world: Any) -> None:
    agent = Agent(world.ctx, locks(world))
    agent.open()
    agent._stopping = True
    job_id = world.submit("train")
    turn(world, agent)
    assert world.state(job_id) == "queued"
    agent._stopping = False
    turn(world, agent)
    assert world.state(job_id) == "starting"
    agent.stop()

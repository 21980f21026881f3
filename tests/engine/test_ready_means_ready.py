"""While nothing can be started, whatever the reason, nobody is told that all is well or that a turn has come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fakeredis
import pytest

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.outcome import Outcome
from gpuq.engine.hot.owner import enroll
from gpuq.engine.maintenance.rehydrate import Reconciler, rehydrate
from gpuq.engine.queries.health import readyz
from gpuq.engine.switches import read_switches
from gpuq.errors import DatabaseUnavailable, HotStoreUnavailable, NamespaceTaken
from gpuq.server.routes import metrics_source


def turn(world: Any) -> Any:
    agent = world.agents[0] if world.agents else world.agent()
    agent.wake()
    agent.turn(0.0, write_after_s=0.0)
    return agent


def said(world: Any) -> str | None:
    with world.ctx.records.read() as tx:
        return read_switches(tx, "box").launch_trouble


def redis_of(world: Any) -> Any:
    return fakeredis.FakeRedis(server=world.redis, decode_responses=True)


def all_is_well(world: Any) -> bool:
    found = bool(readyz(world.ctx, world.queries.agent)["ready"])
    assert metrics_source.of(world.ctx, None, world.queries)["ready"] is found
    return found


def heal(world: Any) -> None:
    """What maintenance does within seconds."""
    Reconciler(world.ctx).run()
    Reconciler(world.ctx).fill_up()


@pytest.mark.parametrize("key", ["queue:1", "queues", "leases:box", "lease:box:{gpu}", "epoch"])
def test_a_key_of_another_program_is_told_wherever_it_stands(world: Any, key: str) -> None:
    agent = turn(world)
    assert all_is_well(world)
    client, name = redis_of(world), f"gpuq:{key.format(gpu=world.ctx.gpus.inventory()[0].uuid)}"
    client.delete(name)
    client.rpush(name, "x")
    job_id = world.submit("a")
    turn(world)
    assert (world.state(job_id), all_is_well(world)) == ("queued", False)
    why = world.queries.why(job_id)
    assert why["reason"]["code"] == "LaunchTrouble"
    assert "a key of another program under gpuq's namespace" in why["reason"]["text"]
    assert "Starting" not in {reason["code"] for reason in why["reasons"]}
    assert why["estimated_start"] is None
    # Once it is gone all goes on, without a restart.
    client.delete(name)
    for _ in range(3):
        heal(world)
        world.clock.forward(40)
        client.delete(f"gpuq:lease:box:{world.ctx.gpus.inventory()[0].uuid}")
        turn(world)
    assert (world.state(job_id), said(world), all_is_well(world)) == ("starting", None, True)
    assert agent is world.agents[0]


def test_a_redis_that_is_away_is_the_reason(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turn(world)
    job_id = world.submit("a")

    def away(*_: Any) -> Any:
        raise HotStoreUnavailable("Redis at box cannot be reached")

    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.queue, "heads", away)
        turn(world)
        why = world.queries.why(job_id)
        assert [reason["code"] for reason in why["reasons"]] == ["LaunchTrouble"]
        assert "Redis at box cannot be reached" in why["reason"]["text"]
        assert not all_is_well(world)
    turn(world)
    assert (world.state(job_id), said(world)) == ("starting", None)
    assert "missed" in topics, "what queued jobs were told to Redis meanwhile may be gone"


def test_a_redis_that_is_away_when_the_agent_begins_is_the_reason(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = world.submit("a")

    def away(*_: Any) -> Any:
        raise HotStoreUnavailable("Redis at box cannot be reached")

    with monkeypatch.context() as broken:
        for name in ("acquire", "renew"):
            broken.setattr(f"gpuq.stores.redis.leases.RedisAgentKey.{name}", away)
        turn(world)
        assert world.queries.why(job_id)["reason"]["code"] == "LaunchTrouble"
    world.clock.forward(1)
    turn(world)
    assert (world.state(job_id), said(world)) == ("starting", None)


def test_a_cold_store_is_told_when_it_stays_cold(world: Any) -> None:
    job_id = world.submit("a")
    redis_of(world).delete("gpuq:epoch")
    turn(world)
    assert said(world) is None
    turn(world)
    assert "it has not been read back from the database yet" in str(said(world))
    rehydrate(world.ctx)
    turn(world)
    assert (world.state(job_id), said(world)) == ("starting", None)


def test_a_turn_that_fails_is_told_and_forgotten_with_the_next_good_one(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = world.agent()
    turns: list[int] = []

    def fail(*_: Any, **__: Any) -> None:
        turns.append(1)
        agent._stopping = len(turns) == 1
        if len(turns) == 1:
            raise RuntimeError("odd")

    with monkeypatch.context() as broken:
        broken.setattr(agent, "turn", fail)
        agent._run()
        assert said(world) == "the agent fails: RuntimeError: odd"
        agent._stopping = False
        broken.setattr(agent, "turn", lambda _: setattr(agent, "_stopping", True))
        agent._run()
    agent._stopping = False
    turn(world)
    assert said(world) is None


def test_what_an_earlier_agent_met_is_forgotten_by_the_next(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = turn(world)
    agent._obstacles.meet("launch", "the disk is full")
    assert not all_is_well(world)
    world.agents.pop().stop()
    writes: list[int] = []
    write = world.ctx.records.write
    monkeypatch.setattr(world.ctx.records, "write", lambda: writes.append(1) or write())
    turn(world)
    assert (said(world), all_is_well(world)) == (None, True)
    before = len(writes)
    turn(world)
    assert len(writes) == before, "nothing is written while nothing changes"


def test_what_cannot_be_noted_is_noted_later(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = turn(world)

    def away() -> Any:
        raise DatabaseUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.records, "write", away)
        agent._obstacles.meet("launch", "odd")
    assert said(world) is None
    agent._obstacles.tell()
    assert said(world) == "odd"


# Leases that nobody has.


def leave_a_lease(world: Any, *, ends_in_s: float, remembered: bool = True) -> str:
    uuid = str(world.ctx.gpus.inventory()[0].uuid)
    client = redis_of(world)
    seconds, _ = client.time()
    if remembered:
        client.sadd("gpuq:leases:box", uuid)
    client.zadd(f"gpuq:lease:box:{uuid}", {"somebody:-1": (seconds + ends_in_s) * 1000})
    return uuid


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "the_set_of_leases_is_lost"])
def test_a_lease_that_no_attempt_has_is_told_and_released_when_it_outlives_its_time(
    world: Any, remembered: bool
) -> None:
    uuid = leave_a_lease(world, ends_in_s=1e7, remembered=remembered)
    job_id = world.submit("a")
    turn(world)
    assert world.state(job_id) == "queued"
    assert world.queries.why(job_id)["reason"]["code"] == "LaunchTrouble"
    assert said(world) == "Redis says that somebody else holds GPU 0; it is freed within a minute"
    world.clock.forward(world.settings.lease_ttl)
    turn(world)
    assert world.ctx.leases.holders("box", [uuid]) == {uuid: ["somebody"]}, (
        "it may be of an agent that died just before its claim"
    )
    world.clock.forward(0.1)
    turn(world)
    turn(world)
    assert (world.state(job_id), said(world)) == ("starting", None)
    assert world.holders() == {uuid: [world.job(job_id).token]}


def test_the_leases_of_attempts_are_left_alone(world: Any) -> None:
    running = world.submit("a", gpus=2)
    agent = turn(world)
    world.launcher.run(running)
    turn(world)
    before = world.holders()
    uuid = next(gpu.uuid for gpu in world.ctx.gpus.inventory() if gpu.uuid not in before)
    client = redis_of(world)
    client.zadd(f"gpuq:lease:box:{uuid}", {"somebody:-1": 9e15})
    client.sadd("gpuq:leases:box", uuid)
    world.submit("a")
    for _ in range(4):
        world.clock.forward(20)
        agent._lease_renewer.due_at = 0.0
        turn(world)
    found = world.holders()
    assert {gpu: found[gpu] for gpu in before} == before
    assert "somebody" not in {token for tokens in found.values() for token in tokens}
    world.launcher.end(running, Outcome.SUCCEEDED, exit_code=0)


def test_a_lease_that_goes_by_itself_is_not_told_any_more(world: Any) -> None:
    uuid = leave_a_lease(world, ends_in_s=1e7)
    job_id = world.submit("a")
    turn(world)
    assert said(world) is not None
    redis_of(world).zrem(f"gpuq:lease:box:{uuid}", "somebody:-1")
    world.ctx.queue.remove([(job_id, 1)])
    turn(world)
    assert said(world) is None


# The namespace of another installation.


def test_the_namespace_of_another_installation_is_left_to_it_and_told(make_world: Any) -> None:
    shared = {"redis_url": "redis://shared"}
    first = make_world(**shared)
    with first.ctx.records.read() as tx:
        installation = tx.value(InstallationKey.NAMESPACE_OWNER)
    assert redis_of(first).get("gpuq:owner").startswith(f"{installation} home {first.settings.home} on box, database ")
    job_id = first.submit("a")
    second = make_world(**shared)
    with second.ctx.records.write() as tx:
        # Chance is played, and the same in every world.
        tx.set_value(InstallationKey.NAMESPACE_OWNER, "another", second.clock.now())
    second.redis = first.redis
    second.ctx = second.open()
    with pytest.raises(NamespaceTaken, match=f"home {first.settings.home} on box"):
        rehydrate(second.ctx)
    assert [head.job_id for head in first.ctx.queue.heads(9)] == [job_id]
    waiting = second.submit("a")
    turn(second)
    turn(second)
    why = second.queries.why(waiting)["reason"]
    assert (why["code"], f"another installation: home {first.settings.home}" in why["text"]) == ("LaunchTrouble", True)
    # A private Redis is this home's, whatever an earlier database of it has left there.
    second.settings = second.settings.model_copy(update={"redis_url": None})
    second.ctx = second.open()
    rehydrate(second.ctx)
    assert [head.job_id for head in second.ctx.queue.heads(9)] == [waiting]


def test_an_installation_keeps_its_id_and_tells_no_password(make_world: Any) -> None:
    world = make_world(redis_url="redis://shared")
    with world.ctx.records.read() as tx:
        before = tx.value(InstallationKey.NAMESPACE_OWNER)
    rehydrate(world.ctx)
    with world.ctx.records.write() as tx:
        assert tx.value(InstallationKey.NAMESPACE_OWNER) == before
        url = "postgresql+psycopg://gpuq:secret@db.example:5432/queue"
        other = replace(world.ctx, settings=world.settings.model_copy(update={"database_url": url}))
        found = enroll(other, tx, "new")
    assert (found.id, found.told) == (before, f"home {world.settings.home} on box, database db.example/queue")


def test_a_database_that_its_home_has_named_anew_keeps_its_namespace(make_world: Any) -> None:
    """As after a database of the past was taken on: Redis is rebuilt from whatever SQL says now."""
    world = make_world(redis_url="redis://shared")
    with world.ctx.records.write() as tx:
        tx.set_value(InstallationKey.INSTALLATION, "a new name", world.clock.now())
    job_id = world.submit("a")
    rehydrate(world.ctx)
    assert [head.job_id for head in world.ctx.queue.heads(9)] == [job_id]

"""What is said of a waiting job when the agent runs here, on another machine, or nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.queries.health import readyz
from gpuq.stores import redis as redis_stores


def reason(world: Any, job_id: int) -> str:
    return str(world.queries.why(job_id)["reason"]["code"])


def agent_elsewhere(world: Any) -> redis_stores.RedisAgentKey:
    """An agent of this node whose home is on another machine: only its key is seen from here."""
    key = redis_stores.RedisAgentKey(world.link)
    assert key.acquire("box", "agent-elsewhere", 30)
    return key


def test_an_agent_on_another_machine_is_not_missing(world: Any) -> None:
    job_id = world.submit("train")
    agent_elsewhere(world)
    assert reason(world, job_id) != "NoAgent"
    assert readyz(world.ctx, AgentLiveness(world.ctx))["checks"]["agent"]["ok"]


def test_without_any_agent_the_reason_says_so(world: Any) -> None:
    job_id = world.submit("train")
    assert reason(world, job_id) == "NoAgent"
    key = agent_elsewhere(world)
    world.clock.forward(1)
    assert reason(world, job_id) != "NoAgent"
    key.release("box", "agent-elsewhere")
    world.clock.forward(1)
    assert reason(world, job_id) == "NoAgent"


@pytest.mark.parametrize("runs", [True, False])
def test_while_redis_is_away_the_file_lock_of_this_home_decides(world: Any, runs: bool) -> None:
    if runs:
        world.agent()
    world.redis.connected = False
    assert AgentLiveness(world.ctx).is_alive() is runs


def test_redis_is_asked_once_a_second_at_most_and_not_while_the_agent_runs_here(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    holder = redis_stores.RedisAgentKey.holder
    monkeypatch.setattr(
        redis_stores.RedisAgentKey, "holder", lambda self, node: asked.append(node) or holder(self, node)
    )
    agent = AgentLiveness(world.ctx)
    assert [agent.is_alive() for _ in range(5)] == [False] * 5
    assert asked == ["box"]
    world.clock.forward(1)
    agent.is_alive()
    assert asked == ["box"] * 2
    world.agent()
    world.clock.forward(10)
    assert agent.is_alive()
    assert asked == ["box"] * 2

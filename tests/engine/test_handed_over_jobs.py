"""New jobs whose facts the submission hands to the agent of its process, past the hot queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.spec import JobSpec
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.change import update
from gpuq.engine.actions.pause import pause, resume
from gpuq.engine.agent import Agent
from gpuq.engine.intake.newborn import waiting_of_all
from gpuq.engine.intake.request import Asked
from gpuq.engine.intake.submit import store
from gpuq.engine.intake.to_agent import HANDED_OVER, tell
from gpuq.engine.maintenance.rehydrate import rehydrate
from gpuq.errors import HotStoreUnavailable
from gpuq.ports.notify import Topic


def hand_over(world: Any, agent: Agent | None, *jobs: dict[str, Any]) -> list[int]:
    """As the server does: stored, then told."""
    specs = [JobSpec.parse({"command": ["train"], "cwd": "/", **fields}) for fields in jobs or ({},)]
    done = store(world.ctx, Asked(specs, world.user))
    tell(world.ctx, done, agent)
    return done.ids


@pytest.fixture
def agent(world: Any) -> Agent:
    """It has looked at the queue and found nothing."""
    agent: Agent = world.agent()
    agent.run_once()
    return agent


@pytest.fixture
def asked(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the hot queue is asked."""
    calls: list[str] = []

    def noting(name: str) -> None:
        plain = getattr(world.ctx.queue, name)
        monkeypatch.setattr(world.ctx.queue, name, lambda *given: (calls.append(name), plain(*given))[1])

    for name in ("add", "heads", "remove"):
        noting(name)
    return calls


def line(world: Any) -> list[int]:
    return [entry.job_id for entry in world.ctx.queue.heads(100)]


def test_a_job_that_starts_at_once_never_stands_in_the_hot_queue(world: Any, agent: Agent, asked: list[str]) -> None:
    [job_id] = hand_over(world, agent)
    agent.turn(0.0)
    assert world.state(job_id) == "starting"
    assert asked == []
    assert len(world.holders()) == 1


def test_what_does_not_start_stands_in_the_hot_queue_after_the_turn(world: Any, agent: Agent, asked: list[str]) -> None:
    ids = [job_id for gpus in (3, 2, 2) for job_id in hand_over(world, agent, {"gpus": gpus})]
    agent.turn(0.0)
    assert [world.state(job_id) for job_id in ids] == ["starting", "queued", "queued"]
    assert asked == ["add"]
    assert line(world) == ids[1:]


def test_those_behind_in_line_do_not_start_before_those_ahead(world: Any, agent: Agent) -> None:
    low, urgent = (hand_over(world, agent, {"gpus": 4, "priority": each})[0] for each in ("low", "high"))
    agent.turn(0.0)
    assert (world.state(low), world.state(urgent)) == ("queued", "starting")


def test_other_processes_are_told_of_them_and_the_agent_does_not_look_again(
    world: Any, agent: Agent, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Topic] = []
    monkeypatch.setattr(world.ctx.notifier, "publish_elsewhere", told.append)
    hand_over(world, agent, {"gpus": 4}, {"gpus": 4})
    agent.turn(0.0)
    agent.wake()
    agent.turn(0.0)
    assert (told, asked) == ([Topic.QUEUE], ["add"])


def test_a_daemon_that_dies_before_its_turn_leaves_a_row_that_the_rebuild_finds(world: Any, agent: Agent) -> None:
    [job_id] = hand_over(world, agent)
    # Nothing of the agent is left, and nobody has listed the job.
    agent._dispatcher._news.clear()
    assert (world.state(job_id), line(world)) == ("queued", [])
    world.agents.pop().stop()
    world.ctx = world.open()
    rehydrate(world.ctx)
    assert line(world) == [job_id]
    world.agent().run_once()
    assert world.state(job_id) == "starting"


def test_an_agent_that_stops_before_its_turn_lists_them(world: Any, agent: Agent) -> None:
    [job_id] = hand_over(world, agent)
    world.agents.pop().stop()
    assert line(world) == [job_id]


def test_a_job_that_was_cancelled_meanwhile_never_starts_and_holds_nothing(world: Any, agent: Agent) -> None:
    [job_id] = hand_over(world, agent)
    cancel(world.ctx, job_id, world.user)
    agent.turn(0.0)
    agent.wake()
    agent.turn(0.0)
    assert (world.state(job_id), world.launcher.orders, world.holders(), line(world)) == ("cancelled", [], {}, [])


def test_a_job_that_was_changed_meanwhile_starts_as_it_is_now(world: Any, agent: Agent) -> None:
    [job_id] = hand_over(world, agent, {"gpus": 1})
    update(world.ctx, job_id, world.user, {"gpus": 3})
    agent.turn(0.0)
    assert world.state(job_id) == "starting"
    assert len(world.holders()) == 3


def test_a_paused_queue_lists_them_and_starts_them_when_it_goes_on(world: Any, agent: Agent) -> None:
    pause(world.ctx, world.admin)
    [job_id] = hand_over(world, agent)
    agent.turn(0.0)
    assert (world.state(job_id), line(world)) == ("queued", [job_id])
    resume(world.ctx, world.admin)
    agent.turn(0.0)
    assert (world.state(job_id), line(world)) == ("starting", [])


def test_a_line_that_was_not_read_to_its_end_is_read_anew(make_world: Callable[..., Any]) -> None:
    world = make_world("sim:1")
    [holder] = hand_over(world, None)
    agent = world.agent()
    agent.run_once()
    assert world.state(holder) == "starting"
    hand_over(world, None, *({} for _ in range(70)))
    agent.turn(0.0)
    [urgent] = hand_over(world, agent, {"priority": "high"})
    world.launcher.run(holder)
    agent.turn(0.0)
    from gpuq.domain.outcome import Outcome

    world.launcher.end(holder, Outcome.SUCCEEDED)
    agent.turn(0.0)
    assert world.state(urgent) == "starting"


def test_many_jobs_are_not_handed_over(world: Any, agent: Agent) -> None:
    ids = hand_over(world, agent, *({"gpus": 4} for _ in range(HANDED_OVER + 1)))
    assert line(world) == ids


def test_a_hint_that_does_not_arrive_is_noted_and_the_job_starts_all_the_same(
    world: Any, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Topic] = []
    world.ctx.notifier.subscribe(heard.append)

    def out_of_memory(*_: object) -> None:
        raise HotStoreUnavailable("Redis is out of memory and takes no writes")

    monkeypatch.setattr(world.ctx.queue, "add", out_of_memory)
    first, second = (hand_over(world, agent, {"gpus": 4})[0] for _ in range(2))
    agent.turn(0.0)
    assert (world.state(first), world.state(second)) == ("starting", "queued")
    assert Topic.MISSED in heard


def test_the_facts_handed_over_are_those_that_would_be_read(world: Any) -> None:
    specs = [
        JobSpec.parse({"command": ["a", "b"], "cwd": "/", **fields})
        for fields in (
            {"gpus": 0, "priority": "high", "group": "g", "time_limit_s": 60, "preemptible": True},
            {"array": "3-5%2", "gpu_mem_mb": 100, "gpu_ids": [2, 1]},
            {"array": "0-1", "gpu_model": "simulated"},
        )
    ]
    done = store(world.ctx, Asked(specs, world.user))
    with world.ctx.records.read() as tx:
        assert {job.id: job for job in waiting_of_all(done.stored.items())} == tx.waiting(done.ids)

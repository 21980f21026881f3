"""GPUs that are held and stand still, and who uses the machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.queries.who import who
from gpuq.settings import Settings

WARN_S = 1800


def at_work(world: Any, *share: float) -> None:
    """How busy each GPU is from now on."""
    state = {str(index): {"utilisation": value} for index, value in enumerate(share)}
    (world.settings.home / "sim-gpus.json").write_text(json.dumps(state))


def told(world: Any, job_id: int) -> list[str]:
    with world.ctx.records.read() as tx:
        return [event.detail for event in tx.events(job_id=job_id) if "not been used" in (event.detail or "")]


def idle(world: Any) -> dict[int, int]:
    return {job["job_id"]: job["gpus"] for row in who(world.ctx) for job in row["idle"]}


def runs(world: Any, agent: Any, *job_ids: int) -> None:
    agent.run_once()
    for job_id in job_ids:
        world.launcher.run(job_id)
    agent.run_once()
    # The first look at what they do.
    later(world, agent, 20)


def later(world: Any, agent: Any, seconds: float) -> None:
    world.clock.forward(seconds)
    agent.wake()
    agent.run_once()


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world("sim:2x24G")


def test_a_job_whose_gpus_stand_still_is_told_of_once_and_again_after_it_worked(world: Any) -> None:
    at_work(world, 0.0, 0.9)
    job_id, busy = world.submit("train"), world.submit("train")
    agent = world.agent()
    runs(world, agent, job_id, busy)
    later(world, agent, 600 + WARN_S - 60)
    assert (told(world, job_id), idle(world)) == ([], {})
    later(world, agent, 120)
    later(world, agent, 60)
    [text] = told(world, job_id)
    assert text == "its GPUs have not been used for 31m00s"
    assert told(world, busy) == []
    assert idle(world) == {job_id: 1}
    at_work(world, 0.5, 0.9)
    later(world, agent, 60)
    assert idle(world) == {}
    at_work(world, 0.0, 0.9)
    later(world, agent, WARN_S + 60)
    assert len(told(world, job_id)) == 2


def test_an_agent_that_is_started_anew_goes_on_with_what_was_seen(world: Any) -> None:
    at_work(world, 0.0, 0.0)
    job_id = world.submit("train")
    agent = world.agent()
    runs(world, agent, job_id)
    later(world, agent, 600 + WARN_S + 60)
    since = who(world.ctx)[0]["idle"][0]["since"]
    agent.stop()
    agent = world.agent()
    later(world, agent, 60)
    assert who(world.ctx)[0]["idle"][0]["since"] == since
    assert len(told(world, job_id)) == 1
    world.launcher.end(job_id, Outcome.SUCCEEDED)
    agent.run_once()
    assert idle(world) == {}


def test_it_can_be_switched_off(make_world: Any) -> None:
    world = make_world("sim:2x24G", idle_warn="off")
    at_work(world, 0.0, 0.0)
    job_id = world.submit("train")
    agent = world.agent()
    runs(world, agent, job_id)
    later(world, agent, 100_000)
    assert told(world, job_id) == []
    assert Settings(home=world.settings.home, idle_warn="off").idle_warn is None


def test_who_counts_what_runs_waits_and_ran_within_a_week(world: Any) -> None:
    agent = world.agent()
    first, second, third = (world.submit("train", gpus=gpus) for gpus in (2, 1, 1))
    runs(world, agent, first)
    world.clock.forward(3600)
    [row] = who(world.ctx)
    assert (row["running"], row["waiting"], row["gpus"]) == (1, 2, 2)
    assert row["gpu_hours"] == pytest.approx(2.0, abs=0.05)
    world.launcher.end(first, Outcome.SUCCEEDED)
    agent.run_once()
    runs(world, agent, second, third)
    world.clock.forward(1800)
    [row] = who(world.ctx)
    assert (row["running"], row["waiting"], row["gpus"]) == (2, 0, 2)
    assert row["gpu_hours"] == pytest.approx(3.0, abs=0.05)
    world.clock.forward(7 * 86400)
    [row] = who(world.ctx)
    assert row["gpu_hours"] == 2 * 7 * 24

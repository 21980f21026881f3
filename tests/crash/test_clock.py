"""The wall clock jumps: nothing is started twice, ended early, or forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.promote import promote
from gpuq.engine.reap import reap


def running(world: Any, **fields: Any) -> tuple[int, Any]:
    job_id = world.submit("train", **fields)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    return job_id, agent


@pytest.mark.parametrize("seconds", [-86400, 86400])
def test_a_running_job_goes_on_when_the_clock_jumps(world: Any, seconds: float) -> None:
    job_id, agent = running(world, gpus=4)
    waiting = world.submit("train", gpus=4)
    world.clock.jump(seconds)
    reap(world.ctx)
    agent.wake()
    agent.run_once()
    assert [world.state(one) for one in (job_id, waiting)] == ["running", "queued"]
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    agent.wake()
    agent.run_once()
    assert [world.state(one) for one in (job_id, waiting)] == ["completed", "starting"]
    assert len(world.launcher.orders) == 2


def test_leases_are_renewed_although_the_clock_jumped_back(world: Any) -> None:
    _, agent = running(world, gpus=2)
    world.clock.jump(-86400)
    world.ctx.leases.release("box", world.launcher.orders[0].token, [gpu.uuid for gpu in world.ctx.gpus.inventory()])
    world.clock.forward(11)
    agent.run_once()
    assert len(world.holders()) == 2


def test_a_jump_past_the_time_limit_makes_no_success_a_failure(world: Any) -> None:
    job_id, agent = running(world, time_limit_s=600)
    world.clock.jump(7200)
    agent.run_once()
    # The supervisor counts by a clock that does not jump, and has the last word.
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(job_id) == "completed"


def test_a_job_that_waits_for_its_retry_starts_at_once_when_the_clock_jumps_ahead(world: Any) -> None:
    job_id, agent = running(world)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    assert world.state(job_id) == "delayed"
    world.clock.jump(3600)
    promote(world.ctx)
    agent.wake()
    agent.run_once()
    assert (world.state(job_id), world.job(job_id).attempt) == ("starting", 2)


def test_an_unlaunched_claim_is_given_back_although_the_clock_jumped_back(world: Any) -> None:
    job_id = world.submit("train")
    agent = world.agent()
    agent.run_once()
    world.clock.jump(-86400)
    world.launcher.die(job_id)
    world.agents.pop().stop()
    world.ctx = world.open()
    world.agent().run_once()
    assert world.state(job_id) == "delayed"

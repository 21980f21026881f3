"""Preemptible jobs fill idle GPUs and yield, without going back and forth."""

from __future__ import annotations

from typing import Any

from gpuq.domain.outcome import Outcome
from gpuq.domain.times import iso

MIN_RUN = 300.0


def turn(world: Any, agent: Any, forward: float = 0.0) -> None:
    world.clock.forward(forward)
    agent.wake()
    agent.run_once()


def run(world: Any, agent: Any, *jobs: int) -> None:
    turn(world, agent)
    for job in jobs:
        world.launcher.run(job)
    agent.run_once()
    assert [world.state(job) for job in jobs] == ["running"] * len(jobs)


def yields(world: Any, agent: Any, job_id: int) -> None:
    """The supervisor does as it was asked."""
    assert world.state(job_id) == "stopping"
    assert world.launcher.stops[-1]["reason"] == "preempt"
    world.launcher.end(job_id, Outcome.PREEMPTED)
    agent.run_once()


def test_a_job_that_yielded_stands_behind_the_one_it_yielded_to(make_world: Any) -> None:
    world = make_world("sim:1")
    idle = world.submit("fill", preemptible=True)
    agent = world.agent()
    run(world, agent, idle)
    normal = world.submit("train")
    turn(world, agent, MIN_RUN - 1)
    assert world.state(idle) == "running"
    turn(world, agent, 2)
    yields(world, agent, idle)
    # It was submitted first, and would only have to yield again.
    assert [world.state(idle), world.state(normal)] == ["queued", "starting"]
    job = world.job(idle)
    assert (job.retries_used, job.attempt) == (0, 1)
    run(world, agent, normal)
    world.launcher.end(normal, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(idle) == "starting"


def test_normal_jobs_take_free_gpus_before_preemptible_ones_whatever_their_place(make_world: Any) -> None:
    world = make_world("sim:2")
    first = world.submit("fill", preemptible=True, priority="critical")
    second = world.submit("fill", preemptible=True)
    normal = world.submit("train", priority="low")
    turn(world, world.agent())
    assert [world.state(job) for job in (first, second, normal)] == ["starting", "queued", "starting"]
    assert world.queries.why(second)["reason"]["code"] == "Resources"


def test_a_job_that_yielded_twice_in_an_hour_runs_on(make_world: Any) -> None:
    world = make_world("sim:1")
    idle = world.submit("fill", preemptible=True)
    agent = world.agent()
    for _ in range(2):
        run(world, agent, idle)
        normal = world.submit("train")
        turn(world, agent, MIN_RUN + 1)
        yields(world, agent, idle)
        run(world, agent, normal)
        world.launcher.end(normal, Outcome.SUCCEEDED, exit_code=0)
        agent.run_once()
    run(world, agent, idle)
    waits = world.submit("train")
    turn(world, agent, MIN_RUN + 1)
    assert [world.state(idle), world.state(waits)] == ["running", "queued"]
    # Neither does an agent that is started anew ask it.
    world.agents.pop().stop()
    world.ctx = world.open()
    agent = world.agent()
    turn(world, agent, 60)
    assert world.state(idle) == "running"
    # Its first time is an hour ago, and it may be asked again.
    turn(world, agent, 3600)
    assert world.state(idle) == "stopping"


def test_the_limit_an_hour_is_a_setting(make_world: Any) -> None:
    world = make_world("sim:1", preempt_max_per_hour=0)
    idle = world.submit("fill", preemptible=True)
    agent = world.agent()
    run(world, agent, idle)
    world.submit("train")
    turn(world, agent, 10 * MIN_RUN)
    assert world.state(idle) == "running"


def test_why_names_who_is_stopped_for_whom_and_when(make_world: Any) -> None:
    world = make_world("sim:2")
    cheap = world.submit("filler", gpus=2, preemptible=True, priority="low")
    agent = world.agent()
    agent.run_once()
    world.launcher.run(cheap)
    agent.run_once()
    began = world.job(cheap).started_at
    urgent = world.submit("urgent", gpus=1)
    behind = world.submit("behind", gpus=1)
    at = iso(began + 300)
    told = [{"job_id": cheap, "beneficiary": urgent, "at": at}]
    found = world.queries.why(urgent)
    assert found["preemptions"] == told
    minute = f"{at[11:16]} UTC"
    said = f"job {cheap} (low, preemptible) will be stopped at {minute} to make room; needs 1 GPU, 0 free; "
    assert found["reasons"][0]["text"].startswith(said)
    assert found["estimated_start"] == at
    victim = world.queries.why(cheap)
    assert (victim["reason"], victim["preemptions"]) == (None, told)
    assert world.queries.why(behind)["preemptions"] == []

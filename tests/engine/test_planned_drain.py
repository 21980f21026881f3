"""`gpuq drain --at`: short jobs run up to it, who can make room does, and jobs start again when it is over."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.engine.actions.drain_window import cancel_drain, plan_drain
from gpuq.engine.actions.pause import pause
from gpuq.engine.intake.submit import check
from gpuq.engine.queries import drain_report, gpu_report
from gpuq.errors import Forbidden, NotFound, UsageError

HOUR = 3600.0


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


def planned(world: Any) -> Any:
    with world.ctx.records.read() as tx:
        return drain_report.report(world.ctx, tx)


def test_a_drain_from_its_plan_to_its_end(make_world: Any) -> None:
    world = make_world("sim:4")
    agent = world.agent()
    cheap, again, plain = world.submit("a", preemptible=True), world.submit("a", requeue=True), world.submit("a")
    run(world, agent, cheap, again, plain)
    at = world.clock.now() + HOUR
    plan_drain(world.ctx, world.admin, at, until=at + HOUR, reason="a new driver")
    long, short = world.submit("b", time_limit_s=2 * HOUR), world.submit("b", time_limit_s=1000)
    agent.run_once()
    assert [world.state(job) for job in (long, short)] == ["queued", "starting"]
    why = world.queries.why(long)
    assert why["reason"]["code"] == "Maintenance"
    assert why["reason"]["text"].startswith("the machine is drained at ")
    assert why["reason"]["text"].endswith(" for a new driver: the job's limit of 2h does not end before")
    assert why["estimated_start"] == planned(world)["until"]
    world.launcher.run(short)
    turn(world, agent, 900.0)
    world.launcher.end(short, Outcome.SUCCEEDED, exit_code=0)
    # Too short a while before it for anything but a job that says so.
    turn(world, agent, 2640.0)
    last = world.submit("c", time_limit_s=50, gpus=0)
    agent.run_once()
    assert world.state(last) == "starting"
    world.launcher.run(last)
    world.launcher.end(last, Outcome.SUCCEEDED, exit_code=0)
    turn(world, agent, 61.0)
    assert [world.state(job) for job in (cheap, again, plain)] == ["stopping", "stopping", "running"]
    assert {stop["reason"] for stop in world.launcher.stops} == {"preempt"}
    for job in (cheap, again):
        world.launcher.end(job, Outcome.PREEMPTED)
    little = world.submit("c", time_limit_s=1, gpus=0)
    turn(world, agent)
    assert [world.state(job) for job in (cheap, again, plain, little, long)] == [
        "queued", "queued", "running", "queued", "queued",
    ]  # fmt: skip
    assert [world.job(job).retries_used for job in (cheap, again)] == [0, 0]
    assert "since" in world.queries.why(little)["reason"]["text"]
    assert {(row["state"], row["reason"]["code"]) for row in gpu_report.report(world.ctx)} == {
        ("drained", "Maintenance")
    }
    assert planned(world)["begun"] is True
    turn(world, agent, HOUR)
    turn(world, agent)
    assert planned(world) is None
    assert [world.state(job) for job in (again, long, little)] == ["starting"] * 3
    with world.ctx.records.read() as tx:
        assert tx.value("maintenance:box") is None


def test_a_drain_that_began_while_no_daemon_ran_applies_at_the_next_start(make_world: Any) -> None:
    world = make_world("sim:2")
    agent = world.agent()
    cheap, plain = world.submit("a", preemptible=True), world.submit("a")
    run(world, agent, cheap, plain)
    plan_drain(world.ctx, world.admin, world.clock.now() + HOUR)
    agent.stop()
    world.clock.forward(2 * HOUR)
    waiting = world.submit("b", time_limit_s=5, gpus=0)
    again = world.agent()
    turn(world, again)
    assert [world.state(job) for job in (cheap, plain, waiting)] == ["stopping", "running", "queued"]
    # It has no end of its own.
    turn(world, again, 100 * HOUR)
    turn(world, again)
    assert world.state(waiting) == "queued"
    cancel_drain(world.ctx, world.admin)
    turn(world, again)
    assert world.state(waiting) == "starting"


def test_a_paused_queue_makes_room_for_a_drain_all_the_same(make_world: Any) -> None:
    world = make_world("sim:1")
    agent = world.agent()
    cheap = world.submit("a", preemptible=True)
    run(world, agent, cheap)
    pause(world.ctx, world.admin)
    plan_drain(world.ctx, world.admin, world.clock.now() + 10)
    turn(world, agent, 5.0)
    assert world.state(cheap) == "running"
    turn(world, agent, 6.0)
    assert world.state(cheap) == "stopping"


def test_a_drain_of_some_gpus_concerns_those_alone(make_world: Any) -> None:
    world = make_world("sim:2")
    agent = world.agent()
    here, there = world.submit("a", preemptible=True, gpu_ids=[0]), world.submit("a", preemptible=True, gpu_ids=[1])
    cpu = world.submit("a", preemptible=True, gpus=0)
    run(world, agent, here, there, cpu)
    plan_drain(world.ctx, world.admin, world.clock.now(), gpus=[1])
    assert planned(world)["gpus"] == [1]
    turn(world, agent)
    assert [world.state(job) for job in (here, there, cpu)] == ["running", "stopping", "running"]
    world.launcher.end(there, Outcome.PREEMPTED)
    world.launcher.end(here, Outcome.SUCCEEDED, exit_code=0)
    turn(world, agent)
    new = world.submit("b")
    turn(world, agent)
    assert world.state(new) == "starting"
    assert [row["state"] for row in gpu_report.report(world.ctx)] == ["leased", "drained"]


def test_the_last_plan_counts_and_only_an_administrator_makes_one(world: Any) -> None:
    now = world.clock.now()
    with pytest.raises(Forbidden):
        plan_drain(world.ctx, world.user, now + HOUR)
    with pytest.raises(Forbidden):
        cancel_drain(world.ctx, world.user)
    for wrong in ({"until": now + HOUR}, {"until": now - 1}, {"until": 9e12}):
        with pytest.raises(UsageError):
            plan_drain(world.ctx, world.admin, now + HOUR, **wrong)
    with pytest.raises(NotFound):
        plan_drain(world.ctx, world.admin, now, gpus=[0, 9])
    assert planned(world) is None
    plan_drain(world.ctx, world.admin, now + HOUR, gpus=[2, 0, 2])
    plan_drain(world.ctx, world.admin, now + 2 * HOUR, until=now + 3 * HOUR)
    assert (planned(world)["gpus"], planned(world)["by"], planned(world)["begun"]) == (None, "root", False)
    cancel_drain(world.ctx, world.admin)
    cancel_drain(world.ctx, world.admin)
    assert planned(world) is None


def test_a_job_that_is_known_to_be_short_starts_without_a_time_limit(make_world: Any) -> None:
    world = make_world("sim:2")
    agent = world.agent()
    for _ in range(2):
        job = world.submit("python", "short.py")
        run(world, agent, job)
        world.clock.forward(600.0)
        world.launcher.end(job, Outcome.SUCCEEDED, exit_code=0)
        turn(world, agent)
    at = world.clock.now() + HOUR
    plan_drain(world.ctx, world.admin, at, until=at + HOUR)
    known = world.submit("python", "short.py")
    turn(world, agent)
    assert world.state(known) == "starting"
    turn(world, agent, 3300.0)
    late = world.submit("python", "short.py")
    turn(world, agent)
    assert world.state(late) == "queued"
    text = world.queries.why(late)["reason"]["text"]
    assert text.endswith("the job is expected to run for 10m00s, which does not end before")


def test_a_job_does_not_start_with_its_submission_into_a_drain_and_is_told_when_it_would(make_world: Any) -> None:
    world = make_world("sim:2")
    agent = world.agent()
    agent.run_once()
    at = world.clock.now() + HOUR
    plan_drain(world.ctx, world.admin, at, until=at + HOUR)
    agent.run_once()
    [long] = world.submit_to(agent, {"time_limit_s": 7200})
    assert world.state(long) == "queued"
    turn(world, agent)
    assert world.state(long) == "queued"
    spec = JobSpec.parse({"command": ["b"], "cwd": "/", "time_limit_s": 7200})
    assert check(world.ctx, spec, world.user, world.queries.estimate) == planned(world)["until"]

"""A stop that cannot be written into the folder of one attempt keeps nobody from the others."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.maintenance.reap import reap
from gpuq.server.process import stop_all

MIN_RUN_S = 300.0


def turn(world: Any, agent: Any, forward: float = 0.0) -> None:
    world.clock.forward(forward)
    agent.wake()
    agent.run_once()


def running(world: Any, agent: Any, **fields: Any) -> int:
    job_id: int = world.submit("train", **fields)
    turn(world, agent)
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    return job_id


def restart(world: Any) -> Any:
    world.agents.pop().stop()
    world.ctx = world.open()
    return world.agent()


def refuse(world: Any, monkeypatch: pytest.MonkeyPatch, *job_ids: int) -> None:
    """No stop can be written into the folders of these jobs, and nobody is there to be told."""
    folders = {world.launcher.order_of(job_id).run_dir for job_id in job_ids}
    request_stop = world.launcher.request_stop

    def refusing(run_dir: str, **request: Any) -> None:
        if run_dir in folders:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), run_dir)
        request_stop(run_dir, **request)

    monkeypatch.setattr(world.launcher, "request_stop", refusing)


def test_the_reaper_goes_on_past_a_stop_that_cannot_be_written(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    stuck, dead = running(world, agent), running(world, agent)
    cancel(world.ctx, stuck, world.user)
    refuse(world, monkeypatch, stuck)
    world.launcher.end(dead, Outcome.SUCCEEDED, exit_code=0)
    world.clock.forward(3600)
    assert reap(world.ctx) == [dead]
    assert [world.state(stuck), world.state(dead)] == ["stopping", "completed"]


def test_the_reaper_goes_on_past_a_launch_that_cannot_be_forbidden(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    unknown = world.submit("train")
    turn(world, agent)
    dead = running(world, agent)
    world.launcher.die(unknown)
    world.launcher.end(dead, Outcome.SUCCEEDED, exit_code=0)
    refuse(world, monkeypatch, unknown)
    world.clock.forward(3600)
    assert reap(world.ctx) == [dead]
    # Somebody may still start it, so its GPU is not free.
    assert world.state(unknown) == "starting"


def test_an_agent_takes_over_although_a_stop_cannot_be_written(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    stuck, other = running(world, agent), running(world, agent)
    cancel(world.ctx, stuck, world.user)
    refuse(world, monkeypatch, stuck)
    agent = restart(world)
    assert {tracked.job.id for tracked in agent.tracked} == {stuck, other}
    world.launcher.end(other, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(other) == "completed"


def test_a_preemption_that_cannot_be_written_does_not_spare_the_next_one(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("sim:2")
    agent = world.agent()
    stuck, other = (running(world, agent, preemptible=True) for _ in range(2))
    refuse(world, monkeypatch, stuck, other)
    world.submit("train", gpus=2)
    turn(world, agent, MIN_RUN_S + 1)
    assert [world.state(stuck), world.state(other)] == ["stopping", "stopping"]


def test_a_halt_asks_every_job_although_one_stop_cannot_be_written(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    stuck, other = running(world, agent), running(world, agent)
    refuse(world, monkeypatch, stuck)
    request_stop = world.launcher.request_stop

    def obeyed(run_dir: str, **request: Any) -> None:
        request_stop(run_dir, **request)
        world.launcher.end(other, Outcome.PREEMPTED)

    waited_for: list[Any] = []
    watch = world.launcher.watch
    monkeypatch.setattr(world.launcher, "watch", lambda one: waited_for.append(one) or watch(one))
    monkeypatch.setattr(world.launcher, "request_stop", obeyed)
    assert stop_all.stop_jobs(world.ctx) == 1
    # Nobody tells the other's supervisor, so there is nothing to wait for.
    assert waited_for == [world.launcher.launched_of(other)]
    assert [stop["reason"] for stop in world.launcher.stops] == ["drain"]
    assert [world.state(stuck), world.state(other)] == ["running", "queued"]

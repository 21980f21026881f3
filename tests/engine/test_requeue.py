"""Jobs with `--requeue`, and requeue by hand: same id, no retry used."""

from __future__ import annotations

from typing import Any

import pytest
from world import World

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.requeue import requeue
from gpuq.engine.agent import Agent
from gpuq.engine.maintenance.promote import promote
from gpuq.errors import Forbidden, WrongState


def running(world: World, agent: Agent, job_id: int) -> None:
    agent.wake()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"


def ends(world: World, agent: Agent, job_id: int, outcome: Outcome, after_s: float, **facts: Any) -> None:
    world.clock.forward(after_s)
    world.launcher.end(job_id, outcome, **facts)
    agent.run_once()


ENDS = [(Outcome.TIME_LIMIT, None), (Outcome.EXIT_NONZERO, 75)]


@pytest.mark.parametrize(("outcome", "code"), ENDS)
def test_a_job_that_asked_for_it_goes_back_in_line(world: World, outcome: Outcome, code: int | None) -> None:
    agent = world.agent()
    job_id = world.submit("train", requeue=True, max_retries=0, gpus=4)
    running(world, agent, job_id)
    other = world.submit("other", gpus=4)
    ends(world, agent, job_id, outcome, 60, exit_code=code)
    job = world.job(job_id)
    assert (job.state, job.retries_used, job.attempt) == ("queued", 0, 1)
    with world.ctx.records.read() as reader:
        [attempt] = reader.attempts(job_id)
        assert (attempt.outcome, attempt.exit_code) == (outcome, code)
        assert "requeued, no retry used" in (reader.events(job_id=job_id)[-1].detail or "")
    # Who came meanwhile is not passed.
    running(world, agent, other)
    ends(world, agent, other, Outcome.SUCCEEDED, 60, exit_code=0)
    running(world, agent, job_id)
    ends(world, agent, job_id, Outcome.SUCCEEDED, 60, exit_code=0)
    assert (world.state(job_id), world.job(job_id).attempt) == ("completed", 2)


@pytest.mark.parametrize(
    ("outcome", "code", "fields"),
    [
        (Outcome.TIME_LIMIT, None, {}),
        (Outcome.EXIT_NONZERO, 75, {}),
        (Outcome.EXIT_NONZERO, 1, {"requeue": True}),
        (Outcome.SIGNAL, None, {"requeue": True}),
        (Outcome.OUTPUT_LIMIT, None, {"requeue": True}),
    ],
)
def test_any_other_end_is_a_failure(world: World, outcome: Outcome, code: int | None, fields: dict[str, Any]) -> None:
    agent = world.agent()
    job_id = world.submit("train", max_retries=0, **fields)
    running(world, agent, job_id)
    ends(world, agent, job_id, outcome, 60, exit_code=code)
    assert world.state(job_id) == "failed"


def test_one_that_never_gets_far_waits_longer_and_longer(world: World) -> None:
    agent = world.agent()
    job_id = world.submit("train", requeue=True, max_retries=0)
    waits: list[float] = []
    for after_s in (1, 1, 1, 60, 1):
        running(world, agent, job_id)
        ends(world, agent, job_id, Outcome.EXIT_NONZERO, after_s, exit_code=75)
        job = world.job(job_id)
        waits.append(0.0 if job.eligible_at is None else job.eligible_at - world.clock.now())
        world.clock.forward(waits[-1] + 1)
        promote(world.ctx)
    base = world.settings.retry_base
    assert waits[3] == 0
    for wait, times in zip([*waits[:3], waits[4]], (1, 2, 4, 1), strict=True):
        assert base * times * 0.74 <= wait <= base * times * 1.26
    assert world.job(job_id).retries_used == 0


def test_a_cancel_wins(world: World) -> None:
    agent = world.agent()
    job_id = world.submit("train", requeue=True)
    running(world, agent, job_id)
    cancel(world.ctx, job_id, world.user)
    ends(world, agent, job_id, Outcome.EXIT_NONZERO, 60, exit_code=75)
    assert world.state(job_id) == "cancelled"


def test_requeue_by_hand_stops_a_running_job_with_its_signal_and_its_grace(world: World) -> None:
    agent = world.agent()
    job_id = world.submit("train", max_retries=0, signal="USR1@5", kill_grace_s=7.0)
    running(world, agent, job_id)
    assert requeue(world.ctx, job_id, world.user).state == "stopping"
    stop = world.launcher.stops[-1]
    assert (stop["reason"], stop["grace_s"], stop["signal"]) == ("preempt", 7.0, "USR1")
    ends(world, agent, job_id, Outcome.PREEMPTED, 60)
    job = world.job(job_id)
    assert (job.state, job.retries_used) == ("queued", 0)
    with world.ctx.records.read() as reader:
        told = [event.detail for event in reader.events(job_id=job_id) if event.to_state == "stopping"]
    assert told == ["requeued by alice"]
    with pytest.raises(WrongState, match="only a running job"):
        requeue(world.ctx, job_id, world.user)


def test_nobody_requeues_the_job_of_somebody_else(world: World) -> None:
    agent = world.agent()
    job_id = world.submit("train")
    running(world, agent, job_id)
    with pytest.raises(Forbidden):
        requeue(world.ctx, job_id, Caller("bob", uid=1001, gid=1001))
    assert world.state(job_id) == "running"

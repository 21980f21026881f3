"""The wall clock jumps: nothing is started twice, ended early, or forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.file_lock import FileLock
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.maintenance.timers import TASKS, Maintenance


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
    job_id, agent = running(world, max_retries=3)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    assert world.state(job_id) == "delayed"
    world.clock.jump(3600)
    promote(world.ctx)
    agent.wake()
    agent.run_once()
    assert (world.state(job_id), world.job(job_id).attempt) == ("starting", 2)


def test_a_clock_set_back_prolongs_no_retry_and_moves_no_begin(world: Any) -> None:
    maintenance = Maintenance(world.ctx, FileLock(world.ctx.home / "maintain.lock", "maintenance"))
    job_id, agent = running(world, max_retries=3)
    later = world.submit("train", begin=world.clock.now() + 600)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    begin = world.job(later).eligible_at
    world.clock.jump(-3600)
    maintenance.follow_clock()
    assert world.job(later).eligible_at == begin
    # The first backoff is two seconds, and a quarter more at most.
    world.clock.forward(2.5)
    promote(world.ctx)
    assert [world.state(one) for one in (job_id, later)] == ["queued", "delayed"]


def test_maintenance_is_due_at_once_after_the_clock_was_set_back(world: Any) -> None:
    maintenance = Maintenance(world.ctx, FileLock(world.ctx.home / "maintain.lock", "maintenance"))
    maintenance.start()
    try:
        far = datetime.now(UTC) + timedelta(hours=1)
        for task in TASKS:
            maintenance._scheduler.modify_job(task, next_run_time=far)
        world.clock.jump(-3600)
        maintenance.follow_clock()
        following = [job.next_run_time for job in maintenance._scheduler.get_jobs() if job.id in TASKS]
        assert len(following) == len(TASKS)
        # Each is due now, or was already run and is due after its own interval; retention comes round once an hour.
        assert max(following) <= far
        assert sorted(following)[-2] < far - timedelta(minutes=30)
    finally:
        maintenance.stop()


def test_an_unlaunched_claim_is_given_back_although_the_clock_jumped_back(world: Any) -> None:
    job_id = world.submit("train")
    agent = world.agent()
    agent.run_once()
    world.clock.jump(-86400)
    world.launcher.die(job_id)
    world.agents.pop().stop()
    world.ctx = world.open()
    world.agent().run_once()
    # Its supervisor never came to life, which is the machine's fault.
    assert (world.state(job_id), world.job(job_id).lost_count) == ("queued", 0)

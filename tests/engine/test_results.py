"""Whose result a job's result is, and what is told of one that was not kept."""

from __future__ import annotations

from typing import Any

from gpuq.domain.job import job_json
from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.retry import retry
from gpuq.engine.maintenance.promote import promote


def shown(world: Any, job_id: int) -> tuple[object, ...]:
    found = job_json(world.job(job_id))
    return found["result_bytes"], found["result_type"], found["short_result"]


def run(world: Any, agent: Any, job_id: int, outcome: Outcome, **facts: Any) -> None:
    agent.wake()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    world.launcher.end(job_id, outcome, **facts)
    agent.run_once()


LEFT = {"result_bytes": 3, "result_type": "image/png", "short_result": "loss 0.1"}


def test_a_job_shows_what_its_successful_attempt_left(world: Any) -> None:
    agent, job_id = world.agent(), world.submit()
    run(world, agent, job_id, Outcome.SUCCEEDED, exit_code=0, **LEFT)
    assert (world.state(job_id), shown(world, job_id)) == ("completed", (3, "image/png", "loss 0.1"))


def test_what_an_attempt_left_that_is_not_the_last_is_not_the_jobs(world: Any) -> None:
    agent, job_id = world.agent(), world.submit(max_retries=1)
    run(world, agent, job_id, Outcome.EXIT_NONZERO, exit_code=1, **LEFT)
    assert (world.state(job_id), shown(world, job_id)) == ("delayed", (None, None, None))
    world.clock.forward(3600)
    promote(world.ctx)
    run(world, agent, job_id, Outcome.SUCCEEDED, exit_code=0)
    assert (world.state(job_id), shown(world, job_id)) == ("completed", (None, None, None))


def test_a_job_that_is_retried_by_hand_shows_only_what_its_new_end_left(world: Any) -> None:
    agent, job_id = world.agent(), world.submit(max_retries=0)
    run(world, agent, job_id, Outcome.EXIT_NONZERO, exit_code=1, **LEFT)
    assert (world.state(job_id), shown(world, job_id)[0]) == ("failed", 3)
    retry(world.ctx, job_id, world.user)
    assert (world.state(job_id), shown(world, job_id)) == ("queued", (None, None, None))
    run(world, agent, job_id, Outcome.SUCCEEDED, exit_code=0)
    assert (world.state(job_id), shown(world, job_id)) == ("completed", (None, None, None))


def test_a_result_that_was_not_kept_is_told_and_the_outcome_stays_true(world: Any) -> None:
    agent, job_id = world.agent(), world.submit()
    run(world, agent, job_id, Outcome.SUCCEEDED, exit_code=0, result_error="the result was not kept: too large")
    with world.ctx.records.read() as tx:
        told = tx.events(job_id=job_id)[-1].detail
    job = world.job(job_id)
    assert (job.state, job.outcome, job.error) == ("completed", "succeeded", None)
    assert told == "succeeded; the result was not kept: too large"

"""What the end of an attempt does to the ledger, the leases and the record of its job."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from world import BOOT, World

from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.agent import Agent
from gpuq.engine.claim.claim import claim, write_turn
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.node_lock import Fence
from gpuq.engine.snapshot.builder import SnapshotBuilder
from gpuq.errors import DatabaseUnavailable
from gpuq.scheduler.snapshot import Start
from gpuq.stores.redis import RedisAgentKey


def started(world: World, agent: Agent, **fields: object) -> int:
    job_id = world.submit("train", **fields)
    agent.wake()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    return job_id


def new_process(world: World) -> None:
    """The agent is gone; whoever comes now opens everything anew."""
    world.agents.pop().stop()
    world.ctx = world.open()


def end_with_supervisor_killed(world: World, job_id: int) -> None:
    """The fork server writes the record of the job's end, and nobody has looked for what the job left running."""
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0, swept=False)


def test_what_a_killed_supervisor_left_is_ended_before_the_gpus_are_free(world: World) -> None:
    agent = world.agent()
    job_id = started(world, agent, gpus=2)
    token = world.launcher.order_of(job_id).token
    world.launcher.unkillable.add(token)
    end_with_supervisor_killed(world, job_id)
    for _ in range(3):
        agent.run_once()
        assert (world.state(job_id), len(world.holders())) == ("running", 2)
    world.launcher.unkillable.clear()
    world.clock.forward(2)
    agent.run_once()
    assert world.launcher.swept == [token]
    job = world.job(job_id)
    assert (job.state, job.exit_code, world.holders()) == ("completed", 0, {})


@pytest.mark.parametrize("by", ["the next agent", "the reaper"])
def test_whoever_finds_the_record_of_a_killed_supervisor_sweeps_first(world: World, by: str) -> None:
    job_id = started(world, world.agent())
    token = world.launcher.order_of(job_id).token
    new_process(world)
    end_with_supervisor_killed(world, job_id)
    world.clock.forward(60)
    if by == "the reaper":
        assert reap(world.ctx) == [job_id]
    else:
        world.agent().run_once()
    assert (world.launcher.swept, world.state(job_id)) == ([token], "completed")


def test_a_supervisor_that_wrote_the_record_itself_has_left_nothing_to_sweep(world: World) -> None:
    agent = world.agent()
    job_id = started(world, agent)
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert (world.state(job_id), world.launcher.swept) == ("completed", [])


def test_after_a_reboot_the_record_of_a_killed_supervisor_stands_and_nothing_is_swept(world: World) -> None:
    job_id = started(world, world.agent())
    new_process(world)
    end_with_supervisor_killed(world, job_id)
    assert world.ctx.boot_id == BOOT
    world.ctx = replace(world.ctx, boot_id="boot-2")
    world.agent().run_once()
    assert (world.state(job_id), world.launcher.swept) == ("completed", [])


def test_a_job_whose_end_nobody_saw_keeps_the_start_that_was_seen(world: World) -> None:
    agent = world.agent()
    job_id = started(world, agent)
    began = world.job(job_id).started_at
    assert began == world.clock.now()
    world.clock.forward(60)
    cancel(world.ctx, job_id, world.user)
    world.launcher.die(job_id)
    agent.run_once()
    job = world.job(job_id)
    assert (job.state, job.started_at, job.finished_at) == ("cancelled", began, world.clock.now())


def test_a_job_that_was_told_to_stop_before_its_start_was_heard_of_has_that_start(world: World) -> None:
    agent = world.agent()
    job_id = world.submit("train")
    agent.run_once()
    cancel(world.ctx, job_id, world.user)
    world.launcher.run(job_id)
    began = world.clock.now()
    world.clock.forward(60)
    # No record of its end says when it began.
    world.launcher.die(job_id)
    while world.state(job_id) == "stopping":
        agent.run_once()
    job = world.job(job_id)
    assert (job.state, job.started_at) == ("cancelled", began)


def test_one_stale_end_keeps_no_other_end_from_being_written_and_its_dependents_from_being_offered(
    world: World,
) -> None:
    agent = world.agent()
    stale, good = started(world, agent), started(world, agent)
    after = world.submit("tidy", after=[good])
    world.launcher.end(stale, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    new_process(world)
    world.launcher.end(good, Outcome.SUCCEEDED, exit_code=0)
    written = write_turn(world.ctx, [world.ended(stale), world.ended(good)])
    assert written.states == {good: "completed"}
    assert world.state(after) == "queued"
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == [after]


def test_a_later_attempt_stays_watched_when_the_end_of_an_earlier_one_comes_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent knew of the first end and could not write it. Meanwhile another one had the node, wrote that end and
    started the job again."""
    agent = world.agent()
    job_id = started(world, agent, max_retries=3)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)

    def away() -> None:
        raise DatabaseUnavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.ctx.records, "write", away)
        agent.run_once()
    other = world.open()
    fence = Fence("box", "another agent")
    fence.take(other.records, other.clock.now())
    write_turn(other, [world.ended(job_id)])
    other.leases.release("box", world.launcher.order_of(job_id).token, [other.gpus.inventory()[0].uuid])
    world.clock.forward(60)
    promote(other)
    facts = {job.id: job for job in SnapshotBuilder(other).waiting()}
    [claimed] = claim(other, [Start(job_id, (other.gpus.inventory()[1].uuid,))], facts, fence)
    assert claimed.order is not None
    os.close(world.launcher.start(claimed.order))
    world.launcher.run(job_id)
    # The node is free again, and the first agent takes it.
    RedisAgentKey(world.link).release("box", "agent-0")
    agent.run_once()
    assert world.state(job_id) == "running"
    assert [tracked.number for tracked in agent.tracked] == [2]
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert (world.state(job_id), world.holders()) == ("completed", {})


def test_records_are_let_go_of_once_the_end_is_committed_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = world.agent()
    job_id = started(world, agent)
    run_dir = world.launcher.order_of(job_id).run_dir
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)

    def refuse() -> None:
        raise DatabaseUnavailable("the disk is full")

    with monkeypatch.context() as full:
        full.setattr(world.ctx.records, "write", refuse)
        agent.run_once()
    assert (world.state(job_id), world.launcher.written) == ("running", [])
    agent.wake()
    agent.run_once()
    assert (world.state(job_id), world.launcher.written) == ("completed", [run_dir])


@pytest.mark.parametrize(
    ("fields", "seconds", "state"),
    [
        ({}, 1.0, "failed"),
        ({}, 60.0, "delayed"),
        ({"max_retries": 3}, 1.0, "delayed"),
    ],
)
def test_a_program_that_fails_at_once_is_retried_only_where_its_submitter_asked_for_retries(
    world: World, fields: dict[str, object], seconds: float, state: str
) -> None:
    agent = world.agent()
    job_id = started(world, agent, **fields)
    world.clock.forward(seconds)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    assert world.state(job_id) == state
    with world.ctx.records.read() as tx:
        detail = tx.events(job_id=job_id)[-1].detail or ""
    assert ("named no --retries: not retried" in detail) is (state == "failed")


def test_a_program_that_fails_at_once_is_retried_where_the_installation_says_so(
    make_world: Callable[..., World],
) -> None:
    world = make_world("sim:2", retry_quick=True)
    agent = world.agent()
    job_id = started(world, agent)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    assert world.state(job_id) == "delayed"

"""From a plan to attempts: what a claim that is refused gives back, and what the agent believes after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from world import World

from gpuq.domain.outcome import Outcome, Result
from gpuq.engine.actions.change import update
from gpuq.engine.actions.hold import hold, release
from gpuq.engine.agent import Agent
from gpuq.engine.attempt.launch_breaker import FIRST_PAUSE_S, MAX_PAUSE_S, LaunchCircuitBreaker
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.attempt.watcher import AttemptWatcher
from gpuq.engine.claim.claim import claim
from gpuq.engine.node_lock import Fence
from gpuq.engine.snapshot.builder import SnapshotBuilder
from gpuq.errors import NodeTaken
from gpuq.ports.hot_queue import QueueEntry
from gpuq.scheduler.snapshot import Start


def turn(world: World, agent: Agent) -> None:
    agent.wake()
    agent.run_once()


def heads(world: World) -> list[int]:
    return [entry.job_id for entry in world.ctx.queue.heads(5)]


class Plan:
    """One that was made from the queue as it is now: each job on a GPU of its own. `fence` is the node's."""

    def __init__(self, world: World, *jobs: int) -> None:
        self.world = world
        self.waiting = {job.id: job for job in SnapshotBuilder(world.ctx).waiting()}
        gpus = world.ctx.gpus.inventory()
        self.starts = [Start(job_id, (gpus[at].uuid,)) for at, job_id in enumerate(jobs)]
        self.fence = Fence("box", "the agent")
        self.fence.take(world.ctx.records, world.clock.now())

    def claim(self, *ended: TrackedAttempt) -> list[TrackedAttempt]:
        return claim(self.world.ctx, self.starts, self.waiting, self.fence, ended)


def test_a_job_that_was_held_under_the_plan_is_not_claimed_and_its_gpu_is_free_at_once(world: World) -> None:
    kept, wanted = world.submit("train"), world.submit("train")
    plan = Plan(world, kept, wanted)
    hold(world.ctx, kept, world.user)
    # The hot queue did not hear of it.
    world.ctx.queue.add([QueueEntry(kept, 1, world.job(kept).score)])
    assert [claimed.job.id for claimed in plan.claim()] == [wanted]
    assert (world.state(kept), world.story(kept)) == ("held", ["queued", "held"])
    assert world.holders() == {plan.starts[1].gpu_uuids[0]: [world.job(wanted).token]}
    # It does not stand in line either, until it is released.
    assert heads(world) == []
    release(world.ctx, kept, world.user)
    assert heads(world) == [kept]


def test_a_claim_on_a_node_that_another_agent_took_gives_everything_back(world: World) -> None:
    jobs = [world.submit("train"), world.submit("train")]
    plan = Plan(world, *jobs)
    Fence("box", "another agent").take(world.ctx.records, world.clock.now())
    with pytest.raises(NodeTaken):
        plan.claim()
    assert [world.story(job_id) for job_id in jobs] == [["queued"], ["queued"]]
    assert (world.holders(), heads(world)) == ({}, jobs)


def test_an_end_that_is_not_live_any_more_costs_the_starts_beside_it_nothing_but_a_plan(world: World) -> None:
    agent = world.agent()
    done, ends = world.submit("train"), world.submit("train")
    agent.run_once()
    ended = []
    for job_id in (done, ends):
        world.launcher.run(job_id)
        agent.run_once()
        result = Result(Outcome.SUCCEEDED, exit_code=0, finished_at=world.clock.now())
        ended.append(world.ended(job_id, result))
    world.launcher.end(done, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    wanted = world.submit("train")
    plan = Plan(world, wanted)
    # Not on the GPU that is still leased.
    plan.starts = [Start(wanted, (world.ctx.gpus.inventory()[3].uuid,))]
    held = world.holders()
    assert plan.claim(*ended) == []
    assert [world.state(job_id) for job_id in (done, ends, wanted)] == ["completed", "completed", "queued"]
    assert heads(world) == [wanted]
    # What was leased for the start is free again.
    assert world.holders().keys() <= held.keys()


def test_a_launched_attempt_keeps_no_copy_of_its_environment(world: World) -> None:
    job_id = world.submit("train", env={"BIG": "x" * 10_000})
    plan = Plan(world, job_id)
    [claimed] = plan.claim()
    assert claimed.order is not None
    assert claimed.order.spec["env"]["BIG"] == "x" * 10_000
    watcher = AttemptWatcher(world.ctx, LaunchCircuitBreaker(world.ctx), lambda: None)
    watcher.launch(claimed)
    watcher.close()
    assert world.launcher.order_of(job_id).spec["env"]["BIG"] == "x" * 10_000
    assert claimed.order is None


def test_after_another_agent_has_had_the_node_ours_proves_itself_before_it_starts_anything(world: World) -> None:
    """The other one is gone again, and our key in Redis never noticed."""
    agent = world.agent()
    Fence("box", "another agent").take(world.ctx.records, world.clock.now())
    job_id = world.submit("train")
    agent.run_once()
    assert (world.state(job_id), world.holders()) == ("queued", {})
    agent.run_once()
    assert world.state(job_id) == "starting"


def test_a_job_that_another_process_moved_in_line_is_read_again(make_world: Callable[..., World]) -> None:
    world = make_world("sim:1")
    running, first, second = world.submit("train"), world.submit("train"), world.submit("train")
    agent = world.agent()
    agent.run_once()
    world.launcher.run(running)
    turn(world, agent)
    # Heard by nobody here but the hot queue.
    elsewhere = world.open()
    update(elsewhere, second, world.user, {"priority": "high", "gpu_mem_mb": 5_000})
    world.launcher.end(running, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert [world.state(first), world.state(second)] == ["queued", "starting"]
    with world.ctx.records.read() as tx:
        assert [attempt.gpu_mem_mb for attempt in tx.attempts(second)] == [5_000]


def trouble(world: World) -> OSError:
    error = world.launcher.fail_next = OSError(28, "No space left on device")
    return error


def test_the_pause_after_trouble_with_launches_doubles_up_to_its_limit_and_starts_anew(
    make_world: Callable[..., World],
) -> None:
    world = make_world("sim:1")
    job_id = world.submit("train")
    agent = world.agent()
    trouble(world)
    turn(world, agent)
    for pause_s in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        agent.run_once()
        assert world.state(job_id) == "queued"
        error = trouble(world)
        world.clock.forward(pause_s - 0.5)
        turn(world, agent)
        assert world.launcher.fail_next is error, "tried before the pause was over"
        world.clock.forward(0.5)
        turn(world, agent)
        assert world.launcher.fail_next is None, "not tried when the pause was over"
    assert (FIRST_PAUSE_S, MAX_PAUSE_S) == (1.0, 30.0)
    agent.run_once()
    world.clock.forward(MAX_PAUSE_S)
    turn(world, agent)
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    after = world.submit("train")
    trouble(world)
    turn(world, agent)
    agent.run_once()
    assert world.state(after) == "queued"
    world.clock.forward(FIRST_PAUSE_S)
    turn(world, agent)
    assert world.state(after) == "starting"

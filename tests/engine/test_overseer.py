"""A stop comes to its end whatever becomes of the supervisor that is to carry it out."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.domain.oversight import Family, Sight, SupervisorState
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.attempt.adopt import end_of
from gpuq.engine.overseer import LOOK_S, SLOW_S, Overseer, Stop, _what
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.queries.health import readyz
from gpuq.errors import DatabaseUnavailable
from gpuq.ports.notify import Topic

STILL = Sight(SupervisorState.STANDS_STILL, pid=4711, start=1)


def start(world, **fields) -> tuple:
    agent = world.agent()
    job_id = world.submit("sleep", "100", **fields)
    agent.wake()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    overseer = Overseer(world.ctx, lambda: agent.tracked)
    overseer.look()
    return agent, job_id, overseer, world.launcher.oversight


def looks(world, overseer, seconds: float) -> None:
    for _ in range(round(seconds / LOOK_S)):
        world.clock.forward(LOOK_S)
        overseer.look()


def why(world, job_id):
    return world.queries.why(job_id)["reason"]


def test_nobody_looks_closely_at_a_supervisor_of_which_nothing_is_expected(world) -> None:
    _, _, overseer, oversight = start(world)
    looks(world, overseer, 100.0)
    assert oversight.looks == 0
    assert overseer.look(asked=False) > LOOK_S


def test_the_database_is_asked_twice_a_minute_while_nobody_is_told_to_stop(world, monkeypatch) -> None:
    _, _, overseer, _ = start(world)
    asked, read = [], world.ctx.records.read
    monkeypatch.setattr(world.ctx.records, "read", lambda: asked.append(1) or read())
    monkeypatch.setattr(world.ctx.records, "write", lambda: pytest.fail("it writes"))
    for _ in range(int(SLOW_S / LOOK_S)):
        world.clock.forward(LOOK_S)
        overseer.look(asked=False)
    assert len(asked) == 2


def test_a_supervisor_that_stands_still_is_continued_and_told_of_until_it_is_well(world) -> None:
    _, job_id, overseer, oversight = start(world)
    oversight.sights[job_id] = STILL
    looks(world, overseer, SLOW_S)
    assert oversight.resumed == [STILL]
    assert oversight.taken_over == []
    assert why(world, job_id) == {
        "code": "Stuck",
        "text": "its supervisor (pid 4711) stands still; it is continued",
    }
    ready = readyz(world.ctx, AgentLiveness(world.ctx))
    assert ready["stuck"] == [{"job_id": job_id, "text": "its supervisor (pid 4711) stands still; it is continued"}]
    with world.ctx.records.read() as tx:
        assert tx.events(job_id=job_id)[-1].detail == "its supervisor (pid 4711) stands still; it is continued"
    del oversight.sights[job_id]
    looks(world, overseer, LOOK_S)
    assert why(world, job_id) is None
    assert overseer.look(asked=False) > LOOK_S


def test_a_supervisor_that_nobody_finds_is_told_of_without_a_number(world) -> None:
    _, job_id, overseer, oversight = start(world)
    oversight.sights[job_id] = Sight(SupervisorState.UNSEEN)
    cancel(world.ctx, job_id, world.user, force=True)
    looks(world, overseer, 20.0)
    assert oversight.taken_over[0] == (job_id, "cancel", 0.0)
    assert why(world, job_id)["text"] == "its supervisor does not answer; gpuq ends the job without it"


@pytest.mark.parametrize(("force", "grace_s"), [(True, 0.0), (False, 28.0)])
def test_a_cancel_takes_the_attempt_over_when_continuing_does_not_help(world, force, grace_s) -> None:
    _, job_id, overseer, oversight = start(world)
    oversight.sights[job_id] = STILL
    cancel(world.ctx, job_id, world.user, force=force)
    looks(world, overseer, 2.0)
    assert len(oversight.resumed) == 3
    # Long before the promised end, which is 5 s after the grace.
    assert oversight.taken_over == [(job_id, "cancel", grace_s)]
    assert why(world, job_id)["text"] == "its supervisor (pid 4711) stands still; gpuq ends the job without it"


@pytest.mark.parametrize(
    ("sight", "told"),
    [
        (Sight(SupervisorState.GONE), "its supervisor does not answer"),
        (Sight(SupervisorState.UNSEEN), "its supervisor does not answer"),
        (Sight(SupervisorState.RUNS, pid=4711, start=1), "its supervisor (pid 4711) does not answer"),
    ],
)
def test_a_supervisor_is_named_by_its_pid_where_it_has_one(sight: Sight, told: str) -> None:
    assert _what(sight) == told


def test_a_supervisor_that_does_not_listen_is_replaced_before_the_grace_is_over(world) -> None:
    _, job_id, overseer, oversight = start(world)
    oversight.sights[job_id] = Sight(SupervisorState.RUNS, pid=4711, start=1, unread=True)
    cancel(world.ctx, job_id, world.user, grace_s=30.0)
    looks(world, overseer, 4.0)
    [(_, reason, grace_s)] = oversight.taken_over
    assert reason == "cancel"
    assert grace_s >= 25.0


def test_a_time_limit_holds_against_a_supervisor_that_forgets_it(world) -> None:
    agent, job_id, overseer, oversight = start(world, time_limit_s=60, kill_grace_s=10)
    world.clock.forward(60.0)
    agent.run_once()
    looks(world, overseer, 11.5)
    assert oversight.taken_over == []
    looks(world, overseer, 1.0)
    assert oversight.taken_over[0] == (job_id, "time_limit", 0.0)


def test_a_jump_of_the_wall_clock_takes_no_grace(world) -> None:
    _, job_id, overseer, oversight = start(world)
    cancel(world.ctx, job_id, world.user, grace_s=30.0)
    looks(world, overseer, LOOK_S)
    world.clock.jump(3600.0)
    looks(world, overseer, 31.0)
    assert oversight.taken_over == []
    looks(world, overseer, 1.0)
    assert oversight.taken_over[0] == (job_id, "cancel", 0.0)


def test_a_second_cancel_brings_the_end_nearer(world) -> None:
    _, job_id, overseer, oversight = start(world)
    cancel(world.ctx, job_id, world.user, grace_s=30.0)
    looks(world, overseer, LOOK_S)
    cancel(world.ctx, job_id, world.user)
    looks(world, overseer, 2.5)
    assert oversight.taken_over[0] == (job_id, "cancel", 0.0)


def test_a_notice_before_a_preemption_counts_in_what_is_left(world) -> None:
    _, job_id, overseer, oversight = start(world, preemptible=True, signal="USR1@20", kill_grace_s=30)
    agent_attempt = overseer._attempts()[0]
    oversight.sights[job_id] = STILL
    overseer.expect(agent_attempt.token, Stop("preempt", world.clock.monotonic() + 50.0))
    looks(world, overseer, 2.0)
    assert oversight.taken_over == [(job_id, "preempt", 28.0)]


def test_what_was_begun_is_gone_on_with_after_a_restart(world) -> None:
    agent, job_id, _, oversight = start(world)
    oversight.sights[job_id] = dataclasses.replace(STILL, taken_over=True)
    cancel(world.ctx, job_id, world.user, grace_s=30.0)
    successor = Overseer(world.ctx, lambda: agent.tracked)
    successor.look()
    assert oversight.taken_over == [(job_id, "cancel", 30.0)]


def test_a_start_that_is_not_reported_is_looked_after_some_time(world) -> None:
    agent = world.agent()
    job_id = world.submit("true")
    agent.wake()
    agent.run_once()
    overseer, oversight = Overseer(world.ctx, lambda: agent.tracked), world.launcher.oversight
    oversight.sights[job_id] = STILL
    overseer.look()
    assert oversight.looks == 0
    looks(world, overseer, SLOW_S)
    assert oversight.resumed != []


def test_one_attempt_that_cannot_be_looked_at_keeps_nobody_from_the_others(world, monkeypatch) -> None:
    agent, first, overseer, oversight = start(world, gpus=0)
    second = world.submit("sleep", "100", gpus=0)
    agent.wake()
    agent.run_once()
    world.launcher.run(second)
    agent.run_once()
    oversight.sights |= {first: STILL, second: STILL}
    look = oversight.look

    def refuse(run_dir, known):
        if f"/{first}/" in run_dir:
            raise OSError(5, "Input/output error")
        return look(run_dir, known)

    monkeypatch.setattr(oversight, "look", refuse)
    for job_id in (first, second):
        cancel(world.ctx, job_id, world.user, force=True)
    looks(world, overseer, 2.0)
    assert {job_id for job_id, _, _ in oversight.taken_over} == {second}


def test_what_was_told_of_an_attempt_is_forgotten_when_it_has_ended(world) -> None:
    agent, job_id, overseer, oversight = start(world)
    oversight.sights[job_id] = STILL
    looks(world, overseer, SLOW_S)
    assert why(world, job_id) is not None
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert why(world, job_id) is None
    looks(world, overseer, SLOW_S)
    with world.ctx.records.read() as tx:
        assert tx.values("stuck:") == {}


def test_it_wakes_when_a_job_is_told_to_stop(world, monkeypatch) -> None:
    _, job_id, overseer, _ = start(world)
    looked = threading.Event()
    monkeypatch.setattr(overseer, "look", lambda *, asked: looked.set() or SLOW_S)
    overseer.start()
    assert looked.wait(20.0), "the first look is at once"
    looked.clear()
    heard = []
    world.ctx.notifier.subscribe(heard.append)
    cancel(world.ctx, job_id, Caller("root", uid=0, gid=0, admin=True))
    assert Topic.STOPS in heard
    assert looked.wait(20.0)
    overseer.stop()
    overseer.stop()


def noted(world, job_id: int) -> list:
    with world.ctx.records.read() as tx:
        return tx.processes(job_id, 1)


def test_what_no_control_group_holds_is_noted_at_the_start_and_with_every_change(world) -> None:
    agent, overseer, oversight = world.agent(), None, world.launcher.oversight
    overseer = Overseer(world.ctx, lambda: agent.tracked)
    job_id = world.submit("sleep", "100")
    agent.wake()
    agent.run_once()
    # The second process that the launcher plays is the job's.
    oversight.families[5_000_001] = Family([(70, 7)])
    world.launcher.run(job_id)
    agent.run_once()
    assert noted(world, job_id) == [(70, 7)]
    oversight.families[5_000_001] = Family([(70, 7), (71, 8)])
    looks(world, overseer, 1.0)
    assert noted(world, job_id) == [(70, 7), (71, 8)]
    # The supervisor has died: what was below it is anywhere.
    oversight.families[5_000_001] = None
    looks(world, overseer, SLOW_S)
    assert noted(world, job_id) == [(70, 7), (71, 8)]


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_noted_is_ended_with_its_attempt_and_told_of_until_it_is_gone(world, restarted) -> None:
    agent, job_id, overseer, oversight = start(world, gpus=2)
    oversight.families[5_000_001] = Family([(70, 7)])
    agent.tracked[0].grouped = False
    looks(world, overseer, SLOW_S)
    token = world.launcher.order_of(job_id).token
    world.launcher.unkillable.add(token)
    world.launcher.die(job_id)
    if restarted:
        world.agents.pop().stop()
        agent = world.agent()
        overseer = Overseer(world.ctx, lambda: agent.tracked)
    for _ in range(3):
        agent.run_once()
    assert (world.state(job_id), len(world.holders())) == ("running", 2)
    assert why(world, job_id) == {"code": "Stuck", "text": "a process of it cannot be killed"}
    with world.ctx.records.read() as tx:
        assert [event.detail for event in tx.events(job_id=job_id)].count("a process of it cannot be killed") == 1
    world.launcher.unkillable.clear()
    world.clock.forward(2)
    agent.run_once()
    assert world.launcher.swept_seen == [(70, 7)]
    assert (world.holders(), why(world, job_id)["code"]) == ({}, "RetryBackoff")
    looks(world, overseer, SLOW_S)
    assert noted(world, job_id) == []


def test_without_the_list_of_what_was_seen_an_attempt_is_not_taken_for_gone(world, monkeypatch) -> None:
    agent, job_id, _, _ = start(world)
    [tracked] = agent.tracked
    world.launcher.die(job_id)

    def away():
        raise DatabaseUnavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.ctx.records, "read", away)
        assert end_of(world.ctx, tracked) is None
    assert world.launcher.swept == []
    assert end_of(world.ctx, tracked).outcome is Outcome.LOST

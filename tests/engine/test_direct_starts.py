"""A job that starts with its submission: when it does, what is so then, and when it goes the usual road."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpuq.domain import failpoints
from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.drain import drain
from gpuq.engine.actions.groups import limit_group
from gpuq.engine.actions.pause import pause
from gpuq.engine.agent import Agent
from gpuq.engine.intake.newborn import job_of
from gpuq.engine.intake.request import Asked
from gpuq.engine.intake.submit import store
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.maintenance.rehydrate import rehydrate
from gpuq.engine.node_lock import Fence
from gpuq.errors import DatabaseUnavailable, Refused
from gpuq.user_files import OverQuota

Make = Callable[..., Any]


def idle(world: Any) -> Agent:
    """An agent that has looked at the queue and found nothing."""
    agent: Agent = world.agent()
    agent.run_once()
    return agent


@pytest.fixture
def agent(world: Any) -> Agent:
    return idle(world)


@pytest.fixture
def counted(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Transactions, and calls of Redis scripts, by name."""
    calls: list[str] = []
    run, write, read = world.link.run, world.ctx.records.write, world.ctx.records.read
    monkeypatch.setattr(world.link, "run", lambda name, *given: (calls.append(name), run(name, *given))[1])
    monkeypatch.setattr(world.ctx.records, "write", lambda: (calls.append("write"), write())[1])
    monkeypatch.setattr(world.ctx.records, "read", lambda: (calls.append("read"), read())[1])
    return calls


def went_the_usual_road(world: Any, job_id: int) -> bool:
    """It waits in line, and nothing is left of a try to start it."""
    orders = [order for order in world.launcher.orders if order.job_id == job_id]
    with world.ctx.records.read() as tx:
        attempts = tx.attempts(job_id)
    return (world.state(job_id), orders, attempts) == ("queued", [], [])


# -- the start -------------------------------------------------------------------------------------------------------


def test_a_job_alone_starts_in_the_transaction_of_its_submission(world: Any, agent: Agent, counted: list[str]) -> None:
    [job_id] = world.submit_to(agent, {"gpus": 2})
    assert counted == ["take", "write"]
    assert world.state(job_id) == "starting"
    assert [order.job_id for order in world.launcher.orders] == [job_id]
    [tracked] = agent.tracked
    assert world.holders() == {uuid: [tracked.token] for uuid in tracked.gpu_uuids}


def test_both_changes_stand_in_the_history(world: Any, agent: Agent) -> None:
    [job_id] = world.submit_to(agent)
    with world.ctx.records.read() as tx:
        told = [(event.from_state, event.to_state, event.actor, event.attempt) for event in tx.events(job_id=job_id)]
    assert told == [(None, "queued", "alice", None), ("queued", "starting", "gpuq", 1)]


def test_it_runs_and_ends_like_any_other(world: Any, agent: Agent) -> None:
    [job_id] = world.submit_to(agent)
    world.launcher.run(job_id)
    agent.turn(0.0, write_after_s=0.0)
    assert world.state(job_id) == "running"
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.turn(0.0)
    assert (world.state(job_id), world.holders()) == ("completed", {})


def test_it_is_launched_as_the_usual_road_launches_it(make_world: Make) -> None:
    orders = []
    for direct in (True, False):
        world = make_world("sim:2")
        agent = idle(world)
        fields = {"gpus": 1, "env": {"A": "b"}, "time_limit_s": 60, "signal": "USR1@5", "name": "n", "gpu_mem_mb": 100}
        [job_id] = world.submit_to(agent if direct else None, fields)
        agent.turn(0.0)
        [order] = world.launcher.orders
        assert order.job_id == job_id
        orders.append(repr(order).replace(str(world.settings.home), "HOME").replace(order.token, "TOKEN"))
    first, second = orders
    assert first.partition("GPUQ_ATTEMPT_MARK")[0] == second.partition("GPUQ_ATTEMPT_MARK")[0]


def test_the_row_that_it_was_claimed_by_is_the_one_that_is_stored(world: Any) -> None:
    for fields in ({}, {"gpus": 0, "group": "g", "preemptible": True, "gpu_ids": None}, {"gpu_ids": [1], "gpus": 1}):
        spec = JobSpec.parse({"command": ["a", "b"], "cwd": "/", "time_limit_s": 5, "priority": "low", **fields})
        done = store(world.ctx, Asked([spec], world.user))
        [job_id] = done.ids
        assert job_of(job_id, done.stored[job_id]) == world.job(job_id)


def test_one_after_another_starts_until_the_gpus_are_taken(world: Any, agent: Agent) -> None:
    ids = [world.submit_to(agent)[0] for _ in range(6)]
    agent.turn(0.0)
    assert [world.state(job_id) for job_id in ids] == ["starting"] * 4 + ["queued"] * 2
    assert [entry.job_id for entry in world.ctx.queue.heads(9)] == ids[4:]


def test_a_share_starts_beside_another_and_a_job_without_gpus_beside_all(make_world: Make) -> None:
    world = make_world("sim:1x10000M", cpu_jobs=1)
    agent = idle(world)
    asked = [{"gpu_mem_mb": 4000}, {"gpu_mem_mb": 6000}, {"gpus": 0}]
    ids = [world.submit_to(agent, fields)[0] for fields in asked]
    assert [world.state(job_id) for job_id in ids] == ["starting"] * 3
    for fields in ({"gpu_mem_mb": 1}, {"gpus": 0}):
        assert went_the_usual_road(world, world.submit_to(agent, fields)[0])


def test_a_launch_that_fails_is_told_as_on_the_usual_road(world: Any, agent: Agent) -> None:
    world.launcher.fail_next = OverQuota(1, "user 1000 has used up the disk quota")
    [job_id] = world.submit_to(agent, {"max_retries": 0})
    agent.turn(0.0)
    assert (world.state(job_id), world.holders()) == ("failed", {})


# -- the usual road --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [{"array": "0-1"}, {"array": "0"}, {"key": "k"}, {"hold": True}, {"begin": "2099-01-01T00:00:00Z"}],
    ids=lambda fields: next(iter(fields)),
)
def test_what_is_unusual_goes_the_usual_road(
    world: Any, agent: Agent, counted: list[str], fields: dict[str, Any]
) -> None:
    ids = world.submit_to(agent, fields)
    assert "take" not in counted
    agent.turn(0.0)
    expected = "held" if "hold" in fields else "delayed" if "begin" in fields else "starting"
    assert {world.state(job_id) for job_id in ids} == {expected}


def test_a_job_that_waits_for_others_goes_the_usual_road(world: Any, agent: Agent, counted: list[str]) -> None:
    [first] = world.submit_to(agent)
    del counted[:]
    for fields in ({"after": [first]}, {"after_any": [first]}):
        [job_id] = world.submit_to(agent, fields)
        assert world.state(job_id) == "blocked"
    assert "take" not in counted


def test_several_jobs_go_the_usual_road(world: Any, agent: Agent, counted: list[str]) -> None:
    ids = world.submit_to(agent, {}, {})
    assert "take" not in counted
    assert all(went_the_usual_road(world, job_id) for job_id in ids)


def test_nobody_passes_a_line(world: Any, agent: Agent) -> None:
    world.submit_to(agent, {"gpus": 3})
    [waiting] = world.submit_to(agent, {"gpus": 4})
    agent.turn(0.0)
    [job_id] = world.submit_to(agent, {"gpus": 1, "priority": "high", "time_limit_s": 1})
    assert went_the_usual_road(world, waiting)
    assert went_the_usual_road(world, job_id)


def test_nobody_passes_a_job_of_which_the_agent_has_not_heard(world: Any, agent: Agent, counted: list[str]) -> None:
    # Stored by another process, whose word has not come.
    spec = JobSpec.parse({"command": ["first"], "cwd": "/"})
    [first] = store(world.ctx, Asked([spec], world.user)).ids
    del counted[:]
    [job_id] = world.submit_to(agent)
    assert counted == ["take", "write", "release"]
    assert (went_the_usual_road(world, first), went_the_usual_road(world, job_id)) == (True, True)
    assert world.holders() == {}


@pytest.mark.parametrize("what", ["pause", "drain", "group", "user", "foreign", "gpus"])
def test_what_keeps_any_job_back_keeps_this_one_back(make_world: Make, what: str) -> None:
    settings = {"user_max_running": 1} if what == "user" else {}
    world = make_world("sim:1", **settings)
    agent = idle(world)
    fields: dict[str, Any] = {"group": "g"}
    if what == "pause":
        pause(world.ctx, world.admin)
    elif what == "drain":
        drain(world.ctx, 0, world.admin)
    elif what == "group":
        limit_group(world.ctx, "g", 1, world.admin)
        world.submit_to(agent, {"group": "g", "gpus": 0})
        fields["gpus"] = 0
    elif what == "user":
        world.submit_to(agent, {"gpus": 0})
    elif what == "foreign":
        world.driver_says({0: {"used_mb": 5000}})
        world.clock.forward(2)
    else:
        world.submit_to(agent, {"gpus": 1})
    agent.turn(0.0)
    held = world.holders()
    [job_id] = world.submit_to(agent, fields)
    agent.turn(0.0)
    assert went_the_usual_road(world, job_id)
    assert world.holders() == held


def test_a_pause_that_the_agent_has_not_seen_yet_counts(world: Any, agent: Agent) -> None:
    pause(world.ctx, world.admin)
    assert went_the_usual_road(world, world.submit_to(agent)[0])


def test_a_job_that_others_would_have_to_yield_to_goes_the_usual_road(make_world: Make) -> None:
    world = make_world("sim:1")
    agent = idle(world)
    [modest] = world.submit_to(agent, {"preemptible": True})
    world.launcher.run(modest)
    agent.turn(0.0, write_after_s=0.0)
    world.clock.forward(4000)
    agent.turn(0.0)
    [urgent] = world.submit_to(agent, {"priority": "critical"})
    assert went_the_usual_road(world, urgent)
    assert world.state(modest) == "running"
    agent.turn(0.0)
    assert world.state(modest) == "stopping"


def test_a_user_without_an_account_is_refused_before_anything_is_leased(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("sim:1")
    agent = idle(world)
    monkeypatch.setattr(world.accounts, "daemon_uid", 0)
    nobody = Caller("nobody-of-this-name", uid=71234, gid=71234)
    with pytest.raises(Exception, match="no account"):
        world.submit_to(agent, by=nobody)
    assert (world.holders(), world.launcher.orders) == ({}, [])


def test_an_account_that_goes_while_the_job_is_stored_leaves_it_in_line(
    world: Any, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    add_jobs = "gpuq.stores.sql.writer.SqlWriter.add_jobs"
    from gpuq.stores.sql.writer import SqlWriter

    plain = SqlWriter.add_jobs
    monkeypatch.setattr(add_jobs, lambda *given, **named: (gone.append("gone"), plain(*given, **named))[1])
    monkeypatch.setattr(world.accounts, "why_not", lambda user, uid: gone[0] if gone else None)
    [job_id] = world.submit_to(agent)
    assert went_the_usual_road(world, job_id)
    assert world.holders() == {}


def test_a_machine_that_cannot_launch_starts_nothing(world: Any, agent: Agent) -> None:
    world.launcher.fail_next = OSError(28, "No space left on device")
    world.submit_to(agent)
    agent.turn(0.0)
    [job_id] = world.submit_to(agent)
    assert went_the_usual_road(world, job_id)


def test_an_agent_in_the_middle_of_a_turn_is_not_waited_for(world: Any, agent: Agent) -> None:
    with agent._direct.kept_out():
        [job_id] = world.submit_to(agent)
        assert went_the_usual_road(world, job_id)
    agent.turn(0.0)
    assert world.state(job_id) == "starting"


def test_an_agent_that_wants_its_turn_comes_first(world: Any, agent: Agent) -> None:
    agent._direct._wanted = True
    assert went_the_usual_road(world, world.submit_to(agent)[0])


def test_ends_that_are_not_written_come_first(make_world: Make) -> None:
    world = make_world("sim:2")
    agent = idle(world)
    [first] = world.submit_to(agent)
    world.launcher.run(first)
    agent.turn(0.0, write_after_s=0.0)
    world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)
    agent._hear(agent._attempts.wait(0.0))
    assert went_the_usual_road(world, world.submit_to(agent)[0])


def test_another_agent_that_took_the_node_keeps_it(world: Any, agent: Agent) -> None:
    Fence("box", "another agent").take(world.ctx.records, world.clock.now())
    [job_id] = world.submit_to(agent)
    assert went_the_usual_road(world, job_id)
    assert world.holders() == {}


def test_without_redis_a_job_waits_and_its_submission_does_not(world: Any, agent: Agent, counted: list[str]) -> None:
    world.redis.connected = False
    assert went_the_usual_road(world, world.submit_to(agent)[0])
    assert counted[0] == "take"
    del counted[:]
    # It is known now, and not tried by every submission.
    assert went_the_usual_road(world, world.submit_to(agent)[0])
    assert "take" not in counted
    world.redis.connected = True


def test_a_hot_store_that_was_not_read_back_is_no_empty_queue(world: Any, agent: Agent) -> None:
    world.link.client.flushall()
    [job_id] = world.submit_to(agent)
    assert went_the_usual_road(world, job_id)
    assert world.link.client.keys("*lease*") == []


def test_a_stopped_agent_starts_nothing(world: Any, agent: Agent) -> None:
    world.agents.pop().stop()
    assert went_the_usual_road(world, world.submit_to(agent)[0])


def test_a_repeated_request_answers_the_first_jobs_and_starts_nothing(world: Any, agent: Agent) -> None:
    ids = [world.submit_to(agent, request_key="k") for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(world.launcher.orders) == 1
    assert len(world.holders()) == 1


def test_a_claim_that_goes_wrong_undoes_itself_alone(world: Any, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuq.stores.sql.writer import SqlWriter

    plain = SqlWriter.add_attempt

    def broken(tx: Any, attempt: Any) -> None:
        plain(tx, attempt)
        raise ValueError("a fault of the code")

    with monkeypatch.context() as patch:
        patch.setattr(SqlWriter, "add_attempt", broken)
        [job_id] = world.submit_to(agent)
    assert went_the_usual_road(world, job_id)
    assert (world.story(job_id), world.holders()) == (["queued"], {})
    agent.turn(0.0)
    assert world.state(job_id) == "starting"


# -- what goes wrong -------------------------------------------------------------------------------------------------


def refused() -> None:
    raise Refused("nobody waits for an answer")


def test_a_refused_submission_gives_the_gpus_back_and_stores_nothing(world: Any, agent: Agent) -> None:
    with pytest.raises(Refused):
        world.submit_to(agent, before_commit=refused)
    with world.ctx.records.read() as tx:
        assert tx.last_event_id() == 0
    assert (world.holders(), world.launcher.orders, agent.tracked) == ({}, [], [])
    # And nothing is blocked by it.
    assert world.state(world.submit_to(agent)[0]) == "starting"


def test_a_commit_that_fails_gives_the_gpus_back(world: Any, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    write = world.ctx.records.write

    @contextlib.contextmanager
    def failing() -> Iterator[Any]:
        with write() as tx:
            yield tx
            raise DatabaseUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.records, "write", failing)
        with pytest.raises(DatabaseUnavailable):
            world.submit_to(agent)
    assert (world.holders(), world.launcher.orders, agent.tracked) == ({}, [], [])


def test_a_cancel_between_claim_and_launch_keeps_the_job_from_running(
    world: Any, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel_there(name: str) -> None:
        if name == "submit.claimed":
            with world.ctx.records.read() as tx:
                [(job, _)] = tx.live_attempts("box")
            cancel(world.ctx, job.id, world.user)

    monkeypatch.setattr(failpoints, "point", cancel_there)
    [job_id] = world.submit_to(agent)
    agent.turn(0.0)
    assert (world.state(job_id), world.launcher.orders, world.holders()) == ("cancelled", [], {})


class Died(BaseException):
    """The process is gone: nothing may catch this."""


@pytest.mark.parametrize("point", ["lease.taken", "submit.before_commit", "submit.committed", "submit.claimed"])
def test_a_daemon_that_dies_on_the_way_loses_nothing_and_runs_nothing_twice(
    world: Any, agent: Agent, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    def die(name: str) -> None:
        if name == point:
            raise Died(name)

    with monkeypatch.context() as armed:
        armed.setattr(failpoints, "point", die)
        with pytest.raises(Died):
            world.submit_to(agent, request_key="k")
    assert world.launcher.orders == []
    stored = point in {"submit.committed", "submit.claimed"}
    world.agents.pop().stop()
    world.ctx = world.open()
    for key in world.link.client.keys("*lease*"):
        # They expire.
        world.link.client.delete(key)
    rehydrate(world.ctx)
    agent = idle(world)
    # Who asked has no answer, and asks again.
    [job_id] = world.submit_to(agent, request_key="k")
    agent.turn(0.0)
    # An attempt that was lost is followed by the next after a while.
    world.clock.forward(60)
    promote(world.ctx)
    agent.turn(0.0)
    with world.ctx.records.read() as tx:
        attempts = tx.attempts(job_id)
        assert len(tx.live_attempts("box")) == 1
    assert [attempt.outcome for attempt in attempts] == ([Outcome.LOST, None] if stored else [None])
    assert (world.job(job_id).retries_used, world.state(job_id)) == (0, "starting")
    assert [order.job_id for order in world.launcher.orders] == [job_id]
    assert list(world.holders().values()) == [[attempts[-1].token]]

"""A job that runs is changed: its limit, its supervisor, the ledger, and those who wait."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.change import update, update_many
from gpuq.engine.actions.pause import pause
from gpuq.engine.actions.retry import retry
from gpuq.errors import Forbidden, Refused, UsageError, WrongState
from gpuq.ports.notify import Topic

BOB = Caller("bob", uid=1001, gid=1001)


def running(world: Any, *command: str, agent: Any = None, **fields: Any) -> int:
    job_id: int = world.submit(*(command or ("train",)), **fields)
    agent = agent or world.agents[0]
    agent.wake()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    return job_id


@pytest.fixture
def box(make_world: Any) -> Any:
    world = make_world("sim:2")
    world.agent()
    return world


def change(world: Any, job_id: int, by: Caller | None = None, **changes: Any) -> Any:
    return update(world.ctx, job_id, by or world.user, changes, world.queries.first_delayed)


def told(world: Any, job_id: int) -> tuple[float | None, float | None] | None:
    return world.launcher.limits_told.get(world.launcher.order_of(job_id).run_dir)


def last_event(world: Any, job_id: int) -> tuple[str, str | None, int | None]:
    with world.ctx.records.read() as tx:
        event = tx.events(job_id=job_id)[-1]
        assert event.from_state == event.to_state
        return event.actor, event.detail, event.attempt


def test_a_longer_limit_is_durable_with_its_event_and_the_supervisor_and_the_ledger_go_by_it(box: Any) -> None:
    job_id = running(box, time_limit_s=3600)
    agent = box.agents[0]
    assert change(box, job_id, time_limit_s=7200).time_limit_s == 7200
    assert last_event(box, job_id) == ("alice", "changed while it runs: time_limit_s from 3600 to 7200", 1)
    assert told(box, job_id) == (7200, None)
    with box.ctx.records.read() as tx:
        assert tx.spec(job_id)[0].time_limit_s == 7200
    agent.run_once()
    assert agent.tracked[0].limit_end == agent.tracked[0].launched.started_at + 7200
    box.clock.forward(3700)
    agent.run_once()
    assert box.state(job_id) == "running"
    box.clock.forward(3700)
    agent.run_once()
    assert (box.state(job_id), box.job(job_id).stop_reason) == ("stopping", "time_limit")


def test_a_limit_is_changed_by_so_much_more_or_less(box: Any) -> None:
    job_id = running(box, time_limit_s=3600)
    assert change(box, job_id, time_add_s=1800).time_limit_s == 5400
    assert change(box, job_id, time_add_s=-600.0).time_limit_s == 4800
    waits = box.submit("train", time_limit_s=60)
    assert change(box, waits, time_add_s=30).time_limit_s == 90
    for wrong, changes in (
        ("80m00s less leaves nothing|1h20m less leaves nothing", {"time_add_s": -4800}),
        ("a number of seconds", {"time_add_s": "1h"}),
        ("a number of seconds", {"time_add_s": True}),
        ("a number of seconds", {"time_add_s": float("nan")}),
        ("cannot go together", {"time_add_s": 5, "time_limit_s": 7}),
        ("time_limit_s", {"time_add_s": 1e12}),
    ):
        with pytest.raises(UsageError, match=wrong):
            change(box, job_id, **changes)
    with pytest.raises(UsageError, match="no time limit to change"):
        change(box, box.submit("train"), time_add_s=30)
    assert box.job(job_id).time_limit_s == 4800


def test_a_limit_that_is_over_already_is_told_and_the_job_is_seen_to_stop(box: Any) -> None:
    job_id = running(box, time_limit_s=3600)
    box.clock.forward(600)
    change(box, job_id, time_limit_s=60)
    assert told(box, job_id) == (60, None)
    box.agents[0].run_once()
    job = box.job(job_id)
    assert (str(job.state), job.stop_reason) == ("stopping", "time_limit")
    assert job.stop_deadline == box.clock.now() + box.settings.kill_grace
    with pytest.raises(WrongState, match="only a job that waits or runs"):
        change(box, job_id, time_limit_s=6000)


def test_a_job_is_made_longer_by_its_owner_only_while_that_moves_nobody_back(box: Any) -> None:
    mine = running(box, time_limit_s=1800)
    other = running(box, by=BOB, time_limit_s=3600)
    assert change(box, mine, time_add_s=60).time_limit_s == 1860, "nobody waits"
    waits = box.submit("train", by=BOB, gpus=2)
    # It waits for the other one anyhow.
    assert change(box, mine, time_limit_s=3500).time_limit_s == 3500
    with pytest.raises(Refused, match=rf"job {waits} would start 1h00m later") as refused:
        change(box, mine, time_limit_s=7200)
    assert "administrator" in (refused.value.hint or "")
    pause(box.ctx, box.admin)
    with pytest.raises(Refused, match=f"job {waits} would start"):
        change(box, mine, time_limit_s=7200)
    with pytest.raises(Refused, match=f"job {waits} would start"):
        change(box, mine, time_limit_s=None)
    assert box.job(mine).time_limit_s == 3500
    assert told(box, mine) == (3500, None)
    with pytest.raises(Forbidden):
        change(box, other, time_limit_s=60)
    assert change(box, mine, by=box.admin, time_limit_s=20_000).time_limit_s == 20_000
    assert last_event(box, mine)[0] == "root"
    assert change(box, mine, time_limit_s=100).time_limit_s == 100, "shorter is always allowed"


def test_of_several_that_are_made_longer_at_once_each_counts_with_those_before_it(make_world: Any) -> None:
    world = make_world("sim:2")
    world.agent()
    first, second = running(world, time_limit_s=3600), running(world, time_limit_s=3600)
    world.submit("train", by=BOB)
    done = update_many(world.ctx, [first, second], world.user, {"time_limit_s": 7200}, world.queries.first_delayed)
    # The one that waits can have the GPU of the second.
    assert [one.error is None for one in done] == [True, False]
    assert [world.job(job_id).time_limit_s for job_id in (first, second)] == [7200, 3600]


def test_name_group_and_grace_change_at_once_and_the_priority_for_the_next_attempt(box: Any) -> None:
    job_id = running(box, time_limit_s=3600, max_retries=1)
    before = box.job(job_id)
    job = change(box, job_id, name="bert", group="lab", priority="high", kill_grace_s=7.0)
    assert (job.name, job.group, job.priority.label) == ("bert", "lab", "high")
    assert job.score < before.score
    assert told(box, job_id) == (3600, 7)
    assert last_event(box, job_id)[1] == (
        "changed while it runs: name from none to bert, group from none to lab, priority from normal to high,"
        " kill_grace_s from none to 7"
    )
    change(box, job_id, kill_grace_s=None)
    assert told(box, job_id) == (3600, box.settings.kill_grace)
    with pytest.raises(WrongState, match="its gpus can be changed only while it waits"):
        change(box, job_id, gpus=2)
    with pytest.raises(WrongState, match="only while it waits"):
        change(box, job_id, time_limit_s=5, max_retries=3)


def test_a_job_that_is_only_starting_can_be_changed(box: Any) -> None:
    job_id = box.submit("train", time_limit_s=60)
    agent = box.agents[0]
    agent.wake()
    agent.run_once()
    assert box.state(job_id) == "starting"
    change(box, job_id, time_limit_s=90)
    box.launcher.run(job_id)
    agent.run_once()
    assert (told(box, job_id), agent.tracked[0].job.time_limit_s) == ((90, None), 90)


def test_a_supervisor_of_an_earlier_release_is_promised_nothing(box: Any) -> None:
    job_id = running(box, time_limit_s=60)
    box.launcher.deaf = True
    with pytest.raises(WrongState, match="started by an earlier release") as refused:
        change(box, job_id, time_limit_s=90)
    assert "requeue" in (refused.value.hint or "")
    assert (box.job(job_id).time_limit_s, told(box, job_id)) == (60, None)
    assert change(box, job_id, name="bert").name == "bert"


def test_an_agent_that_takes_over_tells_what_nobody_told(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = running(box, time_limit_s=60, kill_grace_s=3.0)
    box.agents[0].stop()
    box.launcher.fail_limits = OSError("the daemon died here")
    change(box, job_id, time_limit_s=90, kill_grace_s=5.0)
    box.launcher.fail_limits = None
    assert told(box, job_id) is None
    agent = box.agent()
    assert told(box, job_id) == (90, 5)
    # And what was told is not told again.
    box.launcher.fail_limits = OSError("told again")
    agent.stop()
    assert not box.agent().tracked[0].limits_untold


def test_a_supervisor_that_cannot_be_told_is_told_later(box: Any) -> None:
    job_id = running(box, time_limit_s=60)
    box.launcher.fail_limits = OSError(28, "No space left on device")
    change(box, job_id, time_limit_s=90)
    agent = box.agents[0]
    agent.run_once()
    assert (told(box, job_id), agent.tracked[0].limits_untold) == (None, True)
    box.launcher.fail_limits = None
    box.clock.forward(6)
    agent.run_once()
    assert (told(box, job_id), agent.tracked[0].limits_untold) == ((90, None), False)


def test_a_word_that_came_too_late_is_put_right(box: Any) -> None:
    job_id = running(box, time_limit_s=60)
    change(box, job_id, time_limit_s=90)
    agent = box.agents[0]
    agent.run_once()
    order = box.launcher.order_of(job_id)
    box.launcher.change_limits(order.run_dir, order.token, time_limit_s=70, kill_grace_s=None)
    box.ctx.notifier.publish(Topic.LIVE)
    agent.run_once()
    assert told(box, job_id) == (90, None)


def test_a_limit_that_was_changed_and_not_heard_of_is_not_taken_for_reached(
    box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = running(box, time_limit_s=60)
    agent = box.agents[0]
    monkeypatch.setattr(type(box.ctx.notifier), "publish", lambda *args: None)
    change(box, job_id, time_limit_s=900)
    box.clock.forward(70)
    agent.run_once()
    assert box.state(job_id) == "running"
    box.clock.forward(900)
    agent.run_once()
    assert box.state(job_id) == "stopping"


def test_a_limit_that_is_reached_cannot_be_made_longer(box: Any) -> None:
    job_id = running(box, time_limit_s=60)
    box.clock.forward(59.5)
    with pytest.raises(WrongState, match="has reached its time limit"):
        change(box, job_id, time_limit_s=90)
    assert change(box, job_id, time_limit_s=50).time_limit_s == 50


def test_the_next_attempt_has_what_was_changed(box: Any) -> None:
    job_id = running(box, time_limit_s=60)
    change(box, job_id, time_limit_s=90)
    cancel(box.ctx, job_id, box.user)
    box.launcher.end(job_id, Outcome.CANCELLED)
    agent = box.agents[0]
    agent.run_once()
    retry(box.ctx, job_id, box.user)
    agent.wake()
    agent.run_once()
    assert box.launcher.order_of(job_id).spec["time_limit_s"] == 90


def test_what_people_are_told_goes_by_the_new_limit(box: Any) -> None:
    job_id = running(box, time_limit_s=600)
    running(box, by=BOB, time_limit_s=600)
    waits = box.submit("train", gpus=1, by=BOB)
    start = box.queries.why(waits)["estimated_start"]
    change(box, job_id, time_limit_s=60)
    assert box.queries.why(waits)["estimated_start"] < start

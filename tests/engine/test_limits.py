"""Limits of users, groups and arrays: who waits for them, and that nobody else does."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.engine.actions.groups import limit_group
from gpuq.engine.intake.submit import submit
from gpuq.engine.queries.group_report import report
from gpuq.errors import Forbidden, Refused

BOB = Caller("bob", uid=1001, gid=1001)


def flood(world: Any, count: int, **fields: Any) -> list[int]:
    """Jobs of alice, submitted together."""
    spec = JobSpec.parse({"command": ["train"], "cwd": "/", **fields})
    return [job.id for job in submit(world.ctx, [spec] * count, world.user)]


def active(world: Any, jobs: list[int]) -> list[int]:
    return [job for job in jobs if world.state(job) in {"starting", "running"}]


def turn(world: Any, agent: Any) -> None:
    agent.wake()
    agent.run_once()


@pytest.mark.parametrize(
    ("settings", "most"), [({"user_max_running": 3}, 3), ({"user_max_gpus": 2}, 2)], ids=["jobs", "gpus"]
)
def test_a_thousand_jobs_of_a_user_at_his_limit_hide_nobody(make_world: Any, settings: Any, most: int) -> None:
    world = make_world("sim:8", **settings)
    his = flood(world, 1000)
    hers = world.submit("train", by=BOB)
    world.agent().run_once()
    assert len(active(world, his)) == most
    assert world.state(hers) == "starting"


def test_a_job_submitted_behind_a_flood_at_its_limit_starts_at_the_next_turn(make_world: Any) -> None:
    world = make_world("sim:8", user_max_running=3)
    his = flood(world, 1000)
    agent = world.agent()
    agent.run_once()
    hers = [world.submit("train", by=BOB), world.submit("train", gpus=2, by=BOB)]
    turn(world, agent)
    assert [world.state(job) for job in hers] == ["starting", "starting"]
    assert len(active(world, his)) == 3


def test_a_limit_on_big_jobs_does_not_hide_another_size(make_world: Any) -> None:
    world = make_world("sim:8", user_max_gpus=5)
    flood(world, 1000, gpus=4)
    small = flood(world, 1000)
    agent = world.agent()
    agent.run_once()
    assert len(active(world, small)) == 1
    hers = world.submit("train", gpus=3, by=BOB)
    turn(world, agent)
    assert world.state(hers) == "starting"


def test_many_users_at_their_limits_hide_nobody(make_world: Any) -> None:
    world = make_world("sim:16", user_max_running=1)
    spec = JobSpec.parse({"command": ["train"], "cwd": "/"})
    for n in range(6):
        submit(world.ctx, [spec] * 200, Caller(f"user{n}", uid=2000 + n, gid=2000))
    last = world.submit("train", by=BOB)
    world.agent().run_once()
    assert world.state(last) == "starting"
    with world.ctx.records.read() as tx:
        assert len(tx.live_attempts()) == 7


def test_an_array_at_its_limit_hides_nobody(make_world: Any) -> None:
    world = make_world("sim:8")
    elements = flood(world, 1, array="0-499%2")
    after = world.submit("train")
    world.agent().run_once()
    with world.ctx.records.read() as tx:
        assert len(tx.live_attempts()) == 3
    assert world.state(after) == "starting"
    assert elements


def test_the_next_of_his_jobs_starts_when_one_has_ended(make_world: Any) -> None:
    world = make_world("sim:8", user_max_running=2)
    his = flood(world, 300)
    agent = world.agent()
    agent.run_once()
    assert active(world, his) == his[:2]
    world.launcher.run(his[0])
    agent.run_once()
    world.launcher.end(his[0], Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert active(world, his) == his[1:3]


def test_why_names_the_limit_and_the_others_get_an_estimate(make_world: Any) -> None:
    world = make_world("sim:2", user_max_running=1)
    his = flood(world, 1200)
    running = world.submit("train", by=BOB)
    agent = world.agent()
    agent.run_once()
    assert world.state(running) == "starting"
    waits = world.submit("train", by=BOB)
    told = world.queries.why(his[1])["reason"]
    assert told == {"code": "UserLimit", "text": "alice has 1 of at most 1 jobs running"}
    hers = world.queries.why(waits)
    assert hers["reason"]["code"] == "UserLimit"
    assert hers["estimated_start"] is not None


def test_all_three_limits_of_a_user_hold_together(make_world: Any) -> None:
    world = make_world("sim:8", user_max_gpus=4, user_max_running=3, user_max_waiting=5)
    jobs = [world.submit("train", gpus=3), world.submit("train", gpus=2), world.submit("train")]
    agent = world.agent()
    agent.run_once()
    # 3 + 2 GPUs are too many, 3 + 1 are not.
    assert active(world, jobs) == [jobs[0], jobs[2]]
    assert "3 of at most 4" not in world.queries.why(jobs[1])["reason"]["text"]
    assert "holds 4 of at most 4 GPUs" in world.queries.why(jobs[1])["reason"]["text"]
    cpu = [world.submit("prepare", gpus=0) for _ in range(2)]
    turn(world, agent)
    assert active(world, cpu) == cpu[:1]
    for _ in range(3):
        world.submit("train")
    with pytest.raises(Refused, match="as many waiting jobs as it may"):
        world.submit("train")
    assert world.submit("train", by=BOB)


def test_a_group_runs_at_most_as_many_jobs_as_it_may(make_world: Any) -> None:
    world = make_world("sim:8")
    limit_group(world.ctx, "nightly", 2, world.admin)
    his = flood(world, 500, group="nightly")
    hers = world.submit("train", group="nightly", by=BOB)
    other = world.submit("train", group="daily")
    free = world.submit("train")
    agent = world.agent()
    agent.run_once()
    assert active(world, his) == his[:2]
    assert [world.state(job) for job in (hers, other, free)] == ["queued", "starting", "starting"]
    told = world.queries.why(hers)["reason"]
    set_by = "(`gpuq limit group nightly`, set by root)"
    assert told == {"code": "UserLimit", "text": f"group nightly has 2 of at most 2 jobs running {set_by}"}
    assert report(world.ctx) == [
        {"group": "daily", "running": 1, "waiting": 0, "limit": None, "limited_by": None},
        {"group": "nightly", "running": 2, "waiting": 499, "limit": 2, "limited_by": "root"},
    ]


def test_a_raised_limit_is_heard_at_once_and_survives_a_restart(make_world: Any) -> None:
    world = make_world("sim:8")
    limit_group(world.ctx, "nightly", 1, world.admin)
    his = flood(world, 10, group="nightly")
    agent = world.agent()
    agent.run_once()
    assert "1 of at most 1" in world.queries.why(his[5])["reason"]["text"]
    limit_group(world.ctx, "nightly", 3, world.admin)
    agent.turn(0.0)
    assert len(active(world, his)) == 3
    assert "3 of at most 3" in world.queries.why(his[5])["reason"]["text"]
    world.agents.pop().stop()
    world.ctx = world.open()
    agent = world.agent()
    agent.run_once()
    assert len(active(world, his)) == 3
    limit_group(world.ctx, "nightly", 0, world.admin)
    agent.turn(0.0)
    assert len(active(world, his)) == 8


def test_only_an_administrator_limits_a_group(world: Any) -> None:
    with pytest.raises(Forbidden, match="limit a group"):
        limit_group(world.ctx, "nightly", 2, world.user)
    assert report(world.ctx) == []

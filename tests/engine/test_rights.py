"""Rights that are not about whose job it is: the highest priority, and how far forward an owner may move a job."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.caller import Caller, Scope
from gpuq.engine.actions.bulk import run_many
from gpuq.engine.actions.change import TOP, top, update
from gpuq.errors import Forbidden

BOB = Caller("bob", uid=1001, gid=1001)


def line(world: Any) -> list[int]:
    with world.ctx.records.read() as tx:
        return [job.id for job in tx.line()]


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world("sim:4", user_priority="normal")


def test_a_priority_above_the_highest_is_refused_on_submission_and_on_update(world: Any) -> None:
    for priority in ("critical", "high", 1):
        with pytest.raises(Forbidden, match="the highest for alice is normal"):
            world.submit("x", priority=priority)
    job_id = world.submit("x", priority="low")
    assert line(world) == [job_id]
    with pytest.raises(Forbidden, match="priority high is for administrators"):
        update(world.ctx, job_id, world.user, {"priority": "high"})
    assert update(world.ctx, job_id, world.user, {"priority": "normal"}).priority.label == "normal"
    assert world.job(world.submit("x", by=world.admin, priority="critical")).priority.label == "critical"


def test_who_was_given_a_priority_may_still_change_the_job(world: Any) -> None:
    job_id = world.submit("x")
    update(world.ctx, job_id, world.admin, {"priority": "critical"})
    changed = update(world.ctx, job_id, world.user, {"priority": "critical", "name": "other"})
    assert (changed.priority.label, changed.name) == ("critical", "other")


def test_a_token_without_the_scope_leaves_an_administrator_no_priority_of_his_own(world: Any) -> None:
    bound = Caller("root", 0, 0, admin=False, scope=Scope.SUBMIT)
    with pytest.raises(Forbidden) as refusal:
        world.submit("x", by=bound, priority="high")
    assert "`admin`" in (refusal.value.hint or "")


@pytest.mark.parametrize(("limit", "most"), [(1.0, 30.0), (30.0, 30.0), (600.0, 600.0)])
def test_a_short_limit_with_a_long_grace_is_no_way_to_the_front(world: Any, limit: float, most: float) -> None:
    """With a limit of a second it would stand first in line, and end a day after it."""
    for grace in (most + 1, 86400.0):
        with pytest.raises(Forbidden, match=f"at most {most:g} s of grace, not {grace:g}"):
            world.submit("x", time_limit_s=limit, kill_grace_s=grace)
    job_id = world.submit("x", time_limit_s=limit, kill_grace_s=most)
    other = world.submit("x", kill_grace_s=86400.0)
    for job, changes in ((job_id, {"kill_grace_s": most + 1}), (other, {"time_limit_s": limit})):
        with pytest.raises(Forbidden, match="of grace"):
            update(world.ctx, job, world.user, changes)
    assert update(world.ctx, other, world.user, {"time_limit_s": limit, "kill_grace_s": most}).time_limit_s == limit
    # An administrator may, and the owner may change other things of that job then.
    update(world.ctx, job_id, world.admin, {"kill_grace_s": 86400.0})
    assert update(world.ctx, job_id, world.user, {"name": "other"}).name == "other"


def test_an_owner_moves_a_job_before_his_own_and_past_nobody_elses(world: Any) -> None:
    jobs = []
    for by in (BOB, world.user, BOB, world.user, BOB, world.user):
        jobs.append(world.submit("x", by=by))
        # Less than the second by which an administrator's move overtakes.
        world.clock.forward(0.001)
    bob1, own1, bob2, own2, bob3, own3 = jobs
    top(world.ctx, own3, world.user)
    assert line(world) == [bob1, own3, own1, bob2, own2, bob3]
    top(world.ctx, own2, world.user)
    assert line(world) == [bob1, own2, own3, own1, bob2, bob3]
    top(world.ctx, own2, world.user)
    top(world.ctx, own1, world.user)
    assert line(world) == [bob1, own1, own2, own3, bob2, bob3]
    assert [entry.job_id for entry in world.ctx.queue.heads(9)] == line(world)
    top(world.ctx, own3, world.admin)
    assert line(world)[0] == own3


def test_a_hundred_moves_pass_nobody_else(world: Any) -> None:
    first = world.submit("x", by=BOB)
    world.clock.forward(0.001)
    own = [world.submit("x") for _ in range(3)]
    for n in range(100):
        top(world.ctx, own[n % 3], world.user)
        assert line(world)[0] == first


def test_among_jobs_of_one_moment_nobody_else_is_passed(world: Any) -> None:
    own1, bob1, own2, bob2, own3 = (
        world.submit("x", by=by) for by in (world.user, BOB, world.user, BOB, world.user)
    )  # fmt: skip
    top(world.ctx, own3, world.user)
    assert line(world) == [own3, own1, bob1, own2, bob2]
    for job_id in (own1, own2, own3):
        update(world.ctx, job_id, world.user, {"priority": "low"})
    low = world.submit("x", by=BOB, priority="low")
    later = world.submit("x", priority="low")
    top(world.ctx, later, world.user)
    others = [job_id for job_id in line(world) if job_id in {bob1, bob2, low}]
    assert others == [bob1, bob2, low]


def test_a_held_job_of_somebody_else_keeps_its_place_too(world: Any) -> None:
    held = world.submit("x", by=BOB, hold=True)
    world.clock.forward(0.002)
    own1, own2 = world.submit("x"), world.submit("x")
    top(world.ctx, own2, world.user)
    assert line(world) == [own2, own1]
    assert world.job(held).score < world.job(own2).score


def test_many_moved_by_their_owner_stand_one_before_the_other(world: Any) -> None:
    bob = world.submit("x", by=BOB)
    world.clock.forward(0.001)
    own = [world.submit("x") for _ in range(4)]
    run_many(world.ctx, own[1:], world.user, TOP)
    assert line(world) == [bob, own[3], own[2], own[1], own[0]]

"""The rule of the line, and what becomes of those who wait when it changes."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.spec import JobSpec
from gpuq.engine.actions.change import top, update
from gpuq.engine.intake.submit import submit
from gpuq.engine.maintenance.rehydrate import rehydrate
from gpuq.engine.snapshot.builder import HEADS
from gpuq.scheduler.overtaking import PATIENCE_S

DAY = 86400.0


def restart_with(world: Any, **settings: Any) -> None:
    """The daemon comes up again with other settings."""
    world.settings = world.settings.model_copy(update=settings)
    world.ctx = world.open()
    rehydrate(world.ctx)


def line(world: Any) -> list[int]:
    """As the hot queue has it, which SQL must confirm."""
    found = [entry.job_id for entry in world.ctx.queue.heads(100)]
    with world.ctx.records.read() as tx:
        assert [job.id for job in tx.line()] == found
    return found


def test_priorities_are_strict_unless_ageing_is_on(world: Any) -> None:
    old = world.submit("train", priority="low")
    world.clock.forward(30 * DAY)
    new = world.submit("train")
    assert line(world) == [new, old]


def test_with_ageing_a_job_that_waited_long_enough_passes_a_higher_priority(make_world: Any) -> None:
    world = make_world(priority_aging=DAY)
    old = world.submit("train", priority="low")
    world.clock.forward(DAY - 60)
    soon = world.submit("train")
    world.clock.forward(120)
    late = world.submit("train")
    assert line(world) == [soon, old, late]


def test_turning_ageing_on_gives_those_who_wait_new_places(world: Any) -> None:
    old = world.submit("train", priority="low")
    held = world.submit("train", priority="low", hold=True)
    world.clock.forward(2 * DAY)
    new = world.submit("train")
    assert line(world) == [new, old]
    restart_with(world, priority_aging=DAY)
    assert line(world) == [old, new]
    # A job outside the line has its new place, too, and a later one is measured by the same rule.
    assert world.job(held).score < world.job(new).score
    later = world.submit("train", priority="high")
    assert line(world) == [old, later, new]


def test_turning_ageing_off_again_makes_priorities_strict(make_world: Any) -> None:
    world = make_world(priority_aging=DAY)
    jobs = [world.submit("train", priority=priority, time_limit_s=60) for priority in ("low", "low", "high")]
    world.clock.forward(5 * DAY)
    last = world.submit("train", priority="high", time_limit_s=60)
    assert line(world) == [*sorted(jobs, key=lambda job: world.job(job).score), last]
    assert line(world)[0] == jobs[2]
    before = world.job(jobs[0]).score
    restart_with(world, priority_aging=None)
    assert line(world) == [jobs[2], last, jobs[0], jobs[1]]
    restart_with(world, priority_aging=DAY)
    assert abs(world.job(jobs[0]).score - before) < 0.001


def test_another_order_reorders_those_who_wait(world: Any) -> None:
    long = world.submit("train", time_limit_s=7200)
    world.clock.forward(1)
    short = world.submit("train", time_limit_s=60)
    assert line(world) == [short, long]
    restart_with(world, order="fifo")
    assert line(world) == [long, short]
    restart_with(world, order="aged")
    assert line(world) == [short, long]


def test_a_job_moved_to_the_front_stays_there_when_the_rule_changes(world: Any) -> None:
    jobs = [world.submit("train") for _ in range(3)]
    top(world.ctx, jobs[2], world.user)
    restart_with(world, priority_aging=DAY)
    assert line(world) == [jobs[2], jobs[0], jobs[1]]


def test_a_process_with_other_settings_follows_the_rule_in_force(make_world: Any) -> None:
    world = make_world(priority_aging=DAY)
    first = world.submit("train")
    # A client of the database with settings of its own does not rebuild the queue, it only adds to it.
    world.settings = world.settings.model_copy(update={"priority_aging": None, "order": "fifo"})
    other = world.open()
    spec = JobSpec.parse({"command": ["train"], "cwd": "/"})
    [second] = submit(other, [spec], Caller("alice", uid=1000, gid=1000))
    assert second.score == world.job(first).score
    changed = update(other, second.id, Caller("alice", uid=1000, gid=1000), {"priority": "low"})
    assert changed.score == world.job(first).score + DAY


def test_with_spacing_a_flood_leaves_room_for_anothers_first_job(make_world: Any) -> None:
    world = make_world(user_spacing=900.0)
    flood = [world.submit("train") for _ in range(3)]
    spec = JobSpec.parse({"command": ["sweep"], "cwd": "/", "array": "0-1"})
    flood += [job.id for job in submit(world.ctx, [spec, spec], world.user)]
    world.clock.forward(1200)
    hers = world.submit("train", by=Caller("bob", uid=1001, gid=1001))
    assert line(world) == [*flood[:2], hers, *flood[2:]]
    scores = [world.job(job).score for job in flood]
    assert [later - scores[0] for later in scores] == [900.0 * n for n in range(7)]
    # A new priority and back again is no way past others.
    for priority in ("high", "normal"):
        update(world.ctx, flood[6], world.user, {"priority": priority})
    assert line(world) == [*flood[:2], hers, *flood[2:]]


def test_without_spacing_nobody_stands_later_for_others_of_his_own(world: Any) -> None:
    flood = [world.submit("train") for _ in range(3)]
    assert len({world.job(job).score for job in flood}) == 1


def test_the_agent_starts_by_the_new_places(make_world: Any) -> None:
    world = make_world("sim:1")
    old = world.submit("train", priority="low")
    world.clock.forward(2 * DAY)
    new = world.submit("train")
    restart_with(world, priority_aging=DAY)
    world.agent().run_once()
    assert (world.state(old), world.state(new)) == ("starting", "queued")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("gpus", "patience"), [(4, PATIENCE_S), (3, 2 * PATIENCE_S)])
def test_who_has_outwaited_its_patience_starts_first_however_many_are_ahead(
    make_world: Any, gpus: int, patience: float, late: bool
) -> None:
    world = make_world("sim:4")
    old = world.submit("train", gpus=gpus, time_limit_s=90 * DAY)
    world.clock.forward(patience + (60.0 if late else -60.0))
    spec = JobSpec.parse({"command": ["train"], "cwd": "/", "gpus": gpus, "time_limit_s": 60})
    young = [job.id for job in submit(world.ctx, [spec] * (HEADS + 1), world.user)]
    assert line(world).index(old) > HEADS
    world.agent().run_once()
    started = [job for job in (old, *young) if world.state(job) == "starting"]
    assert started == [old if late else young[0]]

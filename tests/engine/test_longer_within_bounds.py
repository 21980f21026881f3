"""A running job is made longer by its owner only as far as what an administrator has set lets him."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.engine.actions.change import update, update_many
from gpuq.engine.actions.drain_window import cancel_drain, plan_drain
from gpuq.engine.actions.limits import set_limits
from gpuq.errors import Refused

HOUR = 3600.0


@pytest.fixture
def box(make_world: Any) -> Any:
    world = make_world("sim:2")
    world.agent()
    return world


def running(world: Any, **fields: Any) -> int:
    job_id: int = world.submit("train", time_limit_s=HOUR, **fields)
    for _ in range(2):
        world.agents[0].wake()
        world.agents[0].run_once()
        if world.state(job_id) == "starting":
            world.launcher.run(job_id)
    assert world.state(job_id) == "running"
    return job_id


def change(world: Any, job_id: int, by: Caller | None = None, **changes: Any) -> float | None:
    job = update(world.ctx, job_id, by or world.user, changes, world.queries.first_delayed)
    limit: float | None = job.time_limit_s
    return limit


def test_a_running_job_gets_no_longer_than_the_longest_time_limit_of_its_user_and_group(box: Any) -> None:
    job_id = running(box)
    set_limits(box.ctx, "user", "alice", {"time_s": 4 * HOUR}, box.admin)
    set_limits(box.ctx, "group", "night", {"time_s": 2 * HOUR}, box.admin)
    assert change(box, job_id, time_limit_s=3 * HOUR) == 3 * HOUR
    for asked in (
        {"time_add_s": 2 * HOUR},
        {"time_limit_s": None},
        {"time_limit_s": 3.5 * HOUR, "group": "night"},
    ):
        with pytest.raises(Refused, match=r"are allowed .`gpuq limit (user alice|group night)`, set by root"):
            change(box, job_id, **asked)
    set_limits(box.ctx, "user", "alice", {"time_s": 1 * HOUR}, box.admin)
    assert change(box, job_id, time_limit_s=2.5 * HOUR) == 2.5 * HOUR, "shorter is always allowed"
    assert change(box, job_id, by=box.admin, time_add_s=2 * HOUR) == 4.5 * HOUR


def test_one_that_a_limit_keeps_from_running_longer_does_not_count_against_the_next(box: Any) -> None:
    night, plain = running(box, group="night"), running(box)
    box.submit("train", by=Caller("bob", uid=1001, gid=1001))
    set_limits(box.ctx, "group", "night", {"time_s": HOUR}, box.admin)
    done = update_many(box.ctx, [night, plain], box.user, {"time_limit_s": 2 * HOUR}, box.queries.first_delayed)
    # Whoever waits can have the GPU of the first.
    assert [one.error is None for one in done] == [False, True]


def test_a_running_job_does_not_get_longer_into_a_planned_drain(box: Any) -> None:
    job_id, other = running(box), running(box, preemptible=True)
    start = box.clock.now()
    plan_drain(box.ctx, box.admin, start + 2 * HOUR, until=start + 4 * HOUR)
    assert change(box, job_id, time_limit_s=1.5 * HOUR) == 1.5 * HOUR, "it ends before"
    for asked in (3 * HOUR, 9 * HOUR, None):
        with pytest.raises(Refused, match="a drain is planned for") as refused:
            change(box, job_id, time_limit_s=asked)
    assert "administrator" in (refused.value.hint or "")
    assert change(box, other, time_limit_s=9 * HOUR) == 9 * HOUR, "it makes room when the drain begins"
    assert change(box, job_id, by=box.admin, time_limit_s=3 * HOUR) == 3 * HOUR
    box.clock.forward(2.5 * HOUR)
    with pytest.raises(Refused, match="a drain is planned for"):
        change(box, job_id, time_limit_s=3.5 * HOUR)
    cancel_drain(box.ctx, box.admin)
    assert change(box, job_id, time_limit_s=3.5 * HOUR) == 3.5 * HOUR


def test_a_drain_concerns_the_jobs_on_its_gpus_while_they_would_be_over_before_its_end(box: Any) -> None:
    jobs = running(box), running(box)
    with box.ctx.records.read() as tx:
        on = {attempt.gpu_uuids: job.id for job, attempt in tx.live_attempts()}
    gpu = box.ctx.gpus.inventory()[0]
    inside = on[(gpu.uuid,)]
    [outside] = set(jobs) - {inside}
    start = box.clock.now()
    plan_drain(box.ctx, box.admin, start + 1.5 * HOUR, until=start + 3 * HOUR, gpus=[gpu.index])
    assert change(box, outside, time_limit_s=2 * HOUR) == 2 * HOUR
    with pytest.raises(Refused, match="a drain is planned for"):
        change(box, inside, time_limit_s=2 * HOUR)
    change(box, inside, by=box.admin, time_limit_s=3 * HOUR)
    assert change(box, inside, time_limit_s=4 * HOUR) == 4 * HOUR, "it lasts for the whole drain anyhow"

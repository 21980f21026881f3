"""`gpuq limit`: what an administrator sets counts from the next turn on, survives, and is told."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.limits import UNLIMITED
from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.engine.actions.change import update
from gpuq.engine.actions.groups import limit_group
from gpuq.engine.actions.limits import set_limits
from gpuq.engine.intake.submit import submit
from gpuq.engine.queries.limit_report import report
from gpuq.errors import Forbidden, Refused, UsageError
from gpuq.stores.sql.core.rows import Prepared

BOB = Caller("bob", uid=1001, gid=1001)
MIN_RUN = 300.0


def turn(world: Any, agent: Any, forward: float = 0.0) -> None:
    world.clock.forward(forward)
    agent.wake()
    agent.run_once()


def flood(world: Any, count: int, **fields: Any) -> list[int]:
    spec = JobSpec.parse({"command": ["train"], "cwd": "/", **fields})
    return [job.id for job in submit(world.ctx, [spec] * count, world.user)]


def active(world: Any, jobs: list[int]) -> list[int]:
    return [job for job in jobs if world.state(job) in {"starting", "running"}]


def changes(world: Any) -> list[tuple[Any, ...]]:
    question = 'SELECT actor, kind, name, "limit", before, after FROM limit_changes ORDER BY id'
    return list(world.ctx.history.query(question)[1])


def shown(world: Any, **whose: Any) -> dict[tuple[str, str], tuple[Any, ...]]:
    rows = report(world.ctx, {"alice"}, **whose)
    return {(f"{row['kind']} {row['name']}".strip(), row["what"]): (row["limit"], row["used"]) for row in rows}


def test_a_limit_counts_from_the_next_turn_on_after_a_restart_too_and_is_told(make_world: Any) -> None:
    world = make_world("sim:8", user_max_gpus=6)
    agent = world.agent()
    set_limits(world.ctx, "default", "", {"gpus": 3, "running": 9}, world.admin)
    his = flood(world, 10)
    hers = world.submit("train", by=BOB)
    agent.run_once()
    assert active(world, his) == his[:3]
    assert world.state(hers) == "starting"
    reason = world.queries.why(his[3])["reason"]
    assert reason["code"] == "UserLimit"
    assert reason["text"].endswith("holds 3 of at most 3 GPUs and asks for 1 (`gpuq limit default`, set by root)")
    set_limits(world.ctx, "user", "alice", {"gpus": 5}, world.admin)
    agent.run_once()
    assert active(world, his) == his[:5]
    agent.stop()
    again = world.open()
    world.ctx = again
    world.agent().run_once()
    assert active(world, his) == his[:5]
    # Lifted for her alone, until it is removed: then the default counts, and without one the setting.
    for wanted, most in ((UNLIMITED, None), (None, 3.0)):
        set_limits(world.ctx, "user", "alice", {"gpus": wanted}, world.admin)
        assert shown(world)["user alice", "gpus"] == (most, 5)
    set_limits(world.ctx, "default", "", {"gpus": None}, world.admin)
    rows = report(world.ctx, {"alice"}, user="alice")
    [told] = [(row["limit"], row["source"], row["set_for"]) for row in rows if row["what"] == "gpus"]
    assert told == (6, "setting", "GPUQ_USER_MAX_GPUS")
    assert changes(world) == [
        ("root", "default", "", "gpus", None, "3"),
        ("root", "default", "", "running", None, "9"),
        ("root", "user", "alice", "gpus", None, "5"),
        ("root", "user", "alice", "gpus", "5", "unlimited"),
        ("root", "user", "alice", "gpus", "unlimited", None),
        ("root", "default", "", "gpus", "3", None),
    ]


def test_a_limit_that_is_set_counts_in_place_of_the_setting_for_who_asks_for_more_gpus(make_world: Any) -> None:
    world = make_world("sim:8", user_max_gpus=2)
    small = world.submit("train", time_limit_s=60)
    with pytest.raises(Refused, match="GPUQ_USER_MAX_GPUS"):
        world.submit("train", gpus=4)
    with pytest.raises(Refused, match="GPUQ_USER_MAX_GPUS"):
        update(world.ctx, small, world.user, {"gpus": 4})
    set_limits(world.ctx, "user", "alice", {"gpus": 4}, world.admin)
    [big] = flood(world, 1, gpus=4)
    update(world.ctx, small, world.user, {"gpus": 4})
    agent = world.agent()
    agent.run_once()
    assert len(active(world, [small, big])) == 1
    set_limits(world.ctx, "user", "alice", {"gpus": UNLIMITED}, world.admin)
    [huge] = flood(world, 1, gpus=8)
    # It waits while less is set, for that may change.
    set_limits(world.ctx, "user", "alice", {"gpus": 1}, world.admin)
    turn(world, agent)
    assert world.queries.why(huge)["reason"]["code"] == "UserLimit"


def test_only_an_administrator_changes_limits_and_nonsense_changes_nothing(world: Any) -> None:
    for kind in ("user", "group", "default"):
        with pytest.raises(Forbidden):
            set_limits(world.ctx, kind, "alice", {"gpus": 9}, world.user)
    for wanted in ({"cards": 1}, {"gpu_hours": 3}, {"window_s": 7200.0}, {"gpu_hours": 3, "window_s": 60.0}):
        with pytest.raises(UsageError):
            set_limits(world.ctx, "user", "alice", wanted, world.admin)
    assert changes(world) == []
    assert report(world.ctx, {"alice"}) == []


def test_a_limit_on_running_jobs_of_a_group_is_one_with_either_command(make_world: Any) -> None:
    world = make_world("sim:8")
    limit_group(world.ctx, "night", 2, world.admin)
    set_limits(world.ctx, "group", "night", {"gpus": 3}, world.admin)
    assert shown(world) == {("group night", "gpus"): (3, 0), ("group night", "running"): (2, 0)}
    his = flood(world, 3, group="night")
    big = flood(world, 1, group="night", gpus=2)
    agent = world.agent()
    agent.run_once()
    assert active(world, his + big) == his[:2]
    set_limits(world.ctx, "group", "night", {"running": None}, world.admin)
    agent.run_once()
    # 3 + 2 GPUs are too many.
    assert active(world, his + big) == his
    assert "group night holds 3 of at most 3 GPUs" in world.queries.why(big[0])["reason"]["text"]
    assert [row[3:] for row in changes(world)] == [("running", None, "2"), ("gpus", None, "3"), ("running", "2", None)]


def test_waiting_jobs_of_a_user_and_a_group_are_counted_at_submission(make_world: Any) -> None:
    world = make_world("sim:1", user_max_waiting=9)
    set_limits(world.ctx, "default", "", {"waiting": 3}, world.admin)
    set_limits(world.ctx, "group", "night", {"waiting": 1}, world.admin)
    flood(world, 1, group="night")
    with pytest.raises(Refused, match="group night has as many waiting jobs as it may") as refused:
        flood(world, 1, group="night")
    assert "gpuq limit group night" in refused.value.message
    flood(world, 2)
    with pytest.raises(Refused, match="you have as many waiting jobs as it may"):
        flood(world, 1)
    world.submit("train", by=BOB)
    set_limits(world.ctx, "user", "alice", {"waiting": 4}, world.admin)
    flood(world, 1)
    assert shown(world)["user alice", "waiting"] == (4, 4)


def test_the_longest_time_limit_is_given_to_who_declares_none_and_nobody_has_more(world: Any) -> None:
    set_limits(world.ctx, "user", "alice", {"time_s": 86400.0}, world.admin)
    set_limits(world.ctx, "group", "night", {"time_s": 3600.0}, world.admin)
    plain, short, night = world.submit("a"), world.submit("a", time_limit_s=60), world.submit("a", group="night")
    assert [world.job(job).time_limit_s for job in (plain, short, night)] == [86400.0, 60.0, 3600.0]
    for asked in ({"time_limit_s": 86401}, {"time_limit_s": 3601, "group": "night"}):
        with pytest.raises(Refused, match="gpuq limit"):
            world.submit("a", **asked)
    for limit in (90000, None):
        with pytest.raises(Refused, match="gpuq limit user alice"):
            update(world.ctx, short, world.user, {"time_limit_s": limit})
    update(world.ctx, short, world.user, {"time_limit_s": 86400})
    update(world.ctx, short, world.admin, {"time_limit_s": 90000})
    assert world.job(world.submit("a", by=BOB)).time_limit_s is None


def run(world: Any, agent: Any, *jobs: int) -> None:
    turn(world, agent)
    for job in jobs:
        world.launcher.run(job)
    agent.run_once()
    assert [world.state(job) for job in jobs] == ["running"] * len(jobs)


def test_over_the_gpu_hours_jobs_run_on_idle_gpus_and_yield_to_others(make_world: Any) -> None:
    world = make_world("sim:2")
    agent = world.agent()
    set_limits(world.ctx, "default", "", {"gpu_hours": 2.0, "window_s": 86400.0}, world.admin)
    first = world.submit("train", gpus=2)
    run(world, agent, first)
    # Half an hour of two GPUs, then another hour of one: the limit is reached while it runs.
    world.clock.forward(1800.0)
    world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert shown(world)["user alice", "gpu_hours"] == (2.0, 1.0)
    second = world.submit("train")
    run(world, agent, second)
    waiting = world.submit("train", gpus=2)
    turn(world, agent, 3599.0)
    assert world.queries.why(waiting)["reason"]["code"] == "Resources"
    turn(world, agent, 40.0)
    reason = world.queries.why(waiting)["reason"]
    assert reason["code"] == "UserLimit"
    assert "alice has used 2.0 of 2 GPU-hours within 1d (`gpuq limit default`, set by root)" in reason["text"]
    # Nobody else wants the other GPU.
    idle = world.submit("train")
    turn(world, agent)
    assert world.state(idle) == "starting"
    world.launcher.run(idle)
    turn(world, agent, 1.0)
    hers = world.submit("train", gpus=2, by=BOB)
    turn(world, agent, MIN_RUN)
    assert [world.state(job) for job in (second, idle)] == ["stopping", "stopping"]
    for job in (second, idle):
        world.launcher.end(job, Outcome.PREEMPTED)
    agent.run_once()
    assert [world.state(job) for job in (second, idle, waiting, hers)] == ["queued", "queued", "queued", "starting"]
    assert world.job(second).retries_used == 0
    # A day and an hour later nothing of it counts any more.
    world.launcher.run(hers)
    world.launcher.end(hers, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    turn(world, agent, 91_000.0)
    turn(world, agent)
    assert world.state(waiting) == "starting"
    assert world.queries.why(second)["reason"]["code"] == "Resources"


def test_an_end_that_is_not_written_yet_counts_as_used(make_world: Any) -> None:
    world = make_world("sim:1")
    agent = world.agent()
    set_limits(world.ctx, "user", "alice", {"gpu_hours": 1.0, "window_s": 86400.0}, world.admin)
    first = world.submit("train")
    run(world, agent, first)
    mine, hers = world.submit("train"), world.submit("train", by=BOB)
    world.clock.forward(3600.0)
    world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)
    # The end is written with the start that follows it, and that is not alice's next job.
    turn(world, agent)
    assert [world.state(job) for job in (mine, hers)] == ["queued", "starting"]


def test_a_thousand_jobs_over_the_gpu_hours_hide_nobody(make_world: Any) -> None:
    world = make_world("sim:4")
    set_limits(world.ctx, "user", "alice", {"gpu_hours": 0, "window_s": 3600.0}, world.admin)
    his = flood(world, 1000)
    hers = [world.submit("train", by=BOB) for _ in range(3)]
    agent = world.agent()
    agent.run_once()
    assert [world.state(job) for job in hers] == ["starting"] * 3
    # And nobody is locked out.
    assert active(world, his) == his[:1]


def test_used_gpu_seconds_are_summed_where_an_attempt_ends(make_world: Any) -> None:
    """Whatever ends it; what had no GPU or never ran is none."""
    world = make_world("sim:4")
    agent = world.agent()
    gpu, cpu, shared = world.submit("a", gpus=2, group="night"), world.submit("a", gpus=0), world.submit("a")
    never = world.submit("a")
    run(world, agent, gpu, cpu, shared)
    world.clock.forward(100.0)
    world.launcher.end(gpu, Outcome.SUCCEEDED, exit_code=0)
    world.launcher.end(cpu, Outcome.SUCCEEDED, exit_code=0)
    world.launcher.end(shared, Outcome.SIGNAL, signal=9)
    world.launcher.end(never, Outcome.LAUNCH_ERROR)
    agent.run_once()
    now = world.clock.now()
    with world.ctx.records.read() as tx:
        assert tx.gpu_seconds(now) == {("alice", "night"): 200.0, ("alice", None): 100.0}
        assert tx.gpu_seconds(now + 3600) == {}
    gone = world.ctx.history.query("SELECT sum(gpu_seconds) FROM attempt_history")[1]
    assert float(gone[0][0]) == 300.0


def test_limits_cost_no_statement_of_a_submission_and_one_reading_of_the_sums_between_ends(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("sim:4")
    agent = world.agent()
    asked: list[str] = []
    called = Prepared.__call__

    def counting(self: Any, driver: Any, values: Any = None) -> Any:
        asked.append(self.text)
        return called(self, driver, values)

    monkeypatch.setattr(Prepared, "__call__", counting)
    world.submit("train")
    without = [text for text in asked if text.startswith("SELECT key, value")]
    set_limits(world.ctx, "default", "", {"gpu_hours": 5, "window_s": 7 * 86400.0}, world.admin)
    asked.clear()
    world.submit("train")
    assert [text for text in asked if text.startswith("SELECT key, value")] == without
    assert len(without) == 1
    for _ in range(3):
        turn(world, agent)
    assert sum("gpu_seconds" in text for text in asked) == 1

"""What `gpuq report` adds up, to the second, on a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.domain.times import iso
from gpuq.engine.queries.reports import KINDS, report
from gpuq.engine.queries.utilization import DAY_S
from gpuq.errors import UsageError

BOB = Caller("bob", uid=1001, gid=1001)
MIDNIGHT = 20_000 * DAY_S


def rows(
    world: Any, kind: str, by: str, since: float | None = None, until: float | None = None
) -> list[dict[str, Any]]:
    columns, found = report(world.ctx, kind, by, since, until)
    assert columns[0] in {by.split(",")[0], "gpus"}
    return [dict(zip(columns, row, strict=True)) for row in found]


@pytest.fixture
def past(make_world: Any) -> Any:
    """On two GPUs: alice held both for an hour and bob's job of group g failed on the first for half an hour, after a
    wait of 600 s; alice's next one begins then and runs."""
    world = make_world("sim:2")
    world.clock.time = MIDNIGHT - 1800.0
    wide = world.submit("a", gpus=2)
    agent = world.agent()
    agent.wake()
    agent.run_once()
    world.launcher.run(wide)
    agent.run_once()
    world.clock.forward(3000)
    failing = world.submit("b", by=BOB, group="g", max_retries=0, gpu_ids=[0])
    world.clock.forward(600)
    world.launcher.end(wide, Outcome.SUCCEEDED, exit_code=0)
    agent.tracked[0].utilisation[:] = [0.25, 0.75]
    agent.run_once()
    world.launcher.run(failing)
    agent.run_once()
    world.clock.forward(1800)
    world.launcher.end(failing, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    runs = world.submit("c")
    agent.wake()
    agent.run_once()
    world.launcher.run(runs)
    agent.run_once()
    world.clock.forward(900)
    return world


def test_usage_is_the_time_of_runs_times_their_gpus_of_those_that_run_up_to_now(past: Any) -> None:
    by_user = {row["user"]: row for row in rows(past, "usage", "user")}
    assert {user: (r["jobs"], r["attempts"], r["gpu_hours"], r["run_hours"]) for user, r in by_user.items()} == {
        "alice": (2, 2, 2.25, 1.25),
        "bob": (1, 1, 0.5, 0.5),
    }
    assert [row["group"] for row in rows(past, "usage", "group")] == ["-", "g"]
    assert {row["gpu"]: row["gpu_hours"] for row in rows(past, "usage", "gpu")} == {0: 1.75, 1: 1.0}
    assert [(row["day"], row["gpu_hours"]) for row in rows(past, "usage", "day")] == [(iso(MIDNIGHT)[:10], 2.75)]
    ended_later = rows(past, "usage", "user", MIDNIGHT + 2000)
    assert [(row["user"], row["gpu_hours"]) for row in ended_later] == [("bob", 0.5), ("alice", 0.25)]


def test_a_window_ends_where_until_says(past: Any) -> None:
    first = rows(past, "usage", "user", None, MIDNIGHT + 2000)
    assert [(row["user"], row["gpu_hours"]) for row in first] == [("alice", 2.0)]
    assert rows(past, "usage", "user", past.clock.now() + 1) == []
    assert [row["user"] for row in rows(past, "failures", "user", None, MIDNIGHT + 2000)] == ["alice"]
    assert [row["jobs"] for row in rows(past, "waits", "user", None, MIDNIGHT)] == [1]
    # Up to midnight: half an hour of both GPUs.
    assert [
        (row["user"], row["gpu_hours"], row["share_of_capacity"])
        for row in rows(past, "utilization", "user", None, MIDNIGHT)
    ] == [("alice", 1.0, 1.0)]


def test_a_report_has_a_row_for_each_combination_of_several_keys(past: Any) -> None:
    day = iso(MIDNIGHT)[:10]
    found = rows(past, "usage", "user,day,gpu")
    assert [(row["user"], row["day"], row["gpu"], row["gpu_hours"]) for row in found] == [
        ("alice", day, 0, 1.25),
        ("alice", day, 1, 1.0),
        ("bob", day, 0, 0.5),
    ]
    assert [(row["user"], row["gpus"], row["jobs"]) for row in rows(past, "waits", "user,gpu")] == [
        ("alice", 1, 1),
        ("alice", 2, 1),
        ("bob", 1, 1),
    ]
    assert [(row["group"], row["user"]) for row in rows(past, "failures", "group,user")] == [
        ("-", "alice"),
        ("g", "bob"),
    ]
    with pytest.raises(UsageError, match="one thing"):
        report(past.ctx, "utilization", "user,day", None)


def test_waits_are_from_submission_to_start(past: Any) -> None:
    by_user = {row["user"]: row for row in rows(past, "waits", "user")}
    assert by_user["bob"] == {
        "user": "bob", "jobs": 1, "mean_s": 600.0, "median_s": 600.0, "p95_s": 600.0, "max_s": 600.0,
    }  # fmt: skip
    assert [(row["gpus"], row["jobs"]) for row in rows(past, "waits", "gpu")] == [(1, 2), (2, 1)]
    days = [iso(MIDNIGHT - DAY_S)[:10], iso(MIDNIGHT)[:10]]
    assert [row["day"] for row in rows(past, "waits", "day")] == days
    assert [(row["user"], row["jobs"]) for row in rows(past, "waits", "user", MIDNIGHT)] == [("alice", 1), ("bob", 1)]


def test_failures_are_the_share_of_all_ends_that_were_not_wished_for(past: Any) -> None:
    found = rows(past, "failures", "user")
    assert [(row["user"], row["attempts"], row["failed_share"], row["exit_nonzero"]) for row in found] == [
        ("bob", 1, 1.0, 1),
        ("alice", 1, 0.0, 0),
    ]
    assert "succeeded" not in found[0]
    assert {"cancelled", "preempted", "lost"} < set(found[0])
    assert {row["gpu"]: row["failed_share"] for row in rows(past, "failures", "gpu")} == {0: 0.5, 1: 0.0}


def test_utilization_is_the_part_of_all_gpus_that_was_held_since(past: Any) -> None:
    # 6300 s since the first start, of which 3600 were of both GPUs, 1800 of one and 900 of one that runs still.
    by_user = rows(past, "utilization", "user")
    assert by_user == [
        {"user": "alice", "gpu_hours": 2.25, "share_of_capacity": 0.643, "mean_gpu_util": 0.5},
        {"user": "bob", "gpu_hours": 0.5, "share_of_capacity": 0.143, "mean_gpu_util": None},
    ]
    assert [(row["group"], row["gpu_hours"]) for row in rows(past, "utilization", "group")] == [("-", 2.25), ("g", 0.5)]
    by_gpu = {row["gpu"]: (row["gpu_hours"], row["share_of_capacity"]) for row in rows(past, "utilization", "gpu")}
    assert by_gpu == {"0": (1.75, 1.0), "1": (1.0, 0.571)}
    # The last 3600 s: 900 of them both GPUs, 1800 one, 900 one.
    recent = rows(past, "utilization", "user", past.clock.now() - 3600)
    assert [(row["user"], row["gpu_hours"], row["share_of_capacity"]) for row in recent] == [
        ("alice", 0.75, 0.375),
        ("bob", 0.5, 0.25),
    ]


def test_a_day_ends_at_midnight_for_who_held_gpus_and_for_how_many_there_were(past: Any) -> None:
    found = rows(past, "utilization", "day")
    assert [(row["day"], row["gpu_hours"], row["share_of_capacity"]) for row in found] == [
        (iso(MIDNIGHT - DAY_S)[:10], 1.0, 1.0),
        (iso(MIDNIGHT)[:10], 1.75, 0.7),
    ]
    assert [row["mean_gpu_util"] for row in found] == [0.5, 0.5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["user", "group", "gpu", "day"])
def test_a_report_of_nothing_is_a_table_without_rows(world: Any, kind: str, by: str) -> None:
    for job_without_gpus_ran in (False, True):
        if job_without_gpus_ran and kind == "utilization":
            started = world.submit("a", gpus=0)
            agent = world.agent()
            agent.run_once()
            world.launcher.run(started)
            agent.run_once()
            world.clock.forward(100)
        assert rows(world, kind, by) == []


@pytest.mark.parametrize(("kind", "by", "told"), [("all", "user", "unknown report 'all'"), ("usage", "moon", "'moon'")])
def test_a_report_or_a_grouping_that_there_is_not_is_refused(world: Any, kind: str, by: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        report(world.ctx, kind, by, None)

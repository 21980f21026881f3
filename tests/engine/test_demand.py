"""Who has what in the queue, as `/metrics` tells it: right, bounded, and counted seldom where that takes long."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.priority import Priority
from gpuq.engine.queries.demand import OTHER, DemandQuery, UserTotal, bounded

BOB = Caller("bob", uid=1001, gid=1001)


def counted(world: Any, monkeypatch: pytest.MonkeyPatch, cost_s: float = 0.0) -> list[str]:
    """The statements that the history is asked, each of which takes `cost_s`."""
    asked: list[str] = []
    real = world.ctx.history.query

    def query(statement: str) -> Any:
        asked.append(statement)
        world.clock.forward(cost_s)
        return real(statement)

    monkeypatch.setattr(world.ctx.history, "query", query)
    return asked


def test_jobs_and_gpus_are_counted_by_user_and_what_waits_by_priority(make_world: Callable[..., Any]) -> None:
    world = make_world()
    query = DemandQuery(world.ctx)
    nobody = query.ask()
    assert (nobody.users, set(nobody.waiting.values())) == ({}, {0})
    agent = world.agent()
    first = world.submit("x", gpus=3)
    agent.wake()
    agent.run_once()
    world.launcher.run(first)
    agent.run_once()
    world.submit("x", gpus=2, priority=Priority.HIGH)
    world.submit("x", gpus=2, by=BOB)
    world.submit("x", by=BOB, hold=True)
    found = query.ask()
    assert found.users == {world.user.user: UserTotal(1, 1, 3), "bob": UserTotal(0, 2, 0)}
    assert found.waiting == {Priority.CRITICAL: 0, Priority.HIGH: 1, Priority.NORMAL: 2, Priority.LOW: 0}


def test_nothing_is_counted_again_before_something_has_happened(
    make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    asked = counted(world, monkeypatch)
    query = DemandQuery(world.ctx)
    query.ask()
    assert asked == []
    world.submit("x")
    query.ask()
    query.ask()
    assert len(asked) == 1
    world.submit("x")
    assert query.ask().users[world.user.user].waiting == 2
    assert len(asked) == 2


def test_what_takes_long_to_count_is_counted_seldom(
    make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    asked = counted(world, monkeypatch, cost_s=0.01)
    query = DemandQuery(world.ctx)
    for _ in range(6):
        world.submit("x")
        query.ask()
        world.clock.forward(3.0)
    assert len(asked) == 2
    world.clock.forward(10.0)
    assert query.ask().users[world.user.user].waiting == 6


def test_however_long_it_takes_it_is_counted_again_within_minutes(
    make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    asked = counted(world, monkeypatch, cost_s=30.0)
    query = DemandQuery(world.ctx)
    for _ in range(3):
        world.submit("x")
        query.ask()
        world.clock.forward(150.0)
    assert len(asked) == 2


def test_what_waits_is_counted_without_walking_through_the_history(grown_url: str) -> None:
    import sqlite3
    from types import SimpleNamespace

    from gpuq.stores.sql import open_history, open_records

    records, history = open_records(grown_url), open_history(grown_url)
    asked: list[str] = []
    ctx: Any = SimpleNamespace(
        records=records,
        clock=SimpleNamespace(monotonic=lambda: 0.0),
        history=SimpleNamespace(query=lambda statement: (asked.append(statement), history.query(statement))[1]),
    )
    found = DemandQuery(ctx).ask()
    assert sum(found.waiting.values()) == 300 == sum(total.waiting for total in found.users.values())
    [statement] = asked
    with sqlite3.connect(grown_url.removeprefix("sqlite:///")) as connection:
        plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement)]
    connection.close()
    assert [step for step in plan if step.startswith("SCAN")] == []
    assert any("ix_jobs_state" in step for step in plan)
    records.close()
    history.database.close()


def test_of_many_users_those_who_hold_most_stand_by_name_and_nothing_is_lost() -> None:
    users = {f"user{n}": UserTotal(running=n % 7, waiting=n, gpus=n % 11) for n in range(200)}
    users["most"] = UserTotal(1, 0, 64)
    names = list(users)
    random.Random(1).shuffle(names)
    found = bounded({name: users[name] for name in names}, 50)
    assert len(found) == 50
    assert found == bounded(users, 50)
    assert found["most"] == users["most"]
    for part in ("running", "waiting", "gpus"):
        assert sum(getattr(total, part) for total in found.values()) == sum(getattr(t, part) for t in users.values())


def test_an_account_that_is_called_other_is_one_of_the_others() -> None:
    users = {"other": UserTotal(1, 1, 9), "alice": UserTotal(1, 0, 8), "bob": UserTotal(0, 1, 0)}
    assert bounded(users, 2) == {OTHER: UserTotal(2, 2, 17)}
    assert users["other"] == UserTotal(1, 1, 9)
    assert bounded(users, 3) == users

"""Submissions that are stored in one transaction: each as if it came alone, after those before it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.spec import JobSpec
from gpuq.engine.intake.request import Asked, Submitted
from gpuq.engine.intake.submit import store_together
from gpuq.engine.intake.to_agent import tell_all
from gpuq.errors import DatabaseUnavailable, NotFound, Refused, TooLarge, UsageError

BOB = Caller("bob", uid=1001, gid=1001)


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"command": ["train"], "cwd": "/", **fields})


def ids(outcome: Submitted | Exception) -> list[int]:
    assert isinstance(outcome, Submitted), outcome
    return outcome.ids


def stored(world: Any) -> list[int]:
    with world.ctx.records.read() as tx:
        return sorted(row[0] for row in tx.queued())


def test_several_are_one_transaction_and_each_has_its_own_jobs(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    write = world.ctx.records.write
    monkeypatch.setattr(world.ctx.records, "write", lambda: (begun.append("write"), write())[1])
    asked = [Asked([spec()], world.user), Asked([spec(), spec()], BOB), Asked([spec()], world.user)]
    assert [ids(outcome) for outcome in store_together(world.ctx, asked)] == [[1], [2, 3], [4]]
    assert begun == ["write"]
    assert [world.job(job_id).user for job_id in stored(world)] == ["alice", "bob", "bob", "alice"]
    assert world.story(3) == ["queued"]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"after": [99]}, NotFound),
        ({"priority": "critical"}, Exception),
        ({"cwd": "relative"}, UsageError),
        ({"command": ["x" * 3_000_000]}, TooLarge),
        ({"gpus": 9}, Exception),
    ],
)
def test_a_refusal_undoes_its_own_alone(make_world: Any, bad: dict[str, Any], error: type[Exception]) -> None:
    world = make_world("sim:4", user_priority="high")
    asked = [Asked([spec()], world.user), Asked([spec(), spec(**bad), spec()], world.user), Asked([spec()], world.user)]
    first, refused, last = store_together(world.ctx, asked)
    assert isinstance(refused, error)
    assert not isinstance(refused, Submitted)
    assert getattr(refused, "index", None) == 1
    assert stored(world) == sorted([*ids(first), *ids(last)])
    with world.ctx.records.read() as tx:
        assert [event.job_id for event in tx.events()] == stored(world)


def test_what_was_written_of_a_refused_one_is_undone(world: Any) -> None:
    def leave() -> None:
        raise Refused("nobody waits for an answer")

    asked = [
        Asked([spec()], world.user),
        Asked([spec(after=[]), spec(key="k")], world.user, "request", "f", leave),
        Asked([spec(key="k")], world.user, "request", "g"),
    ]
    first, gone, last = store_together(world.ctx, asked)
    assert isinstance(gone, Refused)
    assert stored(world) == [*ids(first), *ids(last)]
    with world.ctx.records.read() as tx:
        request = tx.request("alice", "request")
        assert request is not None
        assert (request.job_ids, request.fingerprint) == (ids(last), "g")


def test_limits_are_seen_in_order(make_world: Any) -> None:
    world = make_world("sim:4", user_max_waiting=2, max_waiting=4)
    asked = [Asked([spec()], each) for each in (world.user, BOB, world.user, world.user, BOB, Caller("carol"))]
    outcomes = store_together(world.ctx, asked)
    assert [isinstance(outcome, Submitted) for outcome in outcomes] == [True, True, True, False, True, False]
    assert "you have as many" in str(outcomes[3])
    assert "the queue holds" in str(outcomes[5])


def test_a_request_that_comes_twice_at_once_is_stored_once(world: Any) -> None:
    asked = [Asked([spec()], world.user, "k", fingerprint) for fingerprint in ("f", "f", "other")]
    asked.append(Asked([spec()], BOB, "k", "other"))
    first, again, other, of_bob = store_together(world.ctx, asked)
    assert ids(first) == ids(again) == [1]
    assert isinstance(other, Refused)
    assert ids(of_bob) == [2]
    assert stored(world) == [1, 2]


def test_a_key_that_comes_twice_at_once_names_one_job(world: Any) -> None:
    first, again = store_together(world.ctx, [Asked([spec(key="k")], world.user) for _ in range(2)])
    assert ids(first) == ids(again) == stored(world)


def test_a_commit_that_fails_stores_nothing_of_any(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write = world.ctx.records.write

    @contextlib.contextmanager
    def failing() -> Iterator[Any]:
        with write() as tx:
            yield tx
            raise DatabaseUnavailable("the disk is full")

    monkeypatch.setattr(world.ctx.records, "write", failing)
    with pytest.raises(DatabaseUnavailable):
        store_together(world.ctx, [Asked([spec()], world.user), Asked([spec()], BOB)])
    assert stored(world) == []


def test_a_database_that_goes_away_in_between_stores_nothing_of_any(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise DatabaseUnavailable("the connection was lost")

    with pytest.raises(DatabaseUnavailable):
        store_together(world.ctx, [Asked([spec()], world.user), Asked([spec()], BOB, before_commit=away)])
    assert stored(world) == []


def test_all_of_them_are_told_at_once(world: Any, make_world: Callable[..., Any]) -> None:
    topics: list[str] = []
    agent = world.agent()
    agent.run_once()
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    asked = [Asked([spec(gpus=1)], world.user), Asked([spec(hold=True)], BOB), Asked([spec(gpus=1)], BOB)]
    outcomes = store_together(world.ctx, asked)
    tell_all(world.ctx, [outcome for outcome in outcomes if isinstance(outcome, Submitted)], agent)
    assert topics == ["events"]
    agent.turn(0.0)
    assert [world.state(job_id) for job_id in (1, 2, 3)] == ["starting", "held", "starting"]

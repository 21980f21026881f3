"""The queue with a line for each array: what it shows, and that what is read for it does not grow with the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from world import World

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.engine.actions import hold
from gpuq.engine.queries import array_lines
from gpuq.ports.records import JobFilter

ROOT = Caller("root", 0, 0, True)


def lines(world: World, limit: int = 50, user: str | None = None) -> tuple[list[int], dict[int, Any]]:
    with world.ctx.records.read() as tx:
        seen, arrays = world.queries.lumped(tx, limit=limit, where=JobFilter(user=user))
    return [job.id for job, _ in seen], dict(arrays)


def counts(world: World, array: int) -> dict[str, int]:
    return dict(lines(world)[1][array])


def test_an_array_is_one_line_and_what_stands_behind_it_is_seen(world: World) -> None:
    array = world.submit("sweep", array="0-299")
    behind = [world.submit("after") for _ in range(3)]
    assert lines(world, limit=10)[0] == [array, *behind]
    assert counts(world, array) == {
        "waiting": 300, "active": 0, "completed": 0, "failed": 0, "cancelled": 0, "first_index": 0, "last_index": 299,
    }  # fmt: skip
    # Elements that somebody holds stand apart from the line, and are in the same line of the list.
    hold.hold(world.ctx, array + 1, ROOT)
    hold.hold(world.ctx, array, ROOT)
    assert lines(world, limit=10)[0] == [array + 2, *behind]
    assert lines(world, limit=2)[0] == [array + 2, behind[0]]
    with world.ctx.records.read() as tx:
        user = tx.job(array).user
    assert lines(world, user=user) == lines(world)
    assert lines(world, user="nobody") == ([], {})


def test_elements_that_run_have_lines_of_their_own_and_those_that_ended_are_counted(world: World) -> None:
    array = world.submit("sweep", array="5-24", max_retries=0)
    agent = world.agent()
    agent.run_once()
    for element in range(array, array + 4):
        world.launcher.run(element)
    agent.run_once()
    assert lines(world)[0] == [*range(array, array + 4), array + 4]
    world.launcher.end(array, Outcome.SUCCEEDED, exit_code=0)
    world.launcher.end(array + 1, Outcome.EXIT_NONZERO, exit_code=3)
    agent.run_once()
    world.clock.forward(60)
    found = counts(world, array)
    assert (found["completed"], found["failed"]) == (1, 1)
    assert found["waiting"] + found["active"] == 18
    assert found["last_index"] == 24
    assert found["first_index"] == 5 + 20 - found["waiting"]


@pytest.mark.parametrize("elements", [300, 3000])
def test_as_little_is_read_of_a_long_array_as_of_a_short_one(
    world: World, monkeypatch: pytest.MonkeyPatch, elements: int
) -> None:
    read: list[int] = []
    page: Callable[..., list[Any]] = array_lines.queue_page

    def counted(*given: Any) -> list[Any]:
        found = page(*given)
        read.append(len(found))
        return found

    monkeypatch.setattr(array_lines, "queue_page", counted)
    for _ in range(3):
        world.submit("sweep", array=f"0-{elements - 1}")
    last = world.submit("last")
    assert lines(world)[0][-1] == last
    assert read == [50, 50, 50, 1]


def test_elements_apart_from_each_other_are_read_so_far_and_no_further(make_world: Callable[..., World]) -> None:
    world = make_world(user_spacing=60.0)
    array = world.submit("sweep", array="0-199")
    assert lines(world, limit=5)[0] == [array]


def test_an_array_is_counted_again_only_when_something_has_happened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = world.submit("sweep", array="0-9")
    asked: list[int] = []
    queries = world.queries
    with world.ctx.records.read() as tx:
        kind = type(tx)
    count = kind.array_counts
    monkeypatch.setattr(kind, "array_counts", lambda tx, array: asked.append(array) or count(tx, array))
    for _ in range(3):
        with world.ctx.records.read() as tx:
            queries.lumped(tx, limit=50)
    assert asked == [array]
    hold.hold(world.ctx, array, ROOT)
    world.clock.forward(60)
    with world.ctx.records.read() as tx:
        queries.lumped(tx, limit=50)
    assert asked == [array, array]


def test_the_queue_is_narrowed_by_user_group_name_and_state(world: World) -> None:
    plain = world.submit("a", name="a")
    mine = world.submit("b", name="b", group="nlp")
    array = world.submit("c", name="c", group="nlp", array="0-9")
    held = world.submit("b", name="b", group="nlp")
    hold.hold(world.ctx, held, ROOT)

    def found(**filters: Any) -> tuple[list[int], list[int], int]:
        where = JobFilter(**filters)
        with world.ctx.records.read() as tx:
            seen, _ = world.queries.lumped(tx, limit=50, where=where)
            pages = [job.id for page in world.queries.queue_pages(tx, limit=None, where=where) for job, _ in page]
            return [job.id for job, _ in seen], pages, world.queries.queue(tx, where=where).total

    elements = list(range(array, array + 10))
    assert found() == ([plain, mine, array, held], [plain, mine, *elements, held], 13)
    assert found(group="nlp") == ([mine, array, held], [mine, *elements, held], 12)
    assert found(name="b") == ([mine, held], [mine, held], 2)
    assert found(group="nlp", states=frozenset({JobState.QUEUED}))[0] == [mine, array]
    assert found(states=frozenset({JobState.HELD})) == ([held], [held], 1)
    assert found(states=frozenset({JobState.RUNNING})) == ([], [], 0)
    with world.ctx.records.read() as tx:
        tail = [
            job.id
            for page in world.queries.queue_pages(tx, limit=5, after_id=array + 7, where=JobFilter(group="nlp"))
            for job, _ in page
        ]
    assert tail == [array + 8, array + 9, held]

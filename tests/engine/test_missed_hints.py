"""Redis takes no writes for a while, or does not answer: jobs that were queued meanwhile are not forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpuq.engine.file_lock import FileLock
from gpuq.engine.maintenance.rehydrate import Reconciler
from gpuq.engine.maintenance.timers import Maintenance
from gpuq.errors import HotStoreUnavailable


@pytest.fixture
def make_maintenance(world: Any) -> Iterator[Callable[[], Maintenance]]:
    """Maintenance of this world; its tasks run on threads of their own once it is started."""
    made: list[Maintenance] = []

    def make() -> Maintenance:
        made.append(Maintenance(world.ctx, FileLock(world.settings.home / "maintain.lock", "maintenance")))
        made[-1].start()
        return made[-1]

    yield make
    for maintenance in made:
        maintenance.stop()


def out_of_memory(*_: object) -> None:
    raise HotStoreUnavailable("Redis is out of memory and takes no writes")


def heads(world: Any) -> list[int]:
    return [entry.job_id for entry in world.ctx.queue.heads(5)]


def test_a_job_submitted_while_redis_takes_no_writes_is_seen_when_it_does_again(
    world: Any, make_maintenance: Callable[[], Maintenance], monkeypatch: pytest.MonkeyPatch
) -> None:
    maintenance = make_maintenance()
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.queue, "add", out_of_memory)
        job_id = world.submit("train")
        assert heads(world) == []
        maintenance.rebuild_if_cold()
        assert heads(world) == []
    maintenance.rebuild_if_cold()
    assert heads(world) == [job_id]


def test_a_job_whose_lease_could_not_be_given_back_is_seen_again(
    world: Any, make_maintenance: Callable[[], Maintenance], monkeypatch: pytest.MonkeyPatch
) -> None:
    maintenance = make_maintenance()
    job_id = world.submit("train")
    take = world.ctx.leases.take

    def take_and_lose_the_answer(*given: Any) -> None:
        take(*given)
        raise HotStoreUnavailable("Redis did not answer in time")

    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.leases, "take", take_and_lose_the_answer)
        world.agent().run_once()
    assert (world.state(job_id), heads(world)) == ("queued", [])
    maintenance.rebuild_if_cold()
    assert heads(world) == [job_id]


def test_a_difference_between_the_stores_is_in_doubt_until_a_second_look(world: Any) -> None:
    reconciler = Reconciler(world.ctx)
    reconciler.run()
    assert not reconciler.in_doubt
    job_id = world.submit("train")
    world.ctx.queue.remove([(job_id, 1)])
    reconciler.run()
    assert reconciler.in_doubt
    reconciler.run()
    assert (reconciler.in_doubt, heads(world)) == (False, [job_id])

"""Verbs where a setting decides: graces, spacing, how long a request is remembered."""

from __future__ import annotations

from typing import Any

from gpuq.domain.spec import JobSpec
from gpuq.engine.actions.bulk import run_many
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.change import top, update
from gpuq.engine.actions.hold import HOLD
from gpuq.engine.intake.submit import submit
from gpuq.engine.maintenance.retain import retain
from gpuq.errors import Forbidden, NotFound


def test_a_cancel_without_a_grace_gives_the_jobs_own_or_the_installations(make_world: Any) -> None:
    world = make_world("sim:2", kill_grace=45)
    agent = world.agent()
    own, general = world.submit("run", kill_grace_s=12), world.submit("run")
    agent.wake()
    agent.run_once()
    for job_id, grace in ((own, 12), (general, 45)):
        cancel(world.ctx, job_id, world.user)
        assert (world.launcher.stops[-1]["grace_s"], world.job(job_id).stop_deadline) == (
            grace,
            world.clock.now() + grace,
        )


def test_an_update_keeps_the_distance_that_spacing_or_nothing_gave(make_world: Any) -> None:
    world = make_world("sim:1", user_spacing=100.0)
    first, second = world.submit("a"), world.submit("a")
    for job_id in (first, second):
        score = world.job(job_id).score
        update(world.ctx, job_id, world.user, {"time_limit_s": 8 * 3600.0})
        assert world.job(job_id).score == score
        update(world.ctx, job_id, world.user, {"time_limit_s": 3600.0})
        assert world.job(job_id).score == score - 10 * 7 * 3600
    # One that was moved ahead has the place that it would have had from the start.
    top(world.ctx, second, world.user)
    update(world.ctx, second, world.user, {"time_limit_s": 3600.0})
    assert world.job(second).score == world.job(first).score


def test_a_request_key_is_kept_for_two_days_and_no_longer(world: Any) -> None:
    def ask() -> int:
        return submit(world.ctx, [JobSpec.parse({"command": ["x"], "cwd": "/"})], world.user, request_key="k")[0].id

    first = ask()
    world.clock.forward(2 * 86400 - 1)
    retain(world.ctx)
    assert ask() == first
    world.clock.forward(2)
    retain(world.ctx)
    assert ask() != first


def test_many_jobs_are_held_each_once_and_told_of_and_a_refusal_keeps_no_other_from_it(world: Any) -> None:
    mine, other = world.submit("a"), world.submit("a", by=world.admin)
    told: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: told.append(str(topic)))
    done = run_many(world.ctx, [mine, other, 99, mine], world.user, HOLD)
    assert [(one.job_id, one.state, type(one.error)) for one in done] == [
        (mine, "held", type(None)),
        (other, None, Forbidden),
        (99, None, NotFound),
    ]
    assert told == ["events"]
    assert [entry.job_id for entry in world.ctx.queue.heads(9)] == [other]


def test_an_empty_line_counts_nothing(world: Any) -> None:
    with world.ctx.records.read() as tx:
        view = world.queries.queue(tx)
        assert list(world.queries.queue_pages(tx, limit=None)) == []
    assert (view.running, view.queued, view.waiting, view.total) == (0, 0, 0, 0)

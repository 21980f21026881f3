"""How long things are kept: forecasts, backoffs, dead letters; and what a clock that is set changes of it."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.pause import pause
from gpuq.engine.maintenance import promote as promotion
from gpuq.engine.maintenance import timers
from gpuq.engine.maintenance.promote import promote, shorten_backoffs
from gpuq.engine.maintenance.retain import retain
from gpuq.engine.node_lock import FileLock
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.queries.forecast_cache import FORECAST_MAX_AGE_S, ForecastCache


@pytest.fixture
def cache(world: Any) -> ForecastCache:
    return ForecastCache(world.ctx, AgentLiveness(world.ctx))


def test_a_forecast_is_kept_for_half_a_minute_while_nothing_happens(world: Any, cache: ForecastCache) -> None:
    world.submit("a")
    first = cache.picture()
    assert first.at == world.clock.now()
    assert cache.picture() is first
    world.clock.forward(FORECAST_MAX_AGE_S - 0.5)
    assert cache.picture() is first
    world.clock.forward(0.5)
    second = cache.picture()
    assert second is not first
    assert second.at == world.clock.now()


def test_an_event_and_a_switch_make_a_new_forecast(world: Any, cache: ForecastCache) -> None:
    first = cache.picture()
    job_id = world.submit("a")
    second = cache.picture()
    assert (first.known, second.known) == (frozenset(), frozenset({job_id}))
    pause(world.ctx, world.admin)
    assert cache.picture().snapshot.paused == "the queue is paused by root"


def test_a_forecast_that_was_dear_serves_ten_times_as_long_as_it_took(
    world: Any, cache: ForecastCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = world.ctx.run_times.refresh

    def slow(seconds: float) -> Any:
        def run() -> None:
            world.clock.forward(seconds)
            refresh()

        return run

    monkeypatch.setattr(world.ctx.run_times, "refresh", slow(0.04))
    quick = cache.picture()
    job = world.job(world.submit("a"))
    assert cache.picture() is quick
    # Made anew for the one that is asked about, since that is cheap.
    monkeypatch.setattr(world.ctx.run_times, "refresh", slow(2.0))
    dear = cache.picture(job)
    assert dear.known == {job.id}
    other = world.job(world.submit("a"))
    assert cache.picture(other) is dear
    world.clock.forward(17.5)
    assert cache.picture(other) is dear
    world.clock.forward(1)
    assert cache.picture(other).known == {job.id, other.id}


@pytest.mark.parametrize(("used_mb", "peak"), [(500, None), (600, None), (601, 1), (5600, 5000)])
def test_what_the_driver_itself_uses_is_no_peak_of_a_job(make_world: Any, used_mb: int, peak: int | None) -> None:
    world = make_world("sim:1x24G")
    job_id = world.submit("a")
    agent = world.agent()
    agent.wake()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    pid = world.launcher.launched_of(job_id).pid
    world.driver_says({0: {"used_mb": used_mb, "processes": [{"pid": pid, "mem_mb": None}]}})
    world.clock.forward(10)
    agent.run_once()
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    with world.ctx.records.read() as tx:
        assert tx.attempts(job_id)[0].peak_gpu_mem_mb == peak


@pytest.mark.parametrize(("seconds", "asked"), [(1.9, 0), (-1.9, 0), (2.1, 7), (-2.1, 7), (-7200, 7)])
def test_every_task_is_due_when_the_clock_was_set_and_none_when_it_drifts(
    world: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, asked: int
) -> None:
    maintenance = timers.Maintenance(world.ctx, FileLock(world.settings.home / "maintain.lock", "maintenance"))
    tasks: list[str] = []
    monkeypatch.setattr(maintenance, "_soon", tasks.append)
    world.clock.forward(100)
    maintenance.follow_clock()
    assert tasks == []
    world.clock.jump(seconds)
    maintenance.follow_clock()
    assert len(tasks) == asked
    maintenance.follow_clock()
    assert len(tasks) == asked


def fails(world: Any, *jobs: int) -> None:
    agent = world.agents[0] if world.agents else world.agent()
    agent.wake()
    agent.run_once()
    for job_id in jobs:
        world.launcher.run(job_id)
    agent.run_once()
    for job_id in jobs:
        world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    assert {world.state(job_id) for job_id in jobs} <= {"failed", "delayed"}


def test_a_backoff_is_shortened_when_the_clock_was_set_back_and_a_begin_time_is_not(make_world: Any) -> None:
    world = make_world("sim:2", retry_base=10.0, retry_quick=True)
    again, later = world.submit("a"), world.submit("a", begin=world.clock.now() + 9000)
    fails(world, again)
    due, begin = world.job(again).eligible_at, world.job(later).eligible_at
    assert shorten_backoffs(world.ctx) == 0
    assert world.job(again).eligible_at == due
    world.clock.jump(-3600)
    assert shorten_backoffs(world.ctx) == 1
    assert 0 < world.job(again).eligible_at - world.clock.now() <= 30
    assert world.job(later).eligible_at == begin


def test_the_oldest_dead_letters_beyond_the_cap_and_the_days_are_dropped(make_world: Any) -> None:
    world = make_world("sim:4", dlq_max=2, dlq_days=10.0)
    jobs = []
    for _ in range(3):
        world.clock.forward(1)
        jobs.append(world.submit("a", max_retries=0))
        fails(world, jobs[-1])

    def letters() -> list[int]:
        with world.ctx.records.read() as tx:
            return [letter.job_id for letter in tx.dead_letters()]

    assert letters() == jobs[::-1]
    assert (retain(world.ctx), letters()) == (1, [jobs[2], jobs[1]])
    # The older one is exactly ten days old now.
    world.clock.forward(10 * 86400 - 1)
    assert (retain(world.ctx), letters()) == (0, [jobs[2], jobs[1]])
    world.clock.forward(0.5)
    assert (retain(world.ctx), letters()) == (1, [jobs[2]])
    world.clock.forward(1)
    assert (retain(world.ctx), letters()) == (1, [])


def test_all_that_are_due_are_promoted_and_the_next_moment_is_told(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "BATCH", 2)
    now = world.clock.now()
    due = [world.submit("a", begin=now + 1) for _ in range(4)]
    later = world.submit("a", begin=now + 9)
    assert promote(world.ctx) == now + 1
    world.clock.forward(1)
    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    assert promote(world.ctx) == now + 9
    assert [world.state(job_id) for job_id in (*due, later)] == ["queued"] * 4 + ["delayed"]
    assert sorted(entry.job_id for entry in world.ctx.queue.heads(9)) == due
    assert topics == ["queue", "events"] * 2
    with world.ctx.records.read() as tx:
        event = tx.events(job_id=due[0])[-1]
    assert (event.actor, event.at, event.detail) == ("gpuq", now + 1, "its time has come")
    world.clock.forward(8)
    assert promote(world.ctx) is None

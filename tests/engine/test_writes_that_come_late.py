"""Guarded writes whose job has moved on: nothing is written for it, and the others are not kept from theirs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.attempt.updates import record_limits_reached, record_outgrown, record_started
from gpuq.engine.claim.leased import Leased, give_back, release, take_leases
from gpuq.engine.claim.preempt import preempt
from gpuq.engine.hot.queue_hints import publish_jobs, unpublish_jobs
from gpuq.engine.maintenance.promote import promote, shorten_backoffs
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.maintenance.rehydrate import Reconciler
from gpuq.engine.snapshot.builder import SnapshotBuilder
from gpuq.errors import HotStoreCold, HotStoreUnavailable
from gpuq.ports.hot_queue import QueueEntry
from gpuq.scheduler.snapshot import Start


def turn(world: Any) -> Any:
    agent = world.agents[0] if world.agents else world.agent()
    agent.wake()
    agent.run_once()
    return agent


def running(world: Any, *jobs: int) -> list[Any]:
    """The attempts of these jobs, in their order."""
    turn(world)
    for job_id in jobs:
        world.launcher.run(job_id)
    agent = turn(world)
    assert {world.state(job_id) for job_id in jobs} == {"running"}
    found = {tracked.job.id: tracked for tracked in agent.tracked}
    return [found[job_id] for job_id in jobs]


def topics_of(world: Any) -> list[str]:
    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    return topics


def details(world: Any, job_id: int) -> list[str | None]:
    with world.ctx.records.read() as tx:
        return [event.detail for event in tx.events(job_id=job_id)]


def no_redis(*_: object) -> None:
    raise HotStoreUnavailable("Redis does not answer")


def test_of_two_starts_the_one_of_an_attempt_that_is_not_live_is_left_out(world: Any) -> None:
    stale, good = world.submit("a"), world.submit("a")
    agent = turn(world)
    found = {tracked.job.id: tracked for tracked in agent.tracked}
    for job_id in (stale, good):
        world.launcher.run(job_id)
        found[job_id].launched = world.launcher.launched_of(job_id)
    other = replace(found[stale], token="of another attempt")
    topics = topics_of(world)
    record_started(world.ctx, [other, found[good]])
    assert (world.state(stale), world.state(good)) == ("starting", "running")
    assert (other.start_recorded, found[good].start_recorded, topics) == (True, True, ["events"])


def test_a_time_limit_is_shown_when_it_is_reached_and_once(make_world: Any) -> None:
    world = make_world("sim:4", kill_grace=45)
    limited, own, unlimited = world.submit("a", time_limit_s=60), world.submit("a", time_limit_s=60), world.submit("a")
    attempts = running(world, limited, own, unlimited)
    begun = world.clock.now()
    world.clock.forward(59.9)
    record_limits_reached(world.ctx, attempts)
    assert world.state(limited) == "running"
    topics = topics_of(world)
    world.clock.forward(0.1)
    record_limits_reached(world.ctx, attempts[:1])
    job = world.job(limited)
    assert (str(job.state), job.stop_reason, job.stop_deadline) == ("stopping", "time_limit", begun + 60 + 45)
    assert (details(world, limited)[-1], topics) == ("time limit reached", ["stops", "events"])
    assert (attempts[0].stopping, world.state(unlimited), world.state(own)) == (True, "running", "running")
    # The supervisor stops it by itself.
    assert world.launcher.stops == []
    record_limits_reached(world.ctx, attempts[:1])
    assert topics == ["stops", "events"]


def test_a_time_limit_of_a_job_that_was_cancelled_first_is_not_shown(world: Any) -> None:
    job_id, other = world.submit("a", time_limit_s=60), world.submit("a", time_limit_s=60)
    attempts = running(world, job_id, other)
    world.clock.forward(60)
    cancel(world.ctx, job_id, world.user, grace_s=5)
    before = details(world, job_id)
    topics = topics_of(world)
    record_limits_reached(world.ctx, attempts)
    assert details(world, job_id) == before
    assert (world.job(job_id).stop_reason, world.job(other).stop_reason) == ("cancel", "time_limit")
    assert topics == ["stops", "events"]


def test_an_attempt_that_is_not_live_any_more_has_outgrown_nothing(make_world: Any) -> None:
    world = make_world("sim:2x24G")
    job_id, other = world.submit("a", gpu_mem_mb=1000), world.submit("a", gpu_mem_mb=1000)
    attempts = running(world, job_id, other)
    stale = replace(attempts[0], token="of another attempt")
    for tracked in (stale, attempts[1]):
        tracked.peak_mb = dict.fromkeys(tracked.gpu_uuids, 3000)
    before = details(world, job_id)
    record_outgrown(world.ctx, [stale, attempts[1]])
    assert details(world, job_id) == before
    told = "uses 3000 MiB of a GPU and asked for 1000; 3000 are reserved for it from now on"
    assert details(world, other)[-1] == told
    assert attempts[1].flagged_mb == 3000


@pytest.mark.parametrize(("peak", "told"), [(1000, 0), (1001, 1)])
def test_a_job_has_outgrown_its_request_with_the_first_mib_beyond_it(make_world: Any, peak: int, told: int) -> None:
    world = make_world("sim:2x24G")
    [tracked] = running(world, world.submit("a", gpu_mem_mb=1000))
    tracked.peak_mb = dict.fromkeys(tracked.gpu_uuids, peak)
    before = len(details(world, tracked.job.id))
    record_outgrown(world.ctx, [tracked])
    assert len(details(world, tracked.job.id)) - before == told


def test_growth_is_told_again_from_a_tenth_more_on(make_world: Any) -> None:
    world = make_world("sim:2x24G")
    [tracked] = running(world, world.submit("a", gpu_mem_mb=500))

    def told(peak: int) -> int:
        before = len(details(world, tracked.job.id))
        tracked.peak_mb = dict.fromkeys(tracked.gpu_uuids, peak)
        record_outgrown(world.ctx, [tracked])
        return len(details(world, tracked.job.id)) - before

    assert [told(peak) for peak in (1000, 1000, 1100, 1101, 1101)] == [1, 0, 0, 1, 0]


def test_a_job_that_ended_first_is_not_asked_to_make_room(world: Any) -> None:
    job_id = world.submit("a", preemptible=True)
    [tracked] = running(world, job_id)
    stale = replace(tracked, token="of another attempt")
    preempt(world.ctx, stale, 7)
    assert (world.state(job_id), world.launcher.stops, stale.stopping) == ("running", [], False)
    preempt(world.ctx, tracked, 7)
    assert (world.state(job_id), len(world.launcher.stops), tracked.stopping) == ("stopping", 1, True)
    assert details(world, job_id)[-1] == "preempted for job 7"
    preempt(world.ctx, tracked, 8)
    assert len(world.launcher.stops) == 1


class Stale:
    """A transaction whose answers to some questions are as they were before somebody changed the jobs."""

    def __init__(self, tx: Any, **answers: Any) -> None:
        self._tx, self._answers = tx, answers

    def __getattr__(self, name: str) -> Any:
        return self._answers[name] if name in self._answers else getattr(self._tx, name)


def test_a_job_that_was_held_while_it_fell_due_stays_held_and_the_others_are_promoted(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = world.clock.now()
    held, good = world.submit("a", hold=True), world.submit("a", begin=now + 1)
    world.clock.forward(1)
    write = world.ctx.records.write

    @contextlib.contextmanager
    def stale() -> Iterator[Any]:
        with write() as tx:
            yield Stale(tx, due=lambda at, most: [held, good])

    monkeypatch.setattr(world.ctx.records, "write", stale)
    assert promote(world.ctx) is None
    assert (world.state(held), world.state(good)) == ("held", "queued")
    assert [entry.job_id for entry in world.ctx.queue.heads(9)] == [good]


def fails(world: Any, job_id: int, outcome: Outcome = Outcome.EXIT_NONZERO) -> None:
    turn(world)
    world.launcher.run(job_id)
    turn(world)
    world.launcher.end(job_id, outcome, **({"exit_code": 1} if outcome is Outcome.EXIT_NONZERO else {}))
    turn(world)
    assert world.state(job_id) == "delayed"


def test_backoffs_are_shortened_to_what_they_would_be_from_now_on_whatever_they_count(make_world: Any) -> None:
    world = make_world("sim:4", retry_base=10.0, retry_quick=True)
    failed, lost = world.submit("a"), world.submit("a")
    fails(world, failed)
    fails(world, lost, Outcome.LOST)
    assert (world.job(lost).retries_used, world.job(lost).lost_count) == (0, 1)
    world.clock.forward(200)
    promote(world.ctx)
    fails(world, failed)
    fails(world, lost, Outcome.LOST)
    assert (world.job(failed).retries_used, world.job(lost).lost_count) == (2, 2)
    world.clock.jump(-3600)
    assert shorten_backoffs(world.ctx) == 2
    # The longest backoff of a second try: base times two, and the jitter's whole share.
    longest = {round(world.job(job_id).eligible_at - world.clock.now(), 3) for job_id in (failed, lost)}
    assert len(longest) == 1
    assert 20 <= longest.pop() <= 30
    assert shorten_backoffs(world.ctx) == 0


def test_a_job_whose_wait_is_right_keeps_no_other_from_being_shortened(make_world: Any) -> None:
    world = make_world("sim:4", retry_base=10.0, retry_quick=True)
    begin = world.submit("a", begin=world.clock.now() + 90_000)
    late = world.submit("a")
    fails(world, late)
    right = world.job(begin).eligible_at
    world.clock.jump(-3600)
    assert shorten_backoffs(world.ctx) == 1
    assert world.job(begin).eligible_at == right
    assert world.job(late).eligible_at - world.clock.now() <= 30


def test_a_backoff_that_is_over_meanwhile_is_not_shortened_and_keeps_no_other_from_it(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("sim:4", retry_base=10.0, retry_quick=True)
    moved, good = world.submit("a"), world.submit("a")
    fails(world, moved)
    fails(world, good)
    read = world.ctx.records.read
    before = [world.job(moved), world.job(good)]
    world.clock.jump(-3600)
    cancel(world.ctx, moved, world.user)

    @contextlib.contextmanager
    def stale() -> Iterator[Any]:
        with read() as tx:
            yield Stale(tx, jobs=lambda _: before)

    monkeypatch.setattr(world.ctx.records, "read", stale)
    assert shorten_backoffs(world.ctx) == 1
    monkeypatch.undo()
    assert (world.job(moved).eligible_at, world.state(moved)) == (None, "cancelled")
    assert world.job(good).eligible_at < before[1].eligible_at


def test_the_reaper_goes_on_although_redis_takes_no_leases_back(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [world.submit("a"), world.submit("a")]
    running(world, *jobs)
    world.agents[0].stop()
    for job_id in jobs:
        world.launcher.die(job_id)
    world.clock.forward(100)
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.leases, "release", no_redis)
        assert reap(world.ctx) == jobs
    assert len(world.holders()) == 2
    assert {world.state(job_id) for job_id in jobs} == {"delayed"}


def test_the_reaper_releases_the_leases_of_whom_it_found_dead(world: Any) -> None:
    [tracked] = running(world, world.submit("a"))
    world.agents[0].stop()
    world.launcher.die(tracked.job.id)
    world.clock.forward(100)
    assert reap(world.ctx) == [tracked.job.id]
    assert world.holders() == {}


# Hints.


def test_of_two_starts_the_first_stays_leased_when_redis_goes_away_before_the_second(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [world.submit("a"), world.submit("a")]
    waiting = {job.id: job for job in SnapshotBuilder(world.ctx).waiting()}
    gpus = world.ctx.gpus.inventory()
    starts = [Start(job_id, (gpus[at].uuid,)) for at, job_id in enumerate(jobs)]
    take, answers = world.ctx.leases.take, [True, False]

    def once(*asked: Any) -> Any:
        if not answers.pop(0):
            raise HotStoreUnavailable("Redis does not answer")
        return take(*asked)

    topics = topics_of(world)
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.leases, "take", once)
        [leased] = take_leases(world.ctx, starts, waiting, ())
    assert (leased.waiting.id, topics) == (jobs[0], ["missed"])
    assert list(world.holders()) == [gpus[0].uuid]
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.leases, "take", no_redis)
        with pytest.raises(HotStoreUnavailable):
            take_leases(world.ctx, starts[1:], waiting, ())


@pytest.mark.parametrize("back", [give_back, release])
def test_leases_that_cannot_be_returned_expire_and_the_job_is_offered_again(
    world: Any, monkeypatch: pytest.MonkeyPatch, back: Any
) -> None:
    job_id = world.submit("a")
    waiting = {job.id: job for job in SnapshotBuilder(world.ctx).waiting()}
    gpu = world.ctx.gpus.inventory()[0]
    [leased] = take_leases(world.ctx, [Start(job_id, (gpu.uuid,))], waiting, ())
    topics = topics_of(world)
    name = "give_back" if back is give_back else "release"
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.leases, name, no_redis)
        back(world.ctx, leased)
    assert topics == (["missed"] if back is give_back else [])
    assert list(world.holders()) == [gpu.uuid]
    back(world.ctx, leased)
    assert world.holders() == {}
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == ([job_id] if back is give_back else [])
    assert isinstance(leased, Leased)


def test_a_hint_that_does_not_arrive_is_noted_and_raised_to_nobody(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = topics_of(world)
    entry = QueueEntry(7, 1, 5.0)
    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.queue, "add", no_redis)
        broken.setattr(world.ctx.queue, "remove", no_redis)
        publish_jobs(world.ctx, [entry])
        assert topics == ["missed", "queue"]
        unpublish_jobs(world.ctx, [(7, 1)])
        assert topics == ["missed", "queue"]

        def cold(*_: object) -> None:
            raise HotStoreCold("it is being rebuilt")

        broken.setattr(world.ctx.queue, "add", cold)
        publish_jobs(world.ctx, [entry])
        assert topics == ["missed", "queue", "queue"]
        for touched in ("add", "remove"):
            broken.setattr(world.ctx.queue, touched, lambda *_: pytest.fail("asked for nothing"))
        publish_jobs(world.ctx, [])
        unpublish_jobs(world.ctx, [])
    assert topics == ["missed", "queue", "queue"]


def test_a_long_line_is_filled_up_in_parts_and_whole(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []
    read = world.ctx.records.read
    rows = [(number, 1, float(number)) for number in range(1, 10_002)]

    @contextlib.contextmanager
    def long() -> Iterator[Any]:
        with read() as tx:
            yield Stale(tx, queued=lambda: iter(rows))

    seen: set[int] = set()

    def add(entries: Any) -> None:
        added.append(len(entries))
        seen.update(entry.job_id for entry in entries)

    monkeypatch.setattr(world.ctx.records, "read", long)
    monkeypatch.setattr(world.ctx.queue, "add", add)
    topics = topics_of(world)
    Reconciler(world.ctx).fill_up()
    assert (added, len(seen), topics) == ([5000, 5000, 1], 10_001, ["queue"])


def test_a_reconciler_that_meets_a_cold_store_rebuilds_it(world: Any) -> None:
    job_id = world.submit("a")
    world.ctx.queue.rebuild(iter(()), epoch="another")
    world.ctx.queue.open("another")
    reconciler = Reconciler(world.ctx)
    reconciler.run()
    assert not reconciler.in_doubt
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == [job_id]

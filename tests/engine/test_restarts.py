"""The agent dies, Redis is emptied, the machine reboots: what the next agent makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.claim.claim import claim, write_turn
from gpuq.engine.hot.cold_store import is_cold
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.maintenance.rehydrate import Reconciler, rehydrate
from gpuq.engine.node_lock import Fence
from gpuq.engine.outcome.finish import Written
from gpuq.engine.snapshot.builder import SnapshotBuilder
from gpuq.errors import AlreadyRunning, DatabaseUnavailable, HotStoreCold
from gpuq.scheduler.snapshot import Start


def restart(world: Any) -> Any:
    """The agent is gone without a word; a new process opens everything anew."""
    world.agents.pop().stop()
    world.ctx = world.open()
    return world.agent()


def started(world: Any, **fields: Any) -> tuple[int, Any]:
    job_id = world.submit("train", **fields)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    return job_id, agent


def test_a_running_job_is_adopted_and_its_end_recorded(world: Any) -> None:
    job_id, _ = started(world, gpus=2)
    agent = restart(world)
    assert world.state(job_id) == "running"
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(job_id) == "completed"
    assert len(world.launcher.orders) == 1


def test_a_job_that_starts_while_no_agent_runs_is_seen_to_run(world: Any) -> None:
    job_id = world.submit("train")
    world.agent().run_once()
    agent = restart(world)
    agent.run_once()
    assert world.state(job_id) == "starting"
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(job_id) == "completed"


def test_an_end_that_nobody_saw_is_recorded_as_it_was(world: Any) -> None:
    job_id, agent = started(world, max_retries=0)
    world.agents.pop()
    agent.stop()
    world.clock.forward(5)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=42)
    ended_at = world.clock.now()
    world.clock.forward(3600)
    world.ctx = world.open()
    world.agent().run_once()
    job = world.job(job_id)
    assert (job.state, job.exit_code) == (JobState.FAILED, 42)
    assert job.finished_at == pytest.approx(ended_at)


def test_a_supervisor_that_vanished_is_lost_and_its_strays_are_swept(world: Any) -> None:
    job_id, agent = started(world, max_retries=0)
    world.launcher.die(job_id)
    agent.run_once()
    job = world.job(job_id)
    assert (job.state, job.retries_used, job.lost_count) == (JobState.DELAYED, 0, 1)
    assert len(world.launcher.swept) == 1
    assert world.holders() == {}


def test_a_job_that_is_lost_again_and_again_is_given_up(world: Any) -> None:
    from gpuq.engine.maintenance.promote import promote

    job_id = world.submit("train")
    agent = world.agent()
    for _ in range(5):
        agent.wake()
        agent.run_once()
        world.launcher.run(job_id)
        agent.run_once()
        world.launcher.die(job_id)
        agent.run_once()
        world.clock.forward(4000)
        promote(world.ctx)
    job = world.job(job_id)
    assert (job.state, job.outcome, job.attempt) == (JobState.FAILED, Outcome.LOST, 5)


def test_after_a_reboot_nothing_is_alive_whatever_the_locks_say(world: Any) -> None:
    job_id, _ = started(world)
    world.agents.pop().stop()
    world.ctx = world.open()
    world.ctx = replace(world.ctx, boot_id="boot-2")
    world.agent().run_once()
    job = world.job(job_id)
    assert (job.state, job.lost_count) == (JobState.DELAYED, 1)
    assert world.launcher.swept == []


def test_a_claim_that_was_never_launched_goes_back_without_using_a_retry(world: Any) -> None:
    job_id = world.submit("train")
    facts = {job.id: job for job in SnapshotBuilder(world.ctx).waiting()}
    first_gpu = world.ctx.gpus.inventory()[0].uuid
    fence = Fence("box", "agent-0")
    fence.take(world.ctx.records, world.clock.now())
    [claimed] = claim(world.ctx, [Start(job_id, (first_gpu,))], facts, fence)
    assert world.state(job_id) == "starting"
    world.clock.forward(60)
    assert reap(world.ctx) == [job_id]
    job = world.job(job_id)
    assert (job.state, job.retries_used, job.lost_count) == (JobState.QUEUED, 0, 0)
    assert world.launcher.stops[0]["run_dir"] == claimed.order.run_dir
    assert world.holders() == {}


def test_the_reaper_leaves_the_living_and_the_young_alone(world: Any) -> None:
    old, agent = started(world)
    world.clock.forward(3600)
    young = world.submit("train")
    agent.wake()
    agent.run_once()
    world.launcher.die(young)
    assert reap(world.ctx) == []
    assert world.state(old) == "running"


def test_a_stop_that_may_not_have_arrived_is_asked_for_again(world: Any) -> None:
    job_id, _ = started(world)
    cancel(world.ctx, job_id, world.user, grace_s=30)
    world.launcher.stops.clear()
    world.clock.forward(10)
    restart(world)
    [stop] = world.launcher.stops
    assert stop["reason"] == "cancel"
    assert stop["grace_s"] == pytest.approx(20)


def test_the_same_end_read_twice_is_written_once(world: Any) -> None:
    job_id, agent = started(world)
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    written = write_turn(world.ctx, [world.ended(job_id)])
    assert written == Written()
    assert world.story(job_id).count("completed") == 1


def test_a_stale_token_cannot_end_a_later_attempt(world: Any) -> None:
    from gpuq.engine.maintenance.promote import promote

    job_id, agent = started(world, max_retries=3)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    world.clock.forward(10)
    promote(world.ctx)
    agent.wake()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    from gpuq.domain.outcome import Result

    written = write_turn(world.ctx, [world.ended(job_id, Result(Outcome.SUCCEEDED, 0))])
    assert written == Written()
    assert world.state(job_id) == "running"


def test_a_second_agent_on_the_same_home_is_refused(world: Any) -> None:
    world.agent()
    from gpuq.engine.file_lock import FileLock

    with pytest.raises(AlreadyRunning):
        FileLock(world.ctx.agent_lock_path, "an agent").acquire()


def test_a_flushed_redis_is_cold_and_comes_back_in_the_same_order(make_world: Any) -> None:
    world = make_world("sim:1")
    running = world.submit("train")
    agent = world.agent()
    agent.run_once()
    world.launcher.run(running)
    agent.run_once()
    waiting = [world.submit("train", priority=priority) for priority in ("low", "normal", "high", "normal")]
    world.link.client.flushall()
    assert is_cold(world.ctx)
    with pytest.raises(HotStoreCold):
        world.ctx.queue.heads(5)
    late = world.submit("train", priority="critical")
    rehydrate(world.ctx)
    expected = [late, waiting[2], waiting[1], waiting[3], waiting[0]]
    assert [entry.job_id for entry in world.ctx.queue.heads(10)] == expected
    assert len(world.holders()) == 1
    world.launcher.end(running, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(late) == "starting"


def test_nothing_starts_while_the_store_is_cold(world: Any) -> None:
    world.link.client.flushall()
    job_id = world.submit("train")
    heard: list[str] = []
    world.ctx.notifier.subscribe(heard.append)
    world.agent().run_once()
    assert world.state(job_id) == "queued"
    assert "cold" in heard


def test_a_replaced_redis_with_its_own_marker_is_cold_too(world: Any) -> None:
    world.link.client.flushall()
    world.ctx.queue.rebuild([], epoch="another")
    world.ctx.queue.open("another")
    assert is_cold(world.ctx)


def test_a_job_submitted_during_the_rebuild_is_not_missed(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[int] = []
    open_store = world.ctx.queue.open

    def submit_first(epoch: str) -> None:
        # Its hint meets a cold store.
        late.append(world.submit("train"))
        open_store(epoch)

    monkeypatch.setattr(world.ctx.queue, "open", submit_first)
    rehydrate(world.ctx)
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == late


def test_a_hint_that_was_lost_is_found_by_the_reconciler(world: Any) -> None:
    job_id = world.submit("train")
    world.ctx.queue.remove([(job_id, 1)])
    reconciler = Reconciler(world.ctx)
    reconciler.run()
    reconciler.run()
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == [job_id]


def test_a_member_that_sql_knows_as_cancelled_is_dropped(world: Any) -> None:
    from gpuq.ports.hot_queue import QueueEntry

    job_id = world.submit("train")
    score = world.job(job_id).score
    cancel(world.ctx, job_id, world.user)
    world.ctx.queue.add([QueueEntry(job_id, 1, score)])
    world.agent().run_once()
    assert world.launcher.orders == []
    assert sum(world.ctx.queue.sizes().values()) == 0


def test_a_lost_lease_of_a_living_job_is_set_again(world: Any) -> None:
    job_id, agent = started(world, gpus=2)
    world.ctx.leases.release("box", world.job(job_id).token, [gpu.uuid for gpu in world.ctx.gpus.inventory()])
    assert world.holders() == {}
    world.clock.forward(11)
    agent.run_once()
    assert len(world.holders()) == 2


def test_ends_are_kept_while_the_database_is_away(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuq.errors import DatabaseUnavailable

    job_id, agent = started(world)
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)

    def away() -> Any:
        raise DatabaseUnavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.ctx.records, "write", away)
        agent.run_once()
        assert len(world.holders()) == 1
    assert world.state(job_id) == "running"
    world.clock.forward(1)
    agent.run_once()
    assert world.state(job_id) == "completed"


def test_external_use_keeps_a_gpu_from_being_given(make_world: Any) -> None:
    import json

    world = make_world("sim:2")
    path = Path(world.settings.home) / "sim-gpus.json"
    path.write_text(json.dumps({"0": {"used_mb": 9000, "processes": [{"pid": 1, "mem_mb": 9000, "user": "bob"}]}}))
    job_id = world.submit("train", gpus=2)
    other = world.submit("train", gpus=1)
    agent = world.agent()
    agent.run_once()
    assert world.state(job_id) == "queued"
    assert world.launcher.order_of(other).spec["env"]["GPUQ_GPUS"] == "1"


def test_a_pause_that_nobody_told_of_is_seen_at_the_next_slow_look(world: Any) -> None:
    agent = world.agent()
    world.submit("train", gpus=0)
    agent.run_once()
    with world.ctx.records.write() as tx:
        tx.set_value("paused", {"by": "root", "reason": None, "at": None}, world.clock.now())
    world.clock.forward(6)
    job_id = world.submit("train")
    agent.run_once()
    assert world.state(job_id) == "queued"


def test_an_agent_without_a_database_waits_between_its_tries(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuq.errors import DatabaseUnavailable

    job_id = world.submit("train", time_limit_s=1)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)

    def away() -> Any:
        raise DatabaseUnavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(world.ctx.records, "write", away)
        agent.turn(0.0, write_after_s=0.0)
        world.clock.forward(0.1)
        assert agent._timeout() > 0.1
        world.clock.forward(5)
        agent.turn(0.0, write_after_s=0.0)
        assert agent._timeout() > 0.1
    world.clock.forward(1)
    agent.run_once()
    assert world.state(job_id) in {"running", "stopping"}


def test_two_records_of_an_attempt_are_two_even_if_they_say_the_same(world: Any) -> None:
    job_id, _ = started(world)
    with world.ctx.records.read() as tx:
        [(job, attempt)] = tx.live_attempts("box")
    one, other = (TrackedAttempt.of_record(job, attempt, None) for _ in range(2))
    assert one.job.id == other.job.id == job_id
    assert one != other
    assert one not in [other]


def test_an_agent_that_cannot_adopt_gives_the_node_up_again(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise DatabaseUnavailable("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(type(world.ctx.records), "read", unreachable)
        with pytest.raises(DatabaseUnavailable):
            world.agent()
    world.agent()

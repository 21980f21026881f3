"""Attempts between their launch and their end: folders, descriptors, the machine's own trouble, and who is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome, Result
from gpuq.engine.attempt import launch as launching
from gpuq.engine.attempt import launch_breaker
from gpuq.engine.attempt.launch_breaker import LaunchCircuitBreaker
from gpuq.engine.attempt.watcher import AttemptWatcher
from gpuq.engine.outcome.classification import classified
from gpuq.engine.switches import read_switches
from gpuq.errors import DatabaseUnavailable, HotStoreUnavailable, NodeTaken
from gpuq.ports.launcher import LaunchOrder
from gpuq.user_files import OverQuota


def turn(world: Any) -> Any:
    agent = world.agents[0] if world.agents else world.agent()
    agent.wake()
    agent.run_once()
    return agent


def running(world: Any, **fields: Any) -> int:
    job_id = int(world.submit("a", **fields))
    turn(world)
    world.launcher.run(job_id)
    turn(world)
    assert world.state(job_id) == "running"
    return job_id


def topics_of(world: Any) -> list[str]:
    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    return topics


# Folders.


@pytest.mark.parametrize(
    ("uid", "gid", "euid", "given"),
    [
        (1000, 1001, 0, (1000, 1001)),
        (1000, None, 0, (1000, -1)),
        (0, 0, 0, None),
        (None, None, 0, None),
        (1000, 1001, 1000, None),
    ],
)
def test_the_checkpoint_folder_is_the_submitters_where_the_daemon_is_roots(
    world: Any, monkeypatch: pytest.MonkeyPatch, uid: Any, gid: Any, euid: int, given: Any
) -> None:
    changed: list[Any] = []
    monkeypatch.setattr(launching.os, "chown", lambda path, *who, **_: changed.append((path, who)))
    monkeypatch.setattr(launching.os, "geteuid", lambda: euid)
    order = LaunchOrder(7, 1, "t", str(world.settings.home / "jobs/7/1"), "log", {"uid": uid, "gid": gid})
    folder = world.ctx.checkpoint_dir(7)
    os.close(launching.launch(world.ctx, order))
    assert Path(folder).is_dir()
    assert changed == ([] if given is None else [(folder, given)])
    # An attempt that died before it gave the folder away is made up for by the next one.
    second = LaunchOrder(7, 2, "t", str(world.settings.home / "jobs/7/2"), "log", {"uid": uid, "gid": gid})
    os.close(launching.launch(world.ctx, second))
    assert len(changed) == 2 * (given is not None)


# Descriptors.


@pytest.fixture
def watcher(world: Any) -> Any:
    made = AttemptWatcher(world.ctx, LaunchCircuitBreaker(world.ctx), lambda: None)
    yield made
    made.close()


def test_a_supervisor_whose_lock_is_held_still_when_it_is_gone_is_asked_for_by_its_lock(
    world: Any, watcher: Any
) -> None:
    job_id = running(world)
    watcher.adopt()
    [tracked] = watcher.holding
    assert tracked.fd is not None
    assert not watcher.unwatched
    launched = world.launcher.launched_of(job_id)
    os.close(world.launcher._end_pipes.pop(launched.supervisor_pid))
    watcher.hear(watcher.wait(0))
    assert (tracked.fd, tracked.result, watcher.ended, watcher.unwatched) == (None, None, [], True)
    watcher.hear(watcher.wait(0))
    assert watcher.ended == []
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    watcher.hear(watcher.wait(0))
    assert (watcher.ended, tracked.result.outcome) == ([tracked], Outcome.SUCCEEDED)


def test_who_stops_watching_closes_what_it_watched_and_the_attempts_live_on(world: Any) -> None:
    jobs = [running(world), running(world)]
    world.agents[0].stop()
    before = len(os.listdir("/proc/self/fd"))
    watcher = AttemptWatcher(world.ctx, LaunchCircuitBreaker(world.ctx), lambda: None)
    watcher.adopt()
    watched = [tracked.fd for tracked in watcher.holding]
    assert None not in watched
    watcher.close()
    # The ends of the played supervisors stay open.
    assert len(os.listdir("/proc/self/fd")) == before + len(jobs)
    assert {world.state(job_id) for job_id in jobs} == {"running"}


def test_a_start_that_was_reported_to_a_dead_agent_is_found_in_the_folder(world: Any, watcher: Any) -> None:
    job_id = world.submit("a")
    turn(world)
    world.agents[0].stop()
    watcher.adopt()
    [tracked] = watcher.holding
    assert (tracked.fd, tracked.launched) == (None, None)
    watcher.hear(watcher.wait(0))
    assert watcher.unrecorded == []
    world.launcher.run(job_id)
    watcher.hear(watcher.wait(0))
    assert (watcher.unrecorded, tracked.launched is not None, tracked.fd is not None) == ([tracked], True, True)
    watcher.hear(watcher.wait(0))
    assert watcher.unrecorded == [tracked]


def test_the_first_start_that_is_not_written_is_announced_and_the_others_go_with_it(world: Any) -> None:
    calls: list[int] = []
    watcher = AttemptWatcher(world.ctx, LaunchCircuitBreaker(world.ctx), lambda: calls.append(len(watcher.unrecorded)))
    jobs = [world.submit("a"), world.submit("a")]
    turn(world)
    world.agents[0].stop()
    watcher.adopt()
    for job_id in jobs:
        world.launcher.run(job_id)
        watcher.hear(watcher.wait(0))
    assert (calls, [tracked.job.id for tracked in watcher.unrecorded]) == ([0], jobs)
    watcher.close()


def test_an_attempt_that_could_not_be_launched_has_ended_and_the_agent_looks_at_once(world: Any) -> None:
    job_id = world.submit("a", max_retries=0)
    world.launcher.fail_next = OverQuota(errno.EPERM, "user 1000 has used up the disk quota")
    agent = turn(world)
    agent.turn(0.0)
    job = world.job(job_id)
    assert (str(job.state), str(job.outcome)) == ("failed", "launch_error")
    assert job.error == "could not be launched: [Errno 1] user 1000 has used up the disk quota"
    assert world.holders() == {}


# The machine's own trouble.


def said(world: Any) -> str | None:
    with world.ctx.records.read() as tx:
        return read_switches(tx, "box").launch_trouble


def test_the_pause_goes_on_with_what_the_disk_says_as_long_as_nothing_can_be_written(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = LaunchCircuitBreaker(world.ctx)
    assert not breaker.is_open()

    breaker.trip("no memory")
    assert breaker.is_open()
    assert said(world) == "no memory"
    breaker.launched(1)
    assert said(world) == "no memory"
    world.clock.forward(1)
    open_file = Path.open

    def full(path: Path, *words: Any, **named: Any) -> Any:
        if path.name.startswith(".probe."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_file(path, *words, **named)

    with monkeypatch.context() as broken:
        broken.setattr(launch_breaker.Path, "open", full)
        assert breaker.is_open()
        assert said(world) == "No space left on device"
        world.clock.forward(1.9)
        assert breaker.is_open()
        world.clock.forward(0.1)
        assert breaker.is_open()
    world.clock.forward(4)
    assert not breaker.is_open()
    assert list((world.settings.home / "jobs").glob(".probe*")) == []
    assert said(world) is None
    breaker.launched(1)
    # A first pause again.
    breaker.trip("no memory")
    world.clock.forward(1)
    assert not breaker.is_open()


def test_trouble_that_cannot_be_noted_is_noted_the_next_time(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = LaunchCircuitBreaker(world.ctx)

    def away() -> Any:
        raise DatabaseUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(world.ctx.records, "write", away)
        breaker.trip("the same")
    assert said(world) is None
    breaker.trip("the same")
    assert said(world) == "the same"


# Who is told of an end.


def test_a_job_that_waits_for_its_next_try_and_one_that_does_not_are_told_differently(world: Any) -> None:
    again, never = running(world, max_retries=3), running(world, max_retries=0)
    topics = topics_of(world)
    world.launcher.end(never, Outcome.EXIT_NONZERO, exit_code=1)
    turn(world)
    assert topics == ["events"]
    topics.clear()
    world.launcher.end(again, Outcome.EXIT_NONZERO, exit_code=1)
    turn(world)
    assert topics == ["delayed", "events"]
    topics.clear()
    back = running(world, preemptible=True)
    topics.clear()
    world.launcher.end(back, Outcome.PREEMPTED)
    world.agents[0].turn(0.0)
    assert topics[:2] == ["queue", "events"]


def test_the_end_of_the_log_is_kept_with_a_failure_and_with_nothing_else(world: Any) -> None:
    job_id = running(world)
    [tracked] = world.agents[0].tracked
    Path(tracked.log_path).parent.mkdir(parents=True)
    lines = [f"line {number}" for number in range(30)]
    Path(tracked.log_path).write_text("\n".join(lines))
    now = world.clock.now()

    def end(outcome: Outcome, finished_at: float | None = 5.0) -> Result:
        tracked.result = Result(outcome, exit_code=1, finished_at=finished_at)
        [(same, result)] = classified(world.ctx, [tracked])
        assert same is tracked
        return result

    for outcome in (Outcome.EXIT_NONZERO, Outcome.SIGNAL, Outcome.LOST, Outcome.TIME_LIMIT, Outcome.HOST_OOM):
        assert end(outcome).log_tail == "\n".join(lines[-20:])
    for outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.PREEMPTED):
        assert end(outcome).log_tail is None
    assert (end(Outcome.LOST).finished_at, end(Outcome.LOST, None).finished_at) == (5.0, now)
    # What tells of the GPU's memory may stand far before the last lines, but not any distance.
    oom = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    for behind, outcome in ((199, Outcome.GPU_OOM), (200, Outcome.EXIT_NONZERO)):
        Path(tracked.log_path).write_text("\n".join([oom, *["x"] * behind]))
        assert end(Outcome.EXIT_NONZERO).outcome is outcome
    Path(tracked.log_path).write_text(oom)
    assert end(Outcome.SIGNAL).outcome is Outcome.GPU_OOM
    assert end(Outcome.LOST).outcome is Outcome.LOST
    tracked.gpu_uuids = ()
    assert end(Outcome.EXIT_NONZERO).outcome is Outcome.EXIT_NONZERO
    assert job_id


@pytest.mark.parametrize(
    "error", [NodeTaken("another agent took this node"), HotStoreUnavailable("Redis does not answer")]
)
def test_after_a_claim_that_failed_the_queue_is_read_anew(
    world: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world.submit("a")
    agent = world.agent()
    heads, reads = world.ctx.queue.heads, []

    def note(most: int) -> Any:
        reads.append(most)
        return heads(most)

    monkeypatch.setattr(world.ctx.queue, "heads", note)

    def fail(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr("gpuq.engine.claim.dispatcher.claim", fail)
        agent.turn(0.0)
        assert len(reads) == 1
        world.clock.forward(0.5)
        agent.turn(0.0)
        assert len(reads) == 2
    world.clock.forward(0.5)
    agent.turn(0.0)
    assert world.launcher.orders
    agent.turn(0.0)
    assert len(reads) == 3


def test_a_word_to_the_agent_ends_its_wait(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = world.agent()
    woken: list[int] = []
    monkeypatch.setattr(AttemptWatcher, "wake", lambda _: woken.append(1))
    for topic, times in (("events", 0), ("queue", 1), ("changed", 2), ("control", 3), ("delayed", 3), ("missed", 3)):
        world.ctx.notifier.publish(topic)
        assert len(woken) == times
    agent._stopping = True
    world.ctx.notifier.publish("queue")
    assert len(woken) == 3
    agent._stopping = False

"""What is remembered between two looks at the queue and the GPUs, and what is read anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.engine.actions.change import update
from gpuq.engine.actions.hold import hold
from gpuq.engine.snapshot import builder, gpu_processes
from gpuq.engine.snapshot.builder import SnapshotBuilder
from gpuq.engine.snapshot.gpu_processes import belongs_to
from gpuq.engine.snapshot.usage import see_peaks
from gpuq.scheduler.snapshot import Wait


@pytest.fixture
def asked(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids of each question for facts of waiting jobs."""
    questions: list[list[int]] = []
    read = world.ctx.records.read

    def noting() -> Any:
        transaction = read()
        enter = transaction.__enter__

        class Noting:
            def __enter__(self) -> Any:
                tx = enter()
                waiting = tx.waiting

                class Reader:
                    def __getattr__(self, name: str) -> Any:
                        return getattr(tx, name)

                    def waiting(self, ids: Any) -> Any:
                        questions.append(sorted(ids))
                        return waiting(ids)

                return Reader()

            def __exit__(self, *error: Any) -> Any:
                return transaction.__exit__(*error)

        return Noting()

    monkeypatch.setattr(world.ctx.records, "read", noting)
    return questions


def ids(jobs: Any) -> list[int]:
    return [job.id for job in jobs]


def test_facts_of_a_job_are_read_once_until_its_place_changes_or_somebody_says_so(
    world: Any, asked: list[list[int]]
) -> None:
    jobs = [world.submit("a"), world.submit("a")]
    snapshots = SnapshotBuilder(world.ctx)
    asked.clear()
    assert ids(snapshots.waiting()) == jobs
    assert ids(snapshots.waiting()) == jobs
    assert asked == [jobs]
    update(world.ctx, jobs[1], world.user, {"priority": "high"})
    asked.clear()
    assert ids(snapshots.waiting()) == jobs[::-1]
    assert asked == [[jobs[1]]]
    snapshots.forget()
    snapshots.waiting()
    assert asked[1:] == [jobs]
    snapshots.drop([jobs[0]])
    snapshots.waiting()
    assert asked[2:] == [[jobs[0]]]


def test_when_too_many_facts_are_kept_all_are_read_anew(
    world: Any, asked: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "FACTS_KEPT", 2)
    jobs = [world.submit("a"), world.submit("a")]
    snapshots = SnapshotBuilder(world.ctx)
    snapshots.waiting()
    jobs.append(world.submit("a"))
    asked.clear()
    assert ids(snapshots.waiting()) == jobs
    assert asked == [[jobs[2]]]
    # Three are kept now, which is one too many.
    jobs.append(world.submit("a"))
    asked.clear()
    assert ids(snapshots.waiting()) == jobs
    assert asked == [jobs]
    first = snapshots.snapshot(snapshots.waiting(), ())
    assert [one.id for one in first.waiting] == jobs
    # What is known of one that is not in line is forgotten with the others.
    gone = world.ctx.queue.heads(9)[0]
    world.ctx.queue.remove([(gone.job_id, 1)])
    jobs.append(world.submit("a"))
    snapshots.waiting()
    world.ctx.queue.add([gone])
    asked.clear()
    assert ids(snapshots.waiting()) == jobs
    assert gone.job_id in asked[0]


def test_what_is_left_of_the_line_serves_until_nobody_knows_what_comes_behind_it(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("sim:4")
    monkeypatch.setattr(builder, "HEADS", 4)
    jobs = [world.submit("a") for _ in range(6)]
    snapshots = SnapshotBuilder(world.ctx)
    assert ids(snapshots.waiting()) == jobs[:4]
    snapshots.drop(jobs[:1])
    assert ids(snapshots.waiting(fresh=False)) == jobs[1:4]
    snapshots.drop(jobs[1:2])
    # Two of four are left, which is enough.
    assert ids(snapshots.waiting(fresh=False)) == jobs[2:4]
    snapshots.drop(jobs[2:3])
    world.ctx.queue.remove([(job_id, 1) for job_id in jobs[:3]])
    assert ids(snapshots.waiting(fresh=False)) == jobs[3:]
    # The whole line is known now: it serves to its end.
    snapshots.drop(jobs[3:5])
    later = world.submit("a")
    assert ids(snapshots.waiting(fresh=False)) == jobs[5:]
    assert ids(snapshots.waiting()) == [*jobs[3:], later]


def test_a_dear_look_past_jobs_at_their_limit_serves_ten_times_as_long_as_it_took(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("sim:4", user_max_running=1)
    monkeypatch.setattr(builder, "HEADS", 2)
    running = world.submit("a")
    agent = world.agent()
    agent.run_once()
    kept = [world.submit("a") for _ in range(2)]
    behind = world.submit("a", by=world.admin)
    looks: list[int] = []
    past_limits = builder.past_limits

    def dear(*words: Any, **named: Any) -> Any:
        looks.append(1)
        world.clock.forward(1)
        return past_limits(*words, **named)

    monkeypatch.setattr(builder, "past_limits", dear)
    snapshots = SnapshotBuilder(world.ctx)
    for forward, times in ((0, 1), (0, 1), (9.9, 1), (0.2, 2)):
        world.clock.forward(forward)
        assert ids(snapshots.waiting(agent.tracked)) == [*kept, behind]
        assert len(looks) == times
    snapshots.forget()
    snapshots.waiting(agent.tracked)
    assert len(looks) == 3
    assert world.state(running) == "starting"


def test_a_job_that_sql_does_not_know_as_queued_leaves_the_hot_queue(world: Any) -> None:
    kept, gone = world.submit("a"), world.submit("a")
    score = world.job(gone).score
    hold(world.ctx, gone, world.user)
    snapshots = SnapshotBuilder(world.ctx)
    world.ctx.queue.add([builder.QueueEntry(gone, 1, score)])
    assert ids(snapshots.waiting()) == [kept]
    assert [entry.job_id for entry in world.ctx.queue.heads(5)] == [kept]


def test_gpus_are_read_once_a_second_and_only_for_jobs_that_want_some(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[float] = []
    observe = world.ctx.gpus.observe

    def note(now: float) -> Any:
        reads.append(now)
        return observe(now)

    monkeypatch.setattr(world.ctx.gpus, "observe", note)
    snapshots = SnapshotBuilder(world.ctx)
    world.submit("a", gpus=0)
    snapshots.snapshot(snapshots.waiting(), ())
    assert reads == []
    world.submit("a")
    for _ in range(2):
        snapshots.snapshot(snapshots.waiting(), ())
    assert reads == [world.clock.now()]
    world.clock.forward(1)
    snapshots.observe()
    assert len(reads) == 1
    world.clock.forward(0.1)
    snapshots.observe()
    assert len(reads) == 2
    snapshots.observe(0.0)
    assert len(reads) == 2
    world.clock.forward(0.1)
    assert snapshots.observe(0.0) == snapshots.observe()
    assert len(reads) == 3


def test_the_start_that_was_promised_first_is_kept_until_the_job_leaves(world: Any) -> None:
    snapshots = SnapshotBuilder(world.ctx)
    why = Reason(ReasonCode.RESOURCES, "no GPU is free")

    def promise(at: float | None) -> dict[int, float]:
        snapshots.remember_reservations([Wait(7, why, reserved_at=at)])
        return dict(snapshots.snapshot([], ()).promises)

    assert promise(None) == {}
    assert promise(100.0) == {7: 100.0}
    assert promise(200.0) == {7: 100.0}
    snapshots.drop([7])
    assert promise(300.0) == {7: 300.0}


def test_a_run_is_expected_by_what_is_left_of_it(make_world: Any) -> None:
    world = make_world("sim:2")
    job_id = world.submit("a", time_limit_s=600)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    snapshots = SnapshotBuilder(world.ctx)
    seen: list[Any] = []
    expect = world.ctx.run_times.expect

    def note(*words: Any, **named: Any) -> Any:
        seen.append((words, named))
        return expect(*words, **named)

    world.ctx.run_times.expect = note
    world.clock.forward(60)
    [holding] = snapshots.snapshot([], agent.tracked).holdings
    assert (seen[0][0], holding.job_id) == (("alice", ("a",), 1, 600, 60.0), job_id)
    world.clock.jump(-3600)
    snapshots.snapshot([], agent.tracked)
    assert seen[1][0][-1] == 0.0


def test_how_often_a_job_made_room_is_asked_only_of_jobs_that_may_have(make_world: Any) -> None:
    world = make_world("sim:1")
    idle = world.submit("fill", preemptible=True)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(idle)
    agent.run_once()
    snapshots = SnapshotBuilder(world.ctx)
    [holding] = snapshots.snapshot([], agent.tracked).holdings
    assert holding.preemptions_last_hour == 0
    normal = world.submit("train")
    world.clock.forward(301)
    agent.wake()
    agent.run_once()
    world.launcher.end(idle, Outcome.PREEMPTED)
    agent.run_once()
    assert (world.state(idle), world.state(normal)) == ("queued", "starting")
    seen = snapshots.snapshot(snapshots.waiting(), ()).waiting
    assert [(one.id, one.preemptions_last_hour) for one in seen] == [(idle, 1)]
    world.clock.forward(3600)
    seen = snapshots.snapshot(snapshots.waiting(), ()).waiting
    assert [(one.id, one.preemptions_last_hour) for one in seen] == [(idle, 0)]


def test_a_peak_is_the_highest_of_all_readings_and_of_launched_attempts_only(make_world: Any) -> None:
    world = make_world("sim:2x24G")
    job_id = world.submit("a", gpus=2)
    agent = world.agent()
    agent.run_once()
    [tracked] = agent.tracked
    first, second = tracked.gpu_uuids
    world.driver_says({0: {"used_mb": 5600}, 1: {"used_mb": 600}})
    see_peaks(world.ctx.gpus.observe(0.0), agent.tracked)
    assert tracked.peak_mb == {}
    world.launcher.run(job_id)
    agent.run_once()
    see_peaks(world.ctx.gpus.observe(0.0), agent.tracked)
    assert tracked.peak_mb == {first: 5000}
    world.driver_says({0: {"used_mb": 2600}, 1: {"used_mb": 601}})
    see_peaks(world.ctx.gpus.observe(0.0), agent.tracked)
    assert tracked.peak_mb == {first: 5000, second: 1}
    assert (tracked.reserved_mb(first), tracked.holding(0.0).peak_mb) == (None, tracked.peak_mb)


def test_an_attempt_that_was_not_launched_hides_no_peak_of_another(make_world: Any) -> None:
    world = make_world("sim:3x24G")
    jobs = [world.submit("a") for _ in range(3)]
    agent = world.agent()
    agent.run_once()
    world.launcher.run(jobs[1])
    agent.run_once()
    world.driver_says({index: {"used_mb": 5600, "utilisation": 0.5} for index in range(3)})
    world.clock.forward(60)
    agent.run_once()
    seen = {tracked.job.id: (list(tracked.peak_mb.values()), tracked.utilisation[-1:]) for tracked in agent.tracked}
    assert seen == {jobs[0]: ([], []), jobs[1]: ([5000], [0.5]), jobs[2]: ([], [])}


def test_a_run_that_ended_before_it_began_lasted_no_time(world: Any) -> None:
    job_id = world.submit("a")
    agent = world.agent()
    agent.run_once()
    [tracked] = agent.tracked
    assert tracked.finished_run() is None
    tracked.result = Result(Outcome.SUCCEEDED, started_at=None, finished_at=5.0)
    assert tracked.finished_run() is None
    tracked.result = Result(Outcome.SUCCEEDED, started_at=5.0, finished_at=None)
    assert tracked.finished_run() is None
    for started, ended, lasted in ((100.0, 90.0, 0.0), (100.0, 101.5, 1.5)):
        tracked.result = Result(Outcome.SUCCEEDED, started_at=started, finished_at=ended)
        run = tracked.finished_run()
        assert run is not None
        assert (run.job_id, run.run_s, run.finished_at, run.outcome) == (job_id, lasted, ended, Outcome.SUCCEEDED)
        assert (run.user, run.gpus, run.command) == ("alice", 1, ("a",))


def test_a_process_of_nobody_belongs_to_nobody() -> None:
    assert not belongs_to(2**22 + 1, {1}, {1})
    assert not belongs_to(1, {2}, ())
    assert belongs_to(1, {1}, ())


def test_no_chain_of_parents_is_followed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look(pid: int) -> Any:
        looks.append(pid)
        return SimpleNamespace(living=True, session=0, parent=pid + 1)

    monkeypatch.setattr(gpu_processes, "look", look)
    assert not belongs_to(10, {10_000}, ())
    assert len(looks) == 200
    assert belongs_to(10, {50}, ())

"""The machine cannot launch: no job pays for it, nothing is claimed meanwhile, and all goes on by itself."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.retry import decide_retry
from gpuq.domain.states import JobState
from gpuq.engine.attempt import launch_breaker
from gpuq.engine.attempt.failed_launches import FailedLaunches
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.switches import read_switches
from gpuq.user_files import OverQuota


def turn(world: Any) -> Any:
    agent = world.agents[0] if world.agents else world.agent()
    agent.wake()
    agent.turn(0.0, write_after_s=0.0)
    return agent


def said(world: Any) -> str | None:
    with world.ctx.records.read() as tx:
        return read_switches(tx, "box").launch_trouble


def attempts(world: Any, job_id: int) -> list[str]:
    with world.ctx.records.read() as tx:
        return [str(attempt.outcome) for attempt in tx.attempts(job_id)]


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=errno.errorcode.get)
def test_no_errno_of_the_daemons_own_side_is_a_jobs_fault(number: int) -> None:
    assert launch_breaker.is_machines_fault(OSError(number, os.strerror(number), "/home/jobs/1"))


def test_only_the_quota_of_the_jobs_user_is_proved_to_be_its_own() -> None:
    assert not launch_breaker.is_machines_fault(OverQuota(errno.EPERM, "-"))
    assert launch_breaker.is_machines_fault(RuntimeError("a bug"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "/vol/jobs"), "No such file: /vol/jobs"),
        (OSError(errno.ETOOMANYREFS, "Too many references"), "Too many references"),
        (RuntimeError("odd"), "RuntimeError('odd')"),
    ],
)  # fmt: skip
def test_jobs_without_retries_wait_through_a_trouble_and_run_then(world: Any, error: Exception, told: str) -> None:
    jobs = [world.submit("a", max_retries=0) for _ in range(8)]
    world.launcher.fail_next = error
    turn(world)
    turn(world)
    assert (world.state(jobs[0]), attempts(world, jobs[0])) == ("queued", ["launch_error"])
    why = world.queries.why(jobs[0])
    assert why["reason"] == {"code": "LaunchTrouble", "text": f"nothing can be started on this machine now: {told}"}
    assert why["estimated_start"] is None
    assert "Starting" not in {reason["code"] for reason in why["reasons"]}
    world.clock.forward(1)
    turn(world)
    turn(world)
    running = [job_id for job_id in jobs if world.state(job_id) == "starting"]
    assert (len(running), said(world)) == (4, None)
    assert world.job(jobs[0]).retries_used == 0


def test_a_long_trouble_costs_no_attempt_as_long_as_a_launch_of_nothing_fails(world: Any) -> None:
    job_id = world.submit("a", max_retries=0)
    world.launcher.fail_next = OSError(errno.EIO, "Input/output error")
    world.launcher.fail_rehearsal = OSError(errno.EHOSTDOWN, "Host is down", "/vol/jobs")
    turn(world)
    for _ in range(200):
        world.clock.forward(30)
        turn(world)
    assert (world.state(job_id), attempts(world, job_id)) == ("queued", ["launch_error"])
    assert said(world) == "Host is down: /vol/jobs"
    world.launcher.fail_rehearsal, world.launcher.rehearsal_failure = None, "a supervisor died before it had begun"
    world.clock.forward(30)
    turn(world)
    assert said(world) == "a supervisor died before it had begun"
    world.launcher.rehearsal_failure = None
    world.clock.forward(30)
    turn(world)
    assert (world.state(job_id), said(world)) == ("starting", None)


def test_a_rehearsal_is_waited_for_and_given_up_after_a_while(world: Any) -> None:
    job_id = world.submit("a")
    world.launcher.fail_next = OSError(errno.EIO, "-")
    agent = turn(world)
    world.launcher.rehearsal_over = False
    world.clock.forward(1)
    turn(world)
    world.clock.forward(launch_breaker.REHEARSAL_S - 0.5)
    turn(world)
    assert (world.launcher.rehearsals, said(world)) == (1, "-")
    world.clock.forward(0.5)
    turn(world)
    assert (world.launcher.rehearsals, said(world)) == (1, "no supervisor takes a launch")
    world.clock.forward(30)
    turn(world)
    assert world.launcher.rehearsals == 2
    # What is under way is ended with the agent.
    ended: list[int] = []
    agent._breaker._rehearsal.close = lambda: ended.append(1)
    agent.stop()
    assert ended == [1]
    assert world.state(job_id) == "queued"


def test_those_that_fail_together_make_one_pause(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        world.submit("a")

    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, "-")

    monkeypatch.setattr(world.launcher, "start", fail)
    agent = turn(world)
    assert agent._breaker._pause_s == launch_breaker.FIRST_PAUSE_S


def test_a_supervisor_that_never_came_to_life_counts_against_the_machine(world: Any) -> None:
    job_id = world.submit("a", max_retries=0)
    for number in range(1, 8):
        turn(world)
        assert len(world.launcher.orders) == number
        world.launcher.die(job_id)
        turn(world)
        assert (world.state(job_id), said(world)) == ("queued", "no supervisor came to life for it")
        world.clock.forward(60)
    assert attempts(world, job_id) == ["lost"] * 7
    assert (world.job(job_id).lost_count, world.job(job_id).retries_used) == (0, 0)


@pytest.mark.parametrize(("begun", "swept", "charged"), [(False, 0, 0), (True, 0, 1), (False, 2, 1)])
def test_an_end_that_nobody_can_believe_is_charged_unless_the_program_never_existed(
    world: Any, monkeypatch: pytest.MonkeyPatch, begun: bool, swept: int, charged: int
) -> None:
    """Its spec was gone, for instance, and so its supervisor knew no token for the record."""
    job_id = world.submit("a", max_retries=0)
    turn(world)
    untold = Result(Outcome.LOST, error="its exit record cannot be believed: -", swept=False)
    monkeypatch.setattr(world.launcher, "outcome", lambda run_dir, token: untold)
    monkeypatch.setattr(world.launcher, "begun", lambda run_dir: begun)
    monkeypatch.setattr(world.launcher, "sweep", lambda *_: swept)
    world.launcher.die(job_id)
    turn(world)
    assert (attempts(world, job_id), world.job(job_id).lost_count) == (["lost"], charged)
    assert world.state(job_id) == ("delayed" if charged else "queued")


def test_one_that_may_have_begun_is_lost_and_counted(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a job that kills its supervisor at once would be tried for ever."""
    job_id = world.submit("a", max_retries=0)
    turn(world)
    monkeypatch.setattr(world.launcher, "begun", lambda run_dir: True)
    world.launcher.die(job_id)
    turn(world)
    assert (world.state(job_id), world.job(job_id).lost_count, said(world)) == ("delayed", 1, None)


def test_what_left_processes_behind_had_begun(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = world.submit("a", max_retries=0)
    turn(world)
    monkeypatch.setattr(world.launcher, "sweep", lambda *_: 2)
    world.launcher.die(job_id)
    turn(world)
    assert (world.state(job_id), world.job(job_id).lost_count) == ("delayed", 1)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_machines_fault_gives_an_attempt_back_only_where_nothing_ran(outcome: Outcome) -> None:
    decision = decide_retry(
        outcome, stop_reason=None, retries_used=0, max_retries=0, lost_count=4, base_s=1, jitter=0.5, machine_fault=True
    )
    never_ran = outcome in {Outcome.LAUNCH_ERROR, Outcome.LOST, Outcome.PREEMPTED}
    assert (decision.state is JobState.QUEUED) == never_ran
    assert not (never_ran and (decision.uses_retry or decision.counts_lost))


# The home is away.


def test_while_the_home_is_away_nothing_is_claimed_and_no_end_is_guessed(world: Any) -> None:
    running, waiting = world.submit("a", gpus=4, max_retries=0), world.submit("a", max_retries=0)
    agent = turn(world)
    world.launcher.run(running)
    turn(world)
    home, away = world.settings.home, world.settings.home.with_name("away")
    home.rename(away)
    world.launcher.die(running)
    for _ in range(3):
        world.clock.forward(5)
        turn(world)
    assert [tracked.result for tracked in agent.tracked] == [None]
    assert (world.state(running), attempts(world, waiting)) == ("running", [])
    # There, it is written down how it ended.
    world.launcher._results[world.launcher.order_of(running).run_dir] = Result(Outcome.EXIT_NONZERO, exit_code=3)
    away.rename(home)
    turn(world)
    turn(world)
    assert (world.job(running).exit_code, world.state(waiting), said(world)) == (3, "starting", None)


def test_the_empty_folder_that_a_disk_leaves_behind_is_not_the_home(world: Any) -> None:
    job_id = world.submit("a", max_retries=0)
    agent = world.agent()
    home, away = world.settings.home, world.settings.home.with_name("away")
    home.rename(away)
    home.mkdir()
    assert agent._breaker.is_open()
    assert agent._breaker.obstacles._found["home"].startswith(f"{home} is away: No such file or directory")
    assert list(home.iterdir()) == []
    # Another one's.
    (home / world.ctx.agent_lock_path.name).write_text("1\n")
    assert agent._breaker.is_open()
    assert "another folder is in the place of" in agent._breaker.obstacles._found["home"]
    shutil.rmtree(home)
    # The same, with other numbers.
    shutil.copytree(away, home)
    assert not agent._breaker.is_open()
    assert world.state(job_id) == "queued"


def test_the_reaper_guesses_no_end_either(world: Any) -> None:
    job_id = world.submit("a")
    turn(world)
    world.launcher.run(job_id)
    turn(world)
    world.agents.pop().stop()
    world.clock.forward(60)
    jobs = world.settings.home / "jobs"
    jobs.rename(jobs.with_name("gone"))
    world.launcher.die(job_id)
    assert reap(world.ctx) == []
    jobs.with_name("gone").rename(jobs)
    assert reap(world.ctx) == [job_id]


def _cannot_be_launched(world: Any, monkeypatch: pytest.MonkeyPatch, job_id: int) -> list[int]:
    """Something is in the way of this job alone; the attempts that were tried."""
    start, tried = world.launcher.start, []

    def refuse(order: Any) -> Any:
        if order.job_id == job_id:
            tried.append(order.number)
            raise OSError(errno.EIO, "Input/output error", f"/home/jobs/{job_id}")
        return start(order)

    monkeypatch.setattr(world.launcher, "start", refuse)
    return tried


def _others_come_and_go(world: Any, seconds: float) -> int:
    """How many were started in that time, one after the other, on what the job leaves free."""
    started = 0
    for _ in range(int(seconds)):
        world.clock.forward(1)
        promote(world.ctx)
        turn(world)
        for order in [one for one in world.launcher.orders if world.launcher.alive(one.run_dir)]:
            world.launcher.run(order.job_id)
            turn(world)
            world.launcher.end(order.job_id, Outcome.SUCCEEDED)
            started += 1
        turn(world)
    return started


def test_a_job_that_alone_cannot_be_launched_waits_alone(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = world.submit("a", gpus=1, max_retries=0)
    tried = _cannot_be_launched(world, monkeypatch, odd)
    others = [world.submit("b", gpus=1) for _ in range(300)]
    assert _others_come_and_go(world, 120) >= 250, "its pauses keep the others"
    assert (world.state(odd), said(world)) == ("delayed", None)
    assert len(tried) <= 6
    assert (world.job(odd).retries_used, world.job(odd).lost_count) == (0, 0)
    told = world.queries.why(odd)["reason"]
    assert told["code"] == "RetryBackoff"
    assert "could not be launched: [Errno 5] Input/output error" in told["text"]
    # What was in its way is gone.
    monkeypatch.undo()
    _others_come_and_go(world, 400)
    assert world.state(odd) == "completed"
    assert {world.state(job_id) for job_id in others} == {"completed"}


def test_while_nothing_else_starts_it_is_the_machines_trouble(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = world.submit("a", gpus=4)
    tried = _cannot_be_launched(world, monkeypatch, odd)
    for _ in range(8):
        world.clock.forward(60)
        turn(world)
        turn(world)
        assert world.state(odd) == "queued"
    assert len(tried) == 8


def test_failures_are_counted_in_a_row_and_only_with_starts_of_others_between() -> None:
    failures = FailedLaunches()
    assert [failures.failed(1), failures.failed(1), failures.failed(1), failures.failed(1)] == [0, 0, 0, 0]
    counted = []
    for _ in range(4):
        failures.started(2)
        counted.append(failures.failed(1))
    assert counted == [0, 1, 2, 3]
    failures.started(1)
    assert failures.failed(1) == 0
    for job_id in range(10, 2000):
        failures.failed(job_id)
    assert len(failures._failures) == 1000

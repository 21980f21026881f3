"""What goes wrong with one attempt is that attempt's, and one that may live keeps its GPUs."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.proof_of_death import Evidence, Sign
from gpuq.engine.attempt.mishaps import AGAIN_S
from gpuq.engine.attempt.watcher import DOUBT_AGAIN_S
from gpuq.engine.claim import starting
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.queries.health import readyz
from gpuq.engine.switches import stuck_attempts

SUPERVISED = Evidence(Sign.GONE, Sign.LIVES, pids=(7,))


def turn(world: Any) -> None:
    world.agents[0].wake()
    world.agents[0].run_once()


def running(world: Any, count: int) -> list[int]:
    ids = [world.submit("train") for _ in range(count)]
    if not world.agents:
        world.agent()
    turn(world)
    for job_id in ids:
        world.launcher.run(job_id)
    turn(world)
    assert {world.state(job_id) for job_id in ids} == {"running"}
    return ids


def restart(world: Any) -> None:
    world.agents.pop().stop()
    world.ctx = world.open()
    world.agent()


def token_of(world: Any, job_id: int) -> str:
    return str(world.launcher.order_of(job_id).token)


def told(world: Any) -> dict[int, str]:
    with world.ctx.records.read() as tx:
        return stuck_attempts(tx, "box")


def breaks_for(monkeypatch: pytest.MonkeyPatch, world: Any, name: str, job_id: int) -> None:
    """A method of the launcher fails for the attempt of this job."""
    order, real = world.launcher.order_of(job_id), getattr(world.launcher, name)

    def method(*words: Any) -> Any:
        if order.run_dir in words or order.token in words:
            raise RecursionError("a record of a thousand brackets")
        return real(*words)

    monkeypatch.setattr(world.launcher, name, method)


# An attempt of which something lives.


def test_an_attempt_whose_lock_is_gone_and_whose_supervisor_lives_is_adopted_and_runs_once(world: Any) -> None:
    [job_id] = running(world, 1)
    world.launcher.signs[token_of(world, job_id)] = SUPERVISED
    # All that SQL knows of it stands; its folder and the lock in it do not.
    world.launcher.die(job_id)
    world.launcher._launched.clear()
    restart(world)
    turn(world)
    assert (world.state(job_id), len(world.holders())) == ("running", 1)
    assert world.launcher.swept == []
    assert told(world) == {job_id: "its lock is free, but its supervisor still lives (pid 7); its GPUs stay held"}
    world.launcher._results[world.launcher.order_of(job_id).run_dir] = Result(Outcome.EXIT_NONZERO, exit_code=7)
    world.clock.forward(DOUBT_AGAIN_S)
    turn(world)
    with world.ctx.records.read() as tx:
        [attempt] = tx.attempts(job_id)
    assert (attempt.outcome, attempt.exit_code) == (Outcome.EXIT_NONZERO, 7)
    assert told(world) == {}


def test_the_reaper_sweeps_nothing_that_is_supervised(world: Any) -> None:
    [job_id] = running(world, 1)
    world.launcher.signs[token_of(world, job_id)] = SUPERVISED
    world.launcher._alive.clear()
    world.clock.forward(100)
    assert reap(world.ctx) == []
    assert (world.state(job_id), world.launcher.swept) == ("running", [])


def test_an_end_that_is_written_while_its_supervisor_is_looked_for_is_the_one(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job_id] = running(world, 1)
    order, sweep = world.launcher.order_of(job_id), world.launcher.sweep

    def late(*words: Any) -> int:
        world.launcher._results[order.run_dir] = Result(Outcome.SUCCEEDED, exit_code=0)
        return int(sweep(*words))

    monkeypatch.setattr(world.launcher, "sweep", late)
    world.launcher.die(job_id)
    turn(world)
    assert world.state(job_id) == "completed"


def test_what_cannot_be_proved_dead_after_a_sweep_keeps_its_gpus_and_is_asked_again(world: Any) -> None:
    [job_id] = running(world, 1)
    token = token_of(world, job_id)
    world.launcher.signs[token] = Evidence(Sign.GONE, Sign.GONE, session=Sign.UNSEEN, pids=(8,))
    world.launcher.die(job_id)
    turn(world)
    turn(world)
    # Not at every turn: it takes a look at every process.
    assert world.launcher.swept == [token]
    assert (world.state(job_id), len(world.holders())) == ("running", 1)
    assert told(world) == {job_id: "its supervisor is gone, but its session cannot be told (pid 8); its GPUs stay held"}
    del world.launcher.signs[token]
    world.clock.forward(DOUBT_AGAIN_S)
    turn(world)
    assert (world.state(job_id), world.holders(), told(world)) == ("delayed", {}, {})


# An end that was told, because it could not be written.


@pytest.mark.parametrize("reported", [True, False])
def test_an_end_that_is_told_is_recorded_while_the_lock_is_still_held(
    world: Any, monkeypatch: pytest.MonkeyPatch, reported: bool
) -> None:
    job_id = world.submit("train", max_retries=0)
    world.agent()
    turn(world)
    order = world.launcher.order_of(job_id)
    if reported:
        world.launcher.run(job_id)
        turn(world)
    ends = {order.token: Result(Outcome.EXIT_NONZERO, exit_code=7)}
    monkeypatch.setattr(world.launcher, "told_end", ends.get)
    monkeypatch.setattr(world.launcher, "outcome", lambda run_dir, token: ends.get(token))
    if reported:
        os.write(world.launcher._report_ends[order.run_dir], b"its end")
    else:
        # Both at once.
        world.launcher.run(job_id)
    turn(world)
    job = world.job(job_id)
    assert (str(job.state), job.exit_code, world.holders()) == ("failed", 7, {})
    assert world.launcher.alive(order.run_dir)


# Something that goes wrong.


@pytest.mark.parametrize("name", ["alive", "outcome", "launched", "evidence"])
def test_an_agent_starts_and_looks_after_the_others_whatever_one_attempt_does(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    bad, good = running(world, 2)
    with world.ctx.records.write() as tx:
        # As one that was killed before it could write the start down.
        tx.note_peak(bad, 1, token_of(world, bad), 1)
    world.launcher.die(bad)
    monkeypatch.setattr("gpuq.engine.attempt.adopt.recorded", lambda _: None)
    breaks_for(monkeypatch, world, name, bad)
    caplog.set_level(logging.ERROR)
    restart(world)
    world.launcher.end(good, Outcome.SUCCEEDED, exit_code=0)
    later = world.submit("train")
    turn(world)
    turn(world)
    assert [world.state(job_id) for job_id in (bad, good, later)] == ["running", "completed", "starting"]
    text = "looking after it fails: RecursionError: a record of a thousand brackets"
    assert told(world) == {bad: text}
    # Once, and not at every turn.
    assert [record.exc_info is not None for record in caplog.records if text in record.message] == [True]
    assert len(world.holders()) == 2
    monkeypatch.undo()
    world.clock.forward(AGAIN_S)
    turn(world)
    assert (world.state(bad), told(world)) == ("delayed", {})


def test_a_report_that_cannot_be_read_is_not_asked_for_again_and_again(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = world.submit("train"), world.submit("train")
    world.agent()
    turn(world)
    real, asked = world.launcher.report, []

    def report(fd: int) -> Any:
        asked.append(fd)
        if len(asked) == 1:
            raise OSError(5, "Input/output error")
        return real(fd)

    monkeypatch.setattr(world.launcher, "report", report)
    world.launcher.run(bad)
    for _ in range(3):
        turn(world)
    assert (len(asked), world.state(bad)) == (1, "starting")
    world.launcher.run(good)
    turn(world)
    assert world.state(good) == "running"
    # The folder tells the same.
    world.clock.forward(AGAIN_S)
    turn(world)
    turn(world)
    assert world.state(bad) == "running"


def test_the_reaper_goes_on_to_the_others(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = running(world, 2)
    for job_id in (bad, good):
        world.launcher.die(job_id)
    breaks_for(monkeypatch, world, "outcome", bad)
    world.clock.forward(100)
    assert reap(world.ctx) == [good]


# A row that the database refuses.


def refused(*_: object) -> Any:
    raise ValueError("the database refused a row")


def test_an_end_that_the_database_refuses_holds_up_no_other_end_and_no_start(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = running(world, 2)
    for job_id in (bad, good):
        world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    later = world.submit("train")
    real = type(world.ctx.records.write().__enter__())
    end_attempt = real.end_attempt

    def end(self: Any, job_id: int, *words: Any) -> Any:
        return refused() if job_id == bad else end_attempt(self, job_id, *words)

    monkeypatch.setattr(real, "end_attempt", end)
    for _ in range(3):
        turn(world)
    assert [world.state(job_id) for job_id in (bad, good, later)] == ["running", "completed", "starting"]
    assert told(world) == {bad: "looking after it fails: ValueError: the database refused a row"}
    world.clock.forward(AGAIN_S - 1)
    # It keeps its GPU, as long as SQL says that it runs there.
    assert [world.state(job_id) for job_id in (world.submit("train"), bad)] == ["queued", "running"]
    turn(world)
    gpus = [world.launcher.order_of(job_id).spec["env"]["GPUQ_GPUS"] for job_id in (bad, later, later + 1)]
    assert gpus[0] not in gpus[2]
    monkeypatch.undo()
    world.clock.forward(AGAIN_S)
    turn(world)
    assert world.state(bad) == "completed"


def test_a_start_that_the_database_refuses_holds_up_no_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = world.submit("train"), world.submit("train")
    world.agent()
    turn(world)
    for job_id in (bad, good):
        world.launcher.run(job_id)
    real = type(world.ctx.records.write().__enter__())
    launched = real.launched

    def write(self: Any, job_id: int, *words: Any) -> Any:
        return refused() if job_id == bad else launched(self, job_id, *words)

    with monkeypatch.context() as patch:
        patch.setattr(real, "launched", write)
        turn(world)
    assert [world.state(job_id) for job_id in (bad, good)] == ["starting", "running"]
    # Its end brings the start with it.
    world.launcher.end(bad, Outcome.SUCCEEDED, exit_code=0)
    world.clock.forward(AGAIN_S)
    turn(world)
    assert world.state(bad) == "completed"


def test_a_time_limit_that_cannot_be_shown_holds_up_no_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = (world.submit("train", time_limit_s=5) for _ in range(2))
    world.agent()
    turn(world)
    for job_id in (bad, good):
        world.launcher.run(job_id)
    turn(world)
    real = type(world.ctx.records.write().__enter__())
    spec = real.spec
    monkeypatch.setattr(real, "spec", lambda self, job_id: refused() if job_id == bad else spec(self, job_id))
    world.clock.forward(6)
    turn(world)
    assert [world.state(job_id) for job_id in (bad, good)] == ["running", "stopping"]


def test_a_start_that_goes_wrong_holds_up_no_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = world.submit("train"), world.submit("train")
    order = starting._order

    def broken(ctx: Any, tracked: Any, *more: Any) -> Any:
        return refused() if tracked.job.id == bad else order(ctx, tracked, *more)

    monkeypatch.setattr(starting, "_order", broken)
    world.agent()
    turn(world)
    assert [world.state(job_id) for job_id in (bad, good)] == ["queued", "starting"]
    assert len(world.holders()) == 1


def test_doctor_is_told_of_an_attempt_in_doubt(world: Any) -> None:
    [job_id] = running(world, 1)
    world.launcher.signs[token_of(world, job_id)] = SUPERVISED
    world.launcher.die(job_id)
    turn(world)
    health = readyz(world.ctx, world.queries.agent)
    assert "its supervisor still lives" in str(health)
    assert "its supervisor still lives" in str(world.queries.why(job_id))

"""Supervisors that stand still, also by their own job: continued, and replaced where that does not help."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.linux import look
from gpuq.supervise import bundle

PATIENCE_S = 20.0


def told(world) -> str:
    """What the fork server said of it, taken out: everything else that stands there is a failure."""
    messages = Path(world.root / "messages")
    text = messages.read_text()
    messages.write_text("")
    return text


def test_a_supervisor_that_its_own_job_stops_goes_on_and_the_exit_code_is_the_true_one(world) -> None:
    attempt = world.shell("read go < $BELL; kill -STOP $PPID; exit 3", env={"BELL": str((bell := world.bell()).path)})
    bell.path.write_text("go\n")
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.EXIT_NONZERO, 3)
    assert told(world) == f"gpuq supervise: supervisor {attempt.running.supervisor_pid} was stopped; it is continued\n"


def test_a_job_that_stops_its_supervisor_before_that_has_reported_is_reported(world) -> None:
    attempt = world.shell("kill -STOP $PPID; exit 3")
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.EXIT_NONZERO, 3)
    told(world)


def test_a_stopped_supervisor_obeys_a_cancel_without_any_daemon(world) -> None:
    attempt = world.shell("sleep 100")
    os.kill(attempt.running.supervisor_pid, signal.SIGSTOP)
    attempt.stop("cancel", grace_s=0.0)
    assert attempt.result().outcome is Outcome.CANCELLED
    assert look(attempt.running.pid) is None
    told(world)


def suspend(world, attempt) -> None:
    """Without a fork server, which would continue it."""
    server = os.pidfd_open(world.launcher.server.pid)
    os.kill(world.launcher.server.pid, signal.SIGKILL)
    assert select.select([server], [], [], PATIENCE_S)[0], "the fork server lives"
    os.close(server)
    pid = attempt.running.supervisor_pid
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: look(pid).stopped, "the supervisor stands still")


def eventually(condition, what: str) -> None:
    """Nothing tells of it."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def take_over(attempt, reason: str | None = "cancel", grace_s: float = 0.0) -> None:
    """To its end."""
    oversight = attempt.launcher.oversight

    def over() -> bool:
        token = attempt.order.token
        return oversight.take_over(attempt.run_dir, token, attempt.launched, reason=reason, grace_s=grace_s) is None

    eventually(over, "the supervisor is gone")


CHILD = "setsid sh -c 'trap \"\" TERM; echo $$ >$BELL; sleep 100' &"


@pytest.mark.parametrize(("reason", "outcome"), [("cancel", "cancelled"), ("preempt", "preempted")])
def test_an_attempt_is_ended_in_place_of_a_supervisor_that_stands_still(world_of_each_kind, reason, outcome) -> None:
    world = world_of_each_kind
    bell = world.bell()
    attempt = world.shell(f"{CHILD} sleep 100", env={"BELL": str(bell.path)})
    child = int(bell.wait())
    suspend(world, attempt)
    take_over(attempt, reason)
    assert attempt.result().outcome == outcome
    attempt.launcher.sweep(attempt.order.token, attempt.running.pid, attempt.running.pid_start)
    assert all(seen is None or not seen.living for seen in map(look, (child, attempt.running.pid)))


def test_the_job_of_a_supervisor_that_was_replaced_has_its_grace_and_keeps_its_exit_code(world) -> None:
    bell = world.bell()
    attempt = world.shell(
        "trap 'echo asked >$BELL; exit 5' TERM; echo ready >$BELL; while :; do sleep 0.05; done",
        env={"BELL": str(bell.path)},
    )
    assert bell.wait() == "ready"
    suspend(world, attempt)
    take_over(attempt, "time_limit", PATIENCE_S)
    assert bell.wait() == "asked"
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.TIME_LIMIT, 5)


def test_the_heir_of_a_supervisor_that_was_replaced_writes_no_second_end(world) -> None:
    bell = world.bell()
    attempt = world.shell(
        "trap 'exit 0' TERM; echo ready >$BELL; while :; do sleep 0.05; done", env={"BELL": str(bell.path)}
    )
    assert bell.wait() == "ready"
    os.kill(attempt.running.supervisor_pid, signal.SIGSTOP)
    take_over(attempt, "cancel", PATIENCE_S)
    # Its heir has seen by now that the program ended with 0.
    eventually(lambda: look(attempt.running.supervisor_pid) is None, "its fork server has reaped it")
    assert not os.path.exists(os.path.join(attempt.records, bundle.EXIT))
    assert attempt.result().outcome is Outcome.CANCELLED
    told(world)


def test_a_supervisor_that_comes_back_to_life_signals_nobody_and_writes_no_end(world) -> None:
    bell = world.bell()
    attempt = world.shell(
        "trap '' TERM; echo ready >$BELL; read go <$GATE; exit 4",
        env={"BELL": str(bell.path), "GATE": str((gate := world.bell()).path)},
    )
    assert bell.wait() == "ready"
    suspend(world, attempt)
    oversight = world.launcher.oversight
    known = attempt.launched
    assert oversight.take_over(attempt.run_dir, attempt.order.token, known, reason="cancel", grace_s=100.0) is not None
    os.kill(attempt.running.supervisor_pid, signal.SIGCONT)
    attempt.stop("cancel", grace_s=0.0)
    # The first look asks whether it listens, the next ones whether it did: it has heard of SIGKILL, and sends none.
    eventually(lambda: not oversight.look(attempt.run_dir, known).unread, "it listens")
    eventually(lambda: not oversight.look(attempt.run_dir, known).unread, "it listens")
    assert look(attempt.running.pid).living
    gate.path.write_text("go\n")
    attempt.wait()
    assert not os.path.exists(os.path.join(attempt.records, bundle.EXIT))
    assert attempt.result().outcome is Outcome.CANCELLED


def test_a_job_that_had_ended_before_its_supervisor_was_replaced_keeps_its_own_end(world) -> None:
    attempt = world.shell("read go <$GATE; exit 4", env={"GATE": str((gate := world.bell()).path)})
    suspend(world, attempt)
    gate.path.write_text("go\n")
    eventually(lambda: world.launcher.oversight.look(attempt.run_dir, attempt.launched).main_ended, "it has ended")
    take_over(attempt, None)
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.EXIT_NONZERO, 4)


def test_a_supervisor_that_has_reported_nothing_is_found_by_its_lock(world) -> None:
    attempt = world.shell("sleep 100")
    suspend(world, attempt)
    known, attempt.launched = attempt.launched, None
    sight = world.launcher.oversight.look(attempt.run_dir, None)
    assert (sight.state, sight.pid, sight.start) == ("stands still", known.supervisor_pid, known.supervisor_start)
    take_over(attempt)
    attempt.launched = known
    assert attempt.result().outcome is Outcome.CANCELLED


def test_a_supervisor_that_stands_still_is_seen_and_continued_from_outside(world) -> None:
    attempt = world.shell("sleep 100")
    oversight = world.launcher.oversight
    assert oversight.is_well(attempt.running)
    suspend(world, attempt)
    assert not oversight.is_well(attempt.running)
    assert not oversight.look(attempt.run_dir, attempt.launched).unread
    # The nudge of the first look.
    sight = oversight.look(attempt.run_dir, attempt.launched)
    assert (sight.state, sight.unread) == ("stands still", True)
    oversight.resume(sight)
    eventually(lambda: oversight.is_well(attempt.running), "it goes on")
    eventually(lambda: not oversight.look(attempt.run_dir, attempt.launched).unread, "it listens")


def test_a_fork_server_that_stands_still_is_continued(world) -> None:
    world.shell("exit 0").result()
    server = world.launcher.server.pid
    assert not world.launcher.oversight.resume_fork_server()
    os.kill(server, signal.SIGSTOP)
    eventually(lambda: look(server).stopped, "it stands still")
    assert world.launcher.oversight.resume_fork_server()
    eventually(lambda: not look(server).stopped, "it goes on")

"""Supervisors that stand still, also by their own job: continued, and replaced where that does not help."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from gpuq.domain.outcome import Outcome
from gpuq.linux import look


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

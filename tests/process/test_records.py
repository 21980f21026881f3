"""What a supervisor writes down, field by field."""

from __future__ import annotations

import os
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.supervise import bundle, processes


def over(world: Any, order: Any) -> dict[str, object]:
    """The exit record of an attempt that never reports."""
    attempt = world.hand_over(order)
    attempt.hear()
    assert attempt.launched is None
    return attempt.exit_record()


def test_both_records_of_a_run_are_whole(world: Any) -> None:
    bell = world.bell()
    attempt = world.shell(f"read line < {bell.path}; exit 3")
    supervisor, job = attempt.running.supervisor_pid, attempt.running.pid
    started = bundle.read(attempt.records, bundle.STARTED)
    assert started == {
        "schema": 1,
        "token": attempt.order.token,
        "supervisor_pid": supervisor,
        "supervisor_start": processes.start_of(supervisor),
        "pid": job,
        "pid_start": attempt.running.pid_start,
        "started_at": attempt.running.started_at,
    }
    bell.path.write_text("go\n")
    assert attempt.result().outcome is Outcome.EXIT_NONZERO
    record = attempt.exit_record()
    assert record.pop("finished_at") >= record["started_at"]
    assert record == {
        "schema": 1,
        "token": attempt.order.token,
        "outcome": "exit_nonzero",
        "exit_code": 3,
        "signal": None,
        "error": "ended with exit code 3",
        "started_at": attempt.running.started_at,
        "stop_reason": None,
    }


@pytest.mark.parametrize("spec", [{"argv": []}, {"argv": "true"}])
def test_a_spec_that_cannot_be_run_ends_as_an_error_of_its_launch(world: Any, spec: dict[str, object]) -> None:
    order = world.order("true", **spec)
    record = over(world, order)
    assert (record["outcome"], record["error"]) == (
        "launch_error",
        "spec.json: the spec names no program or no environment",
    )
    assert (record["exit_code"], record["signal"], record["started_at"], record["stop_reason"]) == (None,) * 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a job of another user")
def test_a_program_of_another_user_that_is_over_at_once_was_started(world: Any) -> None:
    attempt = world.start("true", uid=65534, gid=65534, user="nobody")
    assert attempt.running.pid != attempt.running.supervisor_pid
    assert attempt.result().outcome is Outcome.SUCCEEDED
    refused = over(world, world.order("no-such-program", uid=65534, gid=65534, user="nobody"))
    assert (refused["outcome"], refused["error"]) == (
        "launch_error",
        "the program no-such-program was not found in the job's PATH",
    )

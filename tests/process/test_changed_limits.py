"""A supervisor is told other limits than those in its spec."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.ports.launcher import AttemptLimits
from gpuq.supervise import bundle, limits, takeover

# Rings for each signal, and ends with the second.
RINGING = """
import os, signal, sys
bell = os.open(sys.argv[1], os.O_WRONLY)
signal.signal(signal.SIGUSR1, lambda number, frame: os.write(bell, b"USR1\\n"))
os.write(bell, b"ready\\n")
while True:
    signal.pause()
"""


def change(attempt: Any, time_limit_s: float | None, kill_grace_s: float | None = None) -> None:
    attempt.launcher.change_limits(
        attempt.run_dir, attempt.order.token, time_limit_s=time_limit_s, kill_grace_s=kill_grace_s
    )


def known(attempt: Any) -> AttemptLimits | None:
    found: AttemptLimits | None = attempt.launcher.limits(attempt.run_dir, attempt.order.token)
    return found


def test_a_limit_that_is_over_already_stops_the_job_and_is_named_in_its_end(world: Any) -> None:
    attempt = world.shell("sleep 1000", time_limit_s=3600.0)
    assert known(attempt) == AttemptLimits(3600.0, 20.0, heard=True)
    change(attempt, 0.01)
    result = attempt.result()
    assert (result.outcome, result.signal) == (Outcome.TIME_LIMIT, int(signal.SIGTERM))
    assert result.error == "ran into its time limit of 0.01 s"


def test_a_job_without_a_limit_can_be_given_one_and_a_shorter_grace(world: Any) -> None:
    bell = world.bell()
    deaf = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    deaf += "os.write(os.open(sys.argv[1], os.O_WRONLY), b'ready\\n')\nwhile True: signal.pause()"
    attempt = world.start(sys.executable, "-I", "-S", "-c", deaf, str(bell.path), kill_grace_s=3600.0)
    assert bell.wait() == "ready"
    change(attempt, 0.01, 0.1)
    result = attempt.result()
    assert (result.outcome, result.signal) == (Outcome.TIME_LIMIT, int(signal.SIGKILL))


def test_a_job_that_is_made_longer_outlives_its_old_limit_and_is_announced_the_new_one(world: Any) -> None:
    bell = world.bell()
    argv = (sys.executable, "-I", "-S", "-c", RINGING, str(bell.path))
    attempt = world.start(*argv, time_limit_s=3.0, signal={"name": "USR1", "before_s": 0.5})
    change(attempt, 4.0)
    assert (bell.wait(), bell.wait()) == ("ready", "USR1")
    # Announced before the old limit it would have been sooner.
    assert time.time() >= attempt.running.started_at + 3.0
    result = attempt.result()
    assert (result.outcome, result.error) == (Outcome.TIME_LIMIT, "ran into its time limit of 4 s")


def test_an_attempt_that_is_told_before_its_launch_goes_by_that(world: Any) -> None:
    order = world.order("/bin/sh", "-c", "sleep 0.5; exit 7", time_limit_s=0.1)
    world.launcher.change_limits(order.run_dir, order.token, time_limit_s=None, kill_grace_s=None)
    assert world.launcher.limits(order.run_dir, order.token) is None
    attempt = world.launch(order)
    assert known(attempt) == AttemptLimits(None, 20.0, heard=True)
    assert attempt.result().exit_code == 7


def test_what_another_attempt_was_told_or_nobody_could_have_meant_is_not_believed(world: Any) -> None:
    attempt = world.shell("sleep 0.6; exit 7", time_limit_s=3600.0)
    good = {"token": attempt.order.token, "time_limit_s": 0.01, "kill_grace_s": None}
    for wrong in ({"token": "x" * 32}, {"time_limit_s": "1"}, {"time_limit_s": -1}, {"kill_grace_s": -1}):
        bundle.write(attempt.records, bundle.LIMITS, {**good, **wrong})
        assert known(attempt) == AttemptLimits(3600.0, 20.0, heard=True)
        line = json.dumps({**good, "limits": True, **wrong}).encode()
        assert limits.of_line(line, attempt.order.token) is None
        with open(os.path.join(attempt.records, bundle.CONTROL), "wb", buffering=0) as control:
            control.write(line + b"\n")
    assert attempt.result().exit_code == 7


def test_a_full_disk_does_not_keep_a_supervisor_from_hearing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = world.shell("sleep 1000", time_limit_s=3600.0)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write", full)
        change(attempt, 0.01)
    assert known(attempt) == AttemptLimits(3600.0, 20.0, heard=True), "it is to be told again"
    assert attempt.result().outcome is Outcome.TIME_LIMIT
    monkeypatch.setattr(bundle, "write", full)
    with pytest.raises(OSError, match="No space left"):
        change(attempt, 5.0)


def test_a_stop_that_is_under_way_goes_on_as_it_was_told(world: Any) -> None:
    bell = world.bell()
    deaf = "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *a: os.write(bell, b'TERM\\n'))\n"
    deaf += "bell = os.open(sys.argv[1], os.O_WRONLY); os.write(bell, b'ready\\n')\nwhile True: signal.pause()"
    attempt = world.start(sys.executable, "-I", "-S", "-c", deaf, str(bell.path), time_limit_s=3600.0)
    assert bell.wait() == "ready"
    attempt.stop(grace_s=0.5)
    assert bell.wait() == "TERM"
    change(attempt, 7200.0, 3600.0)
    result = attempt.result()
    assert (result.outcome, result.signal) == (Outcome.CANCELLED, int(signal.SIGKILL))


def test_a_supervisor_of_an_earlier_release_is_known_by_its_spec(world: Any) -> None:
    attempt = world.shell("exit 0", time_limit_s=3600.0)
    attempt.wait()
    spec = bundle.read(attempt.records, bundle.SPEC)
    assert spec is not None
    del spec[limits.HEARS]
    bundle.write(attempt.records, bundle.SPEC, spec)
    assert known(attempt) == AttemptLimits(3600.0, 20.0, heard=False)


def test_whoever_takes_an_attempt_over_names_the_limit_that_it_had(world: Any, tmp_path: Path) -> None:
    attempt = world.shell("exit 0", time_limit_s=3600.0)
    attempt.wait()
    change(attempt, 60.0)
    told = takeover.record(
        attempt.records,
        attempt.order.token,
        reason="time_limit",
        code=None,
        ended_by_itself=False,
        started_at=None,
    )
    assert told["error"] == "ran into its time limit of 60 s"

"""Stopping: the ladder, the time limit, the races."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.supervise import bundle

# Rings for each signal and goes on, whatever comes.
STUBBORN = """
import os, signal, sys
bell = os.open(sys.argv[1], os.O_WRONLY)
for name in ("TERM", "USR1", "INT"):
    signal.signal(getattr(signal, "SIG" + name), lambda number, frame: os.write(bell, b"%d\\n" % number))
os.write(bell, b"ready\\n")
while True:
    signal.pause()
"""
# Leaves with 0 at SIGTERM, as a program does that writes a checkpoint first.
POLITE = """
import os, signal, sys
bell = os.open(sys.argv[1], os.O_WRONLY)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
os.write(bell, b"ready\\n")
while True:
    signal.pause()
"""


def program(world, text: str, **spec):
    bell = world.bell()
    attempt = world.start(sys.executable, "-I", "-S", "-c", text, str(bell.path), **spec)
    assert bell.wait() == "ready"
    return attempt, bell


def test_cancelled_job_that_ignores_sigterm_is_killed_after_its_grace(world) -> None:
    attempt, bell = program(world, STUBBORN)
    began = time.monotonic()
    attempt.stop("cancel", grace_s=0.3)
    assert bell.wait() == str(int(signal.SIGTERM))
    result = attempt.result()
    assert time.monotonic() - began >= 0.3
    assert (result.outcome, result.signal) == (Outcome.CANCELLED, signal.SIGKILL)
    assert attempt.exit_record()["stop_reason"] == "cancel"


def test_a_cancel_stays_one_whatever_it_is_told_later(world) -> None:
    attempt, _ = program(world, STUBBORN)
    launcher = attempt.launcher
    attempt.stop("preempt")
    assert not launcher.told_to_cancel(attempt.run_dir)
    attempt.stop("cancel")
    attempt.stop("shutdown", grace_s=0.0)
    assert launcher.told_to_cancel(attempt.run_dir)
    assert attempt.result().signal == signal.SIGKILL, "the smaller grace counts all the same"
    assert not launcher.told_to_cancel(f"{attempt.run_dir}0")


def test_full_disk_does_not_keep_a_job_from_being_stopped(world, monkeypatch) -> None:
    attempt, bell = program(world, STUBBORN)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write", full)
        attempt.stop("cancel", grace_s=0.3)
        assert bell.wait() == str(int(signal.SIGTERM))
        result = attempt.result()
        with pytest.raises(OSError, match="No space left"):
            attempt.stop("cancel", grace_s=0.3)
    assert (result.outcome, result.signal) == (Outcome.CANCELLED, signal.SIGKILL)


def test_force_while_in_grace_kills_at_once(world) -> None:
    attempt, bell = program(world, STUBBORN)
    attempt.stop("cancel", grace_s=600.0)
    assert bell.wait() == str(int(signal.SIGTERM))
    attempt.stop("cancel", grace_s=0.0)
    assert attempt.result().outcome is Outcome.CANCELLED


def test_rewritten_request_with_a_smaller_grace_takes_effect(world) -> None:
    attempt, bell = program(world, STUBBORN)
    attempt.stop("cancel", grace_s=600.0)
    assert bell.wait() == str(int(signal.SIGTERM))
    attempt.stop("cancel", grace_s=0.2)
    assert attempt.result().signal == signal.SIGKILL


def test_rewritten_request_with_a_larger_grace_changes_nothing(world) -> None:
    attempt, bell = program(world, STUBBORN)
    attempt.stop("cancel", grace_s=0.5)
    assert bell.wait() == str(int(signal.SIGTERM))
    attempt.stop("cancel", grace_s=600.0)
    assert attempt.result(seconds=10).signal == signal.SIGKILL


def test_grace_of_zero_sends_no_sigterm(world) -> None:
    attempt, bell = program(world, STUBBORN)
    attempt.stop("cancel", grace_s=0.0)
    assert attempt.result().signal == signal.SIGKILL
    with pytest.raises(AssertionError, match="nobody rang"):
        bell.wait(0.05)


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("cancel", Outcome.CANCELLED),
        ("preempt", Outcome.PREEMPTED),
        ("drain", Outcome.PREEMPTED),
        ("shutdown", Outcome.LOST),
    ],
)
def test_job_that_leaves_with_zero_at_a_stop_has_the_outcome_of_the_stop(world, reason, outcome) -> None:
    attempt, _ = program(world, POLITE)
    attempt.stop(reason)
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (outcome, 0)


def test_cancel_takes_the_place_of_a_preemption(world) -> None:
    attempt, bell = program(world, STUBBORN, signal={"name": "USR1", "before_s": 500})
    attempt.stop("preempt", grace_s=600.0)
    assert bell.wait() == str(int(signal.SIGUSR1))
    attempt.stop("cancel", grace_s=0.2)
    assert bell.wait() == str(int(signal.SIGTERM))
    assert attempt.result().outcome is Outcome.CANCELLED


def test_preempted_job_gets_its_own_signal_first_and_sigterm_later(world) -> None:
    attempt, bell = program(world, STUBBORN, signal={"name": "USR1", "before_s": 0.3})
    began = time.monotonic()
    attempt.stop("preempt", grace_s=0.5)
    assert bell.wait() == str(int(signal.SIGUSR1))
    assert bell.wait() == str(int(signal.SIGTERM))
    assert time.monotonic() - began >= 0.3
    assert attempt.result().outcome is Outcome.PREEMPTED


def test_signal_of_the_request_is_sent_before_sigterm(world) -> None:
    attempt, bell = program(world, STUBBORN)
    attempt.stop("cancel", grace_s=0.3, signal="INT")
    assert {bell.wait(), bell.wait()} == {str(int(signal.SIGINT)), str(int(signal.SIGTERM))}
    assert attempt.result().outcome is Outcome.CANCELLED


def test_time_limit_ends_the_job(world) -> None:
    result = world.start("sleep", "100", time_limit_s=0.2).result()
    assert (result.outcome, result.signal) == (Outcome.TIME_LIMIT, signal.SIGTERM)
    assert result.error == "ran into its time limit of 0.2 s"


def test_time_limit_of_a_job_that_leaves_with_zero_is_still_one(world) -> None:
    attempt, _ = program(world, POLITE, time_limit_s=1.0)
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.TIME_LIMIT, 0)


def test_job_is_signalled_before_its_time_limit(world) -> None:
    attempt, bell = program(world, STUBBORN, time_limit_s=1.5, kill_grace_s=0.1, signal={"name": "USR1", "before_s": 1})
    assert bell.wait() == str(int(signal.SIGUSR1))
    assert time.time() - attempt.running.started_at < 1.4
    assert bell.wait() == str(int(signal.SIGTERM))
    assert attempt.result().outcome is Outcome.TIME_LIMIT


def test_signal_before_the_limit_spares_the_shell_around_the_program(world) -> None:
    bell = world.bell()
    inner = "trap 'echo noticed > $BELL; exit 0' USR1; echo ready > $BELL; while :; do sleep 0.05; done"
    attempt = world.shell(
        'sh -c "$INNER"; echo after > $BELL',
        env={"BELL": str(bell.path), "INNER": inner},
        time_limit_s=30.0,
        signal={"name": "USR1", "before_s": 29.0},
    )
    assert [bell.wait(), bell.wait(), bell.wait()] == ["ready", "noticed", "after"]
    assert attempt.result().outcome is Outcome.SUCCEEDED


def test_job_that_dies_of_the_signal_before_its_limit_ran_into_the_limit(world) -> None:
    result = world.start("sleep", "100", time_limit_s=30.0, signal={"name": "USR1", "before_s": 29.9}).result()
    assert (result.outcome, result.signal) == (Outcome.TIME_LIMIT, signal.SIGUSR1)


def test_stopped_processes_hear_the_sigterm(world) -> None:
    attempt = world.start("sleep", "100")
    os.kill(attempt.running.pid, signal.SIGSTOP)
    attempt.stop("cancel")
    assert attempt.result().signal == signal.SIGTERM


def test_job_cancelled_before_its_launch_never_runs(world) -> None:
    order = world.order("/bin/sh", "-c", "echo ran > $HERE/ran", env={"HERE": str(world.root)})
    world.launcher.request_stop(order.run_dir, reason="cancel", grace_s=5.0)
    attempt = world.launch(order)
    assert attempt.launched is None
    result = attempt.result()
    assert (result.outcome, result.started_at) == (Outcome.CANCELLED, None)
    assert result.error == "stopped: cancel, before it was started"
    assert not (world.root / "ran").exists()
    assert not Path(attempt.records, bundle.STARTED).exists()


def test_job_preempted_before_its_launch_is_preempted(world) -> None:
    order = world.order("true")
    world.launcher.request_stop(order.run_dir, reason="preempt", grace_s=5.0)
    assert world.launch(order).result().outcome is Outcome.PREEMPTED


def test_stop_racing_the_launch_always_wins_or_finds_the_job(world) -> None:
    for _ in range(25):
        order = world.order("sleep", "100")
        attempt = world.hand_over(order)
        world.launcher.request_stop(order.run_dir, reason="cancel", grace_s=5.0)
        attempt.hear()
        assert attempt.result().outcome is Outcome.CANCELLED


def test_end_that_came_before_the_stop_is_kept(world) -> None:
    attempt = world.shell("exit 0")
    attempt.wait()
    attempt.stop("cancel")
    assert attempt.result().outcome is Outcome.SUCCEEDED


def test_sigterm_to_the_supervisor_ends_the_job_and_counts_as_lost(world) -> None:
    attempt, _ = program(world, POLITE)
    os.kill(attempt.running.supervisor_pid, signal.SIGTERM)
    result = attempt.result()
    assert result.outcome is Outcome.LOST
    assert result.error == "the machine was shut down, or the supervisor was told to stop"


def test_job_that_ended_with_zero_at_a_shutdown_has_succeeded(world) -> None:
    """It was done before the shutdown reached it, and its supervisor hears of both at once."""
    bell = world.bell()
    attempt = world.shell("read go < $BELL", env={"BELL": str(bell.path)})
    supervisor, ended = attempt.running.supervisor_pid, os.pidfd_open(attempt.running.pid)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        bell.path.write_text("go\n")
        assert select.select([ended], [], [], 20)[0], "the job never ended"
        os.kill(supervisor, signal.SIGTERM)
    finally:
        os.close(ended)
        os.kill(supervisor, signal.SIGCONT)
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.SUCCEEDED, 0)


# A supervisor in a process of its own. Its SIGTERM comes while it waits for it, after the job's.
SLOWER = """
import os, signal, sys
sys.path[:0] = [sys.argv[1]]
from gpuq.supervise import kernel, shim
from gpuq.supervise.crash_record import CrashRecord

class Events(shim.Events):
    def wait(self, until, at_most_s=None):
        if at_most_s is not None:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().wait(until, at_most_s)

shim.Events = Events
null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
server, alive = os.pipe()
shim.supervise(sys.argv[2], *null, server, lambda: None, CrashRecord())
"""


def test_job_that_gets_the_sigterm_of_a_shutdown_before_its_supervisor_does_is_lost(tmp_path) -> None:
    spec = {
        "schema": 1, "job_id": 1, "attempt": 1, "token": "t" * 32, "argv": ["/bin/sh", "-c", "kill -TERM $$"],
        "env": {"PATH": "/usr/bin:/bin"}, "cwd": str(tmp_path), "uid": os.geteuid(), "gid": os.getegid(),
        "user": "",
        "time_limit_s": None, "kill_grace_s": 20.0, "signal": None, "umask": None,
    }  # fmt: skip
    bundle.write(str(tmp_path), bundle.SPEC, spec)
    os.mkfifo(tmp_path / bundle.CONTROL)
    root = str(Path(bundle.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SLOWER, root, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    record = bundle.read(str(tmp_path), bundle.EXIT)
    assert record is not None
    assert (record["outcome"], record["signal"], record["stop_reason"]) == ("lost", int(signal.SIGTERM), "shutdown")


def test_hangup_of_the_supervisor_is_nothing(world) -> None:
    attempt, _ = program(world, POLITE)
    os.kill(attempt.running.supervisor_pid, signal.SIGHUP)
    attempt.stop("cancel")
    assert attempt.result().outcome is Outcome.CANCELLED


def test_nudge_without_a_request_is_nothing(world) -> None:
    bell = world.bell()
    attempt = world.shell("read go < $BELL", env={"BELL": str(bell.path)})
    Path(attempt.records, bundle.CONTROL).write_bytes(b"x" * 10_000)
    bell.path.write_text("go\n")
    assert attempt.result().outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    "line", [b'{"reason": 5}\n', b'{"reason": "cancel", "grace_s": 0}\n', b"[" * 60_000 + b"\n", b'{"reason": "canc']
)
def test_a_line_that_the_job_writes_into_its_own_pipe_does_nothing(world, line) -> None:
    bell = world.bell()
    attempt = world.shell("read go < $BELL; exit 7", env={"BELL": str(bell.path)})
    Path(attempt.records, bundle.CONTROL).write_bytes(line)
    bell.path.write_text("go\n")
    assert attempt.result().exit_code == 7


def test_a_line_with_the_token_stops_the_job_whatever_the_job_wrote_before_it(world, monkeypatch) -> None:
    attempt, _ = program(world, POLITE)
    Path(attempt.records, bundle.CONTROL).write_bytes(b'{"reason": "canc')

    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(bundle, "write", full_disk)
        attempt.stop("cancel")
    assert attempt.result().outcome is Outcome.CANCELLED

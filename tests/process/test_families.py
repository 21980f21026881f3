"""Descendants, strays, and supervisors that die."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuq.domain.attempt_mark import MARK, mark_of
from gpuq.domain.outcome import Outcome
from gpuq.linux import Process, look
from gpuq.supervise import processes
from gpuq.supervise.sweep import strays, sweep

# Double-forks a process into a session of its own that ignores SIGTERM, and rings with its PID.
STRAY = """
import os, signal, sys
bell = os.open(sys.argv[1], os.O_WRONLY)
ending = sys.argv[2]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(bell, b"%d\\n" % os.getpid())
        os.close(bell)
        while True:
            signal.pause()
    os._exit(0)
os.wait()
if ending == "stay":
    signal.pause()
"""


def start_stray(world, ending: str, **spec):
    bell = world.bell()
    attempt = world.start(sys.executable, "-I", "-S", "-c", STRAY, str(bell.path), ending, **spec)
    return attempt, int(bell.wait())


def living(pid: int) -> bool:
    process = look(pid)
    return process is not None and process.living


def wait_gone(pid: int, start: int) -> None:
    deadline = time.monotonic() + 20
    while (process := look(pid)) is not None and process.start == start and process.living:
        assert time.monotonic() < deadline, f"{pid} is still there"
        time.sleep(0.01)


def test_grandchild_in_its_own_session_is_gone_before_the_exit_record(world) -> None:
    attempt, stray = start_stray(world, "leave", kill_grace_s=0.2)
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.SUCCEEDED, 0)
    assert not living(stray)


def test_cancel_ends_what_ran_away_too(world) -> None:
    attempt, stray = start_stray(world, "stay")
    attempt.stop("cancel", grace_s=0.2)
    assert attempt.result().outcome is Outcome.CANCELLED
    assert not living(stray)


def test_children_of_a_shell_that_dies_at_once_keep_the_grace_of_the_stop(world) -> None:
    bell = world.bell()
    inner = "trap 'sleep 2.5; echo saved > $BELL; exit 0' TERM; echo ready > $BELL; while :; do sleep 0.05; done"
    attempt = world.shell('sh -c "$INNER" & wait', env={"BELL": str(bell.path), "INNER": inner})
    assert bell.wait() == "ready"
    attempt.stop("preempt", grace_s=20.0)
    assert bell.wait() == "saved"
    assert attempt.result().outcome is Outcome.PREEMPTED


def test_orphans_that_end_during_the_run_are_reaped(world) -> None:
    bell = world.bell()
    attempt = world.shell(
        "(sh -c 'sleep 0.05; echo $$ > $BELL' &) ; read go < $BELL2",
        env={
            "BELL": str(bell.path),
            "BELL2": str((hold := world.bell()).path),
        },
    )
    orphan = int(bell.wait())
    deadline = time.monotonic() + 10
    while look(orphan) is not None:
        assert time.monotonic() < deadline, "a zombie is left"
        time.sleep(0.01)
    hold.path.write_text("go\n")
    assert attempt.result().outcome is Outcome.SUCCEEDED


def test_fork_bomb_is_ended(world) -> None:
    bomb = """
import os, signal, sys
bell = os.open(sys.argv[1], os.O_WRONLY)
os.write(bell, b"ready\\n")
alive = 0
while True:
    if alive < 20:
        alive += 1
        if os.fork() == 0:
            alive = 19
    else:
        signal.sigtimedwait([signal.SIGCHLD], 0.001)
"""
    bell = world.bell()
    attempt = world.start(sys.executable, "-I", "-S", "-c", bomb, str(bell.path))
    bell.wait()
    attempt.stop("cancel", grace_s=0.0)
    assert attempt.result().outcome is Outcome.CANCELLED
    entry = f"GPUQ_TOKEN_OF_ATTEMPT={attempt.order.token[:16]}".encode()
    assert strays(entry, attempt.running.pid, None) == []


def test_job_dies_with_its_supervisor_and_the_lock_is_free(world) -> None:
    attempt = world.start("sleep", "100")
    running = attempt.running
    os.kill(running.supervisor_pid, signal.SIGKILL)
    attempt.wait()
    wait_gone(running.pid, running.pid_start)
    # It is a zombie until its fork server has settled how its job ended, which is after that.
    deadline = time.monotonic() + 20
    while world.launcher.alive(attempt.run_dir):
        assert time.monotonic() < deadline, "its end is never settled"
        time.sleep(0.005)
    assert world.launcher.outcome(attempt.run_dir, attempt.order.token) is None


@pytest.mark.parametrize("daemon_there", [True, False])
def test_what_ran_away_dies_with_its_supervisor_too(world, daemon_there) -> None:
    attempt, stray = start_stray(world, "stay")
    start = processes.start_of(stray)
    if not daemon_there:
        world.launcher.close()
    os.kill(attempt.running.supervisor_pid, signal.SIGKILL)
    wait_gone(stray, start)
    wait_gone(attempt.running.pid, attempt.running.pid_start)


def test_sweep_finds_what_outlived_fork_server_and_supervisor(world) -> None:
    attempt, stray = start_stray(world, "stay")
    server = look(world.launcher.server.pid)
    assert server is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_gone(server.pid, server.start)
    os.kill(attempt.running.supervisor_pid, signal.SIGKILL)
    attempt.wait()
    assert living(stray)
    assert world.launcher.sweep(attempt.order.token, attempt.running.pid) >= 1
    assert not living(stray)
    assert world.launcher.sweep(attempt.order.token, attempt.running.pid) == 0


@pytest.fixture
def foreigner():
    """A process in a session of its own, without any mark, and a child of it in the same session."""
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 100 & wait"], start_new_session=True, env={})
    yield child
    # The test may have ended the whole session.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_sweep_leaves_a_session_alone_whose_number_was_given_to_somebody_else(foreigner) -> None:
    start = processes.start_of(foreigner.pid)
    assert sweep("0" * 32, foreigner.pid, start - 1) == 0
    assert sweep("0" * 32, foreigner.pid, None) == 0
    assert foreigner.poll() is None


def test_sweep_takes_the_session_when_its_leader_is_the_one_that_was_started(foreigner) -> None:
    assert sweep("0" * 32, foreigner.pid, processes.start_of(foreigner.pid)) >= 1
    assert foreigner.wait(10) == -signal.SIGKILL


def test_sweep_takes_the_children_of_a_marked_process_that_lost_their_mark() -> None:
    token = "feedfacefeedfacefeedfacefeedface"
    script = "setsid env -i sleep 100 & echo $!; wait"
    with subprocess.Popen(
        ["/bin/sh", "-c", script],
        env={"PATH": "/usr/bin:/bin", "GPUQ_TOKEN_OF_ATTEMPT": token[:16]},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        cleaned = int(child.stdout.readline())
        assert sweep(token) == 2
        wait_gone(cleaned, 0)
        assert child.wait(10) == -signal.SIGKILL


def test_signal_is_not_sent_to_a_process_with_another_start_time(foreigner) -> None:
    reused = Process(foreigner.pid, Path(f"/proc/{foreigner.pid}/stat").read_bytes())
    reused.start += 1
    assert processes.send(reused, signal.SIGKILL) is False
    assert foreigner.poll() is None


def test_program_with_brackets_and_blanks_in_its_name_is_read_right() -> None:
    process = Process(7, b"7 (a) b (c) ) S 3 4 5 " + b" ".join(b"%d" % n for n in range(7, 60)))
    assert (process.parent, process.group, process.session, process.state) == (3, 4, 5, "S")
    assert process.start == 22


@pytest.fixture
def other_user():
    """A process of another user in a session of its own, which carries the mark of an attempt."""
    if os.geteuid() != 0:
        pytest.skip("a process of another user can only be started by root")
    env = {MARK: mark_of("0" * 32)}
    child = subprocess.Popen(["sleep", "100"], start_new_session=True, env=env, user=65534, group=65534)
    yield child
    child.kill()
    child.wait()


def test_sweep_ends_only_processes_of_the_jobs_user(other_user) -> None:
    start = processes.start_of(other_user.pid)
    for owner in (None, 0, 65533):
        assert sweep("0" * 32, other_user.pid, start, owner=owner) == 0
    assert other_user.poll() is None
    assert sweep("0" * 32, other_user.pid, start, owner=65534) == 1
    assert other_user.wait() == -signal.SIGKILL

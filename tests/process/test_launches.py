"""Launching: what the job inherits, who may die, what it costs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome
from gpuq.supervise import bundle, spawn
from gpuq.supervise.launch import ForkServerLauncher

NOBODY = 65534


def test_log_gets_both_streams_straight_from_the_job(world) -> None:
    attempt = world.shell("echo out; echo err >&2; readlink /proc/$$/fd/1 /proc/$$/fd/2")
    attempt.result()
    assert attempt.log == f"out\nerr\n{attempt.order.log_path}\n{attempt.order.log_path}\n"


def test_job_holds_no_descriptor_but_its_three_streams(world) -> None:
    attempt = world.shell("ls -l /proc/$$/fd | sed -n 's/.* \\([0-9]*\\) -> /\\1 /p'")
    attempt.result()
    held = dict(line.split(" ", 1) for line in attempt.log.splitlines())
    assert held["0"] == "/dev/null"
    # `ls` and `sed` talk through a pipe that the shell itself may still hold.
    assert {number for number, target in held.items() if not target.startswith("pipe:")} == {"0", "1", "2"}


def test_job_started_without_a_shell_holds_no_other_descriptor(world) -> None:
    program = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    attempt = world.python(program)
    attempt.result()
    # 3 is the listing's own.
    assert attempt.log == "['0', '1', '2', '3']\n"


def test_environment_is_exactly_that_of_the_spec(world) -> None:
    env = {"A": "1", "UMLAUT": "ä", "RAW": "\udcff", "EMPTY": ""}
    attempt = world.start("/usr/bin/env", "-0", env=env)
    attempt.result()
    seen = dict(entry.split(b"=", 1) for entry in Path(attempt.order.log_path).read_bytes().split(b"\0") if entry)
    expected = {
        name.encode(): value.encode("utf-8", "surrogateescape") for name, value in attempt.order.spec["env"].items()
    }
    assert seen == expected


@pytest.mark.parametrize(("umask", "mode"), [(None, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_umask_is_that_of_the_spec_whatever_the_daemon_has(world, umask, mode) -> None:
    attempt = world.shell("touch made", umask=umask, cwd=str(world.root))
    attempt.result()
    assert stat.S_IMODE((world.root / "made").stat().st_mode) == mode


# Signals 32 and 33, which glibc keeps for itself and ignores in all that posix_spawn starts.
OF_THE_C_LIBRARY = 0b11 << 31


def test_job_starts_with_default_signals_and_an_empty_mask(world) -> None:
    attempt = world.start("grep", "-E", "^Sig(Blk|Ign)|^ShdPnd", "/proc/self/status")
    attempt.result()
    assert {int(line.split()[1], 16) & ~OF_THE_C_LIBRARY for line in attempt.log.splitlines()} == {0}


def test_signals_that_the_daemon_ignores_are_not_ignored_by_the_job(world) -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        attempt = world.start("grep", "SigIgn", "/proc/self/status")
    finally:
        signal.signal(signal.SIGUSR2, before)
    attempt.result()
    assert int(attempt.log.split()[1], 16) & ~OF_THE_C_LIBRARY == 0


def test_job_is_session_leader_away_from_the_daemon_and_from_the_supervisor(world) -> None:
    attempt = world.start("sleep", "100")
    sessions = {os.getsid(pid) for pid in (0, attempt.running.pid, attempt.running.supervisor_pid)}
    assert len(sessions) == 3
    assert Path(f"/proc/{attempt.running.supervisor_pid}/cwd").readlink() == Path("/")


def test_attempt_is_launched_once(world) -> None:
    attempt = world.start("true")
    attempt.result()
    with pytest.raises(FileExistsError, match="launched before"):
        world.launcher.start(attempt.order)
    assert world.launcher.outcome(attempt.run_dir, attempt.order.token).outcome is Outcome.SUCCEEDED


def test_second_launch_of_a_live_attempt_is_refused(world) -> None:
    attempt = world.start("sleep", "100")
    with pytest.raises(BlockingIOError, match="live supervisor"):
        world.launcher.start(attempt.order)
    assert world.launcher.alive(attempt.run_dir)


def test_folder_that_cannot_be_made_starts_nothing(world) -> None:
    (world.root / "jobs").symlink_to("nowhere")
    with pytest.raises(OSError, match="jobs"):
        world.launcher.start(world.order("true"))


def test_attempt_without_a_folder_is_not_alive(world) -> None:
    assert not world.launcher.alive(str(world.root / "never"))


def test_launches_leave_no_descriptors_open_in_the_daemon(world) -> None:
    world.start("true").result()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(40):
        world.start("true").result()
    # A supervisor holds its end until it knows its record safe, a moment longer; those of the last few are kept anyway.
    deadline = time.monotonic() + 20
    while len(set(os.listdir("/proc/self/fd"))) > len(before) + 8:
        assert time.monotonic() < deadline
        world.attempts[-1].result()
        time.sleep(0.01)


def test_next_launch_works_after_the_fork_server_was_killed(world) -> None:
    first = world.start("sleep", "100")
    server = world.launcher.server.pid
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    assert world.start("true").result().outcome is Outcome.SUCCEEDED
    assert world.launcher.server.pid != server
    assert world.launcher.alive(first.run_dir)
    first.stop()
    assert first.result().outcome is Outcome.CANCELLED


def test_fork_server_serves_what_it_was_handed_before_it_ends(world) -> None:
    fds = [world.hand_over(world.order("true")) for _ in range(20)]
    world.launcher.close()
    for attempt in fds:
        attempt.hear()
        assert attempt.result().outcome is Outcome.SUCCEEDED


def test_supervisor_takes_another_attempt_after_its_first(world) -> None:
    supervisors = []
    for code in range(8):
        attempt = world.shell(f"exit {code}")
        assert attempt.result().exit_code == code
        supervisors.append(attempt.running.supervisor_pid)
    assert len(set(supervisors)) < len(supervisors)


def test_launch_works_after_an_idle_supervisor_was_killed(world) -> None:
    for _ in range(4):
        attempt = world.start("true")
        attempt.result()
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(attempt.running.supervisor_pid)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            assert select.select([fd], [], [], 20)[0]
            os.close(fd)


def test_attempt_that_ended_can_still_be_watched(world) -> None:
    attempts = [world.start("true") for _ in range(5)]
    for attempt in attempts * 2:
        assert attempt.result().outcome is Outcome.SUCCEEDED


def test_many_jobs_at_once_all_end_as_they_should(world) -> None:
    attempts = [world.hand_over(world.order("/bin/sh", "-c", f"exit {code}")) for code in range(40)]
    for attempt in attempts:
        attempt.hear()
    assert [attempt.result().exit_code for attempt in attempts] == list(range(40))


DAEMON = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from gpuq.ports.launcher import LaunchOrder
from gpuq.supervise.launch import ForkServerLauncher
order = LaunchOrder(**json.loads(sys.argv[2]))
launcher = ForkServerLauncher()
launched = launcher.report(launcher.start(order))
print(launched.pid, flush=True)
sys.stdin.read()
"""


def test_supervisor_outlives_the_daemon_and_writes_the_true_exit_code(world) -> None:
    bell = world.bell()
    order = world.order("/bin/sh", "-c", "read go < $BELL; exit 42", env={"BELL": str(bell.path)})
    fields = {name: getattr(order, name) for name in ("job_id", "number", "token", "run_dir", "log_path", "spec")}
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, json.dumps(sys.path), json.dumps(fields)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as daemon:
        assert daemon.stdout is not None
        assert int(daemon.stdout.readline()) > 0
        daemon.kill()
        daemon.wait()
        assert world.launcher.alive(order.run_dir)
        assert world.launcher.outcome(order.run_dir, order.token) is None
        attempt = world.adopt(order)
        bell.path.write_text("go\n")
        result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.EXIT_NONZERO, 42)


def test_adopted_job_can_be_stopped(world) -> None:
    attempt = world.start("sleep", "100")
    world.launcher.close()
    adopted = world.adopt(attempt.order)
    assert adopted.launched == attempt.launched
    adopted.stop("cancel")
    assert adopted.result().outcome is Outcome.CANCELLED


def test_watch_of_a_supervisor_that_is_gone_is_none() -> None:
    launcher = ForkServerLauncher()
    assert launcher.watch(Launched(os.getpid(), 1, os.getpid(), 1, 0.0)) is None
    assert launcher.watch(Launched(2**22, 1, 2**22, 1, 0.0)) is None


def test_supervisors_are_small(world) -> None:
    attempts = [world.start("sleep", "100") for _ in range(20)]
    sizes = [_pss_kib(attempt.running.supervisor_pid) for attempt in attempts]
    assert max(sizes) <= 12 * 1024


def _pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_job_runs_as_its_submitter(world) -> None:
    user = pwd.getpwuid(NOBODY)
    script = "id -u; id -g; id -G; echo x >> /dev/stdout; echo '{\"progress\": 0.5}' > $RUN/progress.json; exit 3"
    order = world.order("/bin/sh", "-c", script, uid=NOBODY, gid=user.pw_gid, user=user.pw_name)
    order.spec["env"]["RUN"] = order.run_dir
    attempt = world.launch(order)
    assert attempt.result().exit_code == 3
    assert attempt.log.splitlines()[:2] == [str(NOBODY), str(user.pw_gid)]
    assert attempt.log.splitlines()[3:] == ["x"]
    assert world.launcher.progress(attempt.run_dir, NOBODY) == {"progress": 0.5}


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_submitter_cannot_see_forge_or_spoil_the_records_of_its_attempt(world) -> None:
    user = pwd.getpwuid(NOBODY)
    script = (
        'rm -rf "$RUN"; cd "$RUN"; echo \'{"outcome": "succeeded"}\' > exit.json; touch lock; mkfifo control;'
        'cd "$RUN.records" && exit 5; cat "$RUN.records/spec.json" && exit 6; echo > "$RUN.new" && exit 7; exit 4'
    )
    order = world.order("/bin/sh", "-c", script, uid=NOBODY, gid=user.pw_gid, user=user.pw_name)
    order.spec["env"]["RUN"] = order.run_dir
    attempt = world.launch(order)
    result = attempt.result()
    assert (result.outcome, result.exit_code) == (Outcome.EXIT_NONZERO, 4)


def test_job_that_deletes_its_own_folder_while_it_runs_has_its_true_end(world) -> None:
    bell = world.bell()
    order = world.order("/bin/sh", "-c", 'rm -rf "$RUN"; read go < $BELL; exit 9', env={"BELL": str(bell.path)})
    order.spec["env"]["RUN"] = order.run_dir
    attempt = world.launch(order)
    bell.path.write_text("go\n")
    result = attempt.result()
    assert not Path(order.run_dir).exists()
    assert (result.outcome, result.exit_code) == (Outcome.EXIT_NONZERO, 9)


def test_job_that_deletes_its_own_folder_while_it_runs_can_be_stopped(world) -> None:
    bell = world.bell()
    script = 'rm -rf "$RUN"; echo gone > $BELL; exec sleep 100'
    order = world.order("/bin/sh", "-c", script, env={"BELL": str(bell.path)})
    order.spec["env"]["RUN"] = order.run_dir
    attempt = world.launch(order)
    assert bell.wait() == "gone"
    adopted = world.adopt(order)
    assert adopted.launched == attempt.launched
    adopted.stop("cancel")
    assert adopted.result().outcome is Outcome.CANCELLED


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_working_directory_that_the_submitter_may_not_enter_is_a_launch_error(world) -> None:
    closed = world.root / "closed"
    closed.mkdir(mode=0o700)
    result = world.start("true", cwd=str(closed), uid=NOBODY, gid=NOBODY, user="nobody").result()
    assert (result.outcome, result.error) == (
        Outcome.LAUNCH_ERROR,
        f"no permission to enter the working directory {closed}",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_job_of_another_user_dies_with_its_supervisor_too(world) -> None:
    attempt = world.start("sleep", "100", uid=NOBODY, gid=NOBODY, user="nobody")
    watch = os.pidfd_open(attempt.running.pid)
    os.kill(attempt.running.supervisor_pid, signal.SIGKILL)
    attempt.wait()
    assert select.select([watch], [], [], 20)[0]
    os.close(watch)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become anybody")
def test_other_user_without_root_is_a_launch_error(world) -> None:
    result = world.start("true", uid=os.geteuid() + 1, gid=None, user="other").result()
    assert (result.outcome, result.error) == (
        Outcome.LAUNCH_ERROR,
        "cannot run as user other: gpuq does not run as root",
    )


def test_records_are_replaced_as_a_whole(tmp_path) -> None:
    bundle.write(str(tmp_path), bundle.STOP, {"reason": "cancel"})
    bundle.write(str(tmp_path), bundle.STOP, {"reason": "preempt"})
    assert bundle.read(str(tmp_path), bundle.STOP) == {"reason": "preempt"}
    assert [path.name for path in tmp_path.iterdir()] == [bundle.STOP]


def test_a_machine_without_room_for_a_process_is_no_fault_of_the_program(monkeypatch, tmp_path) -> None:
    def full(*_: object, **__: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "posix_spawn", full)
    umask = os.umask(0o022)
    try:
        me = {"uid": os.geteuid(), "gid": os.getegid()}
        job = spawn.AttemptSpec({"argv": ["true"], "env": {"PATH": "/usr/bin:/bin"}, "cwd": "/", "umask": 0o077, **me})
        with pytest.raises(BlockingIOError):
            spawn.spawn(job, 1)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)

"""Attempts that the previous release started: all their files lie in one folder, to which the job's user may add names.

The supervisor is a real one. It is told that folder as the place of its records, as the previous release did.
"""

from __future__ import annotations

import os
import pwd
import select
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from gpuq import linux
from gpuq.domain.outcome import Outcome
from gpuq.engine.attempt.logs import open_log
from gpuq.supervise import bundle, previous_folders

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def start(world: Any, script: str, **spec: Any) -> Any:
    """An attempt as a launcher of the previous release starts it, and as a new one finds it."""
    order = world.order("/bin/sh", "-c", script, **spec)
    order.spec["env"]["RUN"] = order.run_dir
    os.makedirs(order.run_dir, 0o700)
    lock_fd = linux.lock_file(Path(order.run_dir, bundle.LOCK))
    bundle.create(order.run_dir, bundle.SPEC, order.spec)
    os.mkfifo(Path(order.run_dir, bundle.CONTROL), 0o600)
    log_fd = os.open(order.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if spec.get("uid"):
        os.fchown(log_fd, 0, spec["gid"])
        os.fchmod(log_fd, 0o660)
        os.chown(order.run_dir, 0, spec["gid"])
        os.chmod(order.run_dir, 0o1770)
    report_fd, report_end = os.pipe2(os.O_CLOEXEC)
    world.launcher.server.launch(order.run_dir, (lock_fd, log_fd, report_end))
    for fd in (lock_fd, log_fd, report_end):
        os.close(fd)
    # So that the launcher knows the end of this attempt, whose supervisor may go on to another one.
    assert world.launcher.report(report_fd) is not None
    os.close(report_fd)
    # It did not say whose it is.
    record = bundle.read(order.run_dir, bundle.STARTED)
    assert record is not None
    del record["token"]
    bundle.write(order.run_dir, bundle.STARTED, record)
    return world.adopt(order)


def test_it_is_adopted_and_its_true_end_is_found(world: Any) -> None:
    bell = world.bell()
    attempt = start(world, f'echo "{{\\"progress\\": 0.5}}" > $RUN/progress.json; read go < {bell.path}; exit 7')
    assert attempt.launched is not None
    assert world.launcher.alive(attempt.run_dir)
    bell.path.write_text("go\n")
    assert attempt.result().exit_code == 7
    assert world.launcher.progress(attempt.run_dir, os.geteuid()) == {"progress": 0.5}
    assert not Path(attempt.run_dir + ".records").exists()


def test_it_can_be_stopped(world: Any) -> None:
    attempt = start(world, "exec sleep 100")
    attempt.stop("cancel")
    assert attempt.result().outcome is Outcome.CANCELLED
    assert attempt.exit_record()["stop_reason"] == "cancel"


def test_it_is_not_launched_a_second_time(world: Any) -> None:
    attempt = start(world, "true")
    attempt.wait()
    with pytest.raises(FileExistsError, match="launched before"):
        world.launcher.start(attempt.order)
    assert attempt.result().outcome is Outcome.SUCCEEDED


@as_root
def test_output_and_progress_of_another_user_are_found_there(world: Any) -> None:
    user = pwd.getpwuid(NOBODY)
    script = 'echo out; echo "{\\"progress\\": 0.5}" > $RUN/progress.json; exit 3'
    attempt = start(world, script, uid=NOBODY, gid=user.pw_gid, user=user.pw_name)
    assert attempt.result().exit_code == 3
    with open_log(attempt.order.log_path, NOBODY) as log:
        assert log.read() == b"out\n"
    assert world.launcher.progress(attempt.run_dir, NOBODY) == {"progress": 0.5}


def mode(path: Path) -> tuple[int, int]:
    return stat.S_IMODE(path.lstat().st_mode), path.lstat().st_uid


@as_root
def test_what_it_left_open_to_others_is_closed_when_it_has_ended(world: Any) -> None:
    """Output went to the group of the job's user, checkpoints to everybody."""
    user, bell = pwd.getpwuid(NOBODY), world.bell()
    attempt = start(world, f"echo out; read go < {bell.path}", uid=NOBODY, gid=user.pw_gid, user=user.pw_name)
    own = Path(attempt.run_dir)
    job, jobs, checkpoint = own.parent, own.parent.parent, own.parent / "checkpoint"
    checkpoint.mkdir()
    os.chown(checkpoint, NOBODY, -1)
    for folder in (jobs, job, checkpoint):
        folder.chmod(0o755)
    previous_folders.close(str(jobs), world.launcher.alive)
    assert (mode(checkpoint), mode(job), mode(own)) == ((0o700, NOBODY), (0o711, 0), (0o1770, 0))
    bell.path.write_text("go\n")
    attempt.wait()
    previous_folders.close(str(jobs), world.launcher.alive)
    assert (mode(jobs), mode(own), mode(own / "output.log")) == ((0o711, 0), (0o711, 0), (0o600, NOBODY))
    assert attempt.result().outcome is Outcome.SUCCEEDED
    with open_log(attempt.order.log_path, NOBODY) as log:
        assert log.read() == b"out\n"


@as_root
@pytest.mark.parametrize("linked", [os.link, os.symlink])
def test_a_file_of_roots_under_the_name_of_its_output_is_given_to_nobody(world: Any, linked: Any) -> None:
    user = pwd.getpwuid(NOBODY)
    attempt = start(world, "true", uid=NOBODY, gid=user.pw_gid, user=user.pw_name)
    attempt.wait()
    own = Path(attempt.run_dir)
    secret = own.parent / "secret"
    secret.touch(0o660)
    secret.chmod(0o660)
    (own / "output.log").unlink()
    linked(secret, own / "output.log")
    own.parent.parent.chmod(0o755)
    previous_folders.close(str(own.parent.parent), world.launcher.alive)
    assert (mode(secret), mode(own)) == ((0o660, 0), (0o711, 0))


@as_root
@pytest.mark.parametrize("name", [bundle.EXIT, bundle.STARTED])
def test_a_record_that_the_user_made_of_the_log_does_not_count(world: Any, name: str) -> None:
    """The log is root's file, and the user, who may write it, may give it a second name."""
    user, bell = pwd.getpwuid(NOBODY), world.bell()
    forged = '{"outcome": "succeeded", "supervisor_pid": 1, "supervisor_start": 1, "pid": 1, "pid_start": 1, '
    script = f"echo '{forged} \"started_at\": 1}}'; ln output.log wanted; echo linked > {bell.path}; exec sleep 100"
    attempt = start(world, f'cd "$RUN"; {script}', uid=NOBODY, gid=user.pw_gid, user=user.pw_name)
    assert bell.wait() == "linked"
    # The kernel may close the report of a killed process before its lock; both are closed once it has ended.
    ended = os.pidfd_open(attempt.running.supervisor_pid)
    os.kill(attempt.running.supervisor_pid, signal.SIGKILL)
    assert select.select([ended], [], [], 20)[0], "the supervisor is still there"
    os.close(ended)
    Path(attempt.run_dir, "wanted").rename(Path(attempt.run_dir, name))
    assert not world.launcher.alive(attempt.run_dir)
    result = world.launcher.outcome(attempt.run_dir, attempt.order.token)
    if name == bundle.EXIT:
        assert (result.outcome, result.swept) == (Outcome.LOST, False)
    else:
        assert result is None
        assert world.launcher.launched(attempt.run_dir, attempt.order.token) is None


@as_root
def test_a_folder_of_the_users_holds_no_records_even_if_the_records_are_lost(world: Any) -> None:
    user = pwd.getpwuid(NOBODY)
    run_dir = world.root / "jobs" / "1" / "1"
    run_dir.mkdir(parents=True, mode=0o700)
    bundle.write(str(run_dir), bundle.EXIT, {"outcome": "succeeded", "token": "t"})
    assert world.launcher.outcome(str(run_dir), "t") is not None
    os.chown(run_dir, NOBODY, user.pw_gid)
    assert world.launcher.outcome(str(run_dir), "t") is None

"""The recorded end is the true one."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.supervise import bundle, classify


def test_job_that_exits_with_zero_has_succeeded(world) -> None:
    before = time.time()
    result = world.start("true").result()
    assert (result.outcome, result.exit_code, result.signal, result.error) == (Outcome.SUCCEEDED, 0, None, None)
    assert before - 0.01 <= result.started_at <= result.finished_at <= time.time() + 0.01


def test_exit_code_is_kept(world) -> None:
    result = world.shell("exit 37").result()
    assert (result.outcome, result.exit_code, result.error) == (Outcome.EXIT_NONZERO, 37, "ended with exit code 37")


def test_signal_that_ended_the_job_is_kept(world) -> None:
    result = world.shell("kill -SEGV $$").result()
    assert (result.outcome, result.exit_code, result.signal) == (Outcome.SIGNAL, None, signal.SIGSEGV)
    assert result.error == "ended by SIGSEGV"


def test_sigkill_from_outside_is_a_signal_and_not_a_stop(world) -> None:
    attempt = world.start("sleep", "100")
    os.kill(attempt.running.pid, signal.SIGKILL)
    result = attempt.result()
    assert (result.outcome, result.signal) == (Outcome.SIGNAL, signal.SIGKILL)


def test_report_names_supervisor_and_job_with_their_start_times(world) -> None:
    attempt = world.start("sleep", "100")
    running = attempt.running
    for pid, start in ((running.pid, running.pid_start), (running.supervisor_pid, running.supervisor_start)):
        assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) == start
    assert os.getsid(running.pid) == running.pid
    assert world.launcher.launched(attempt.run_dir, attempt.order.token) == running


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"cwd": "/nowhere/at/all"}, "the working directory /nowhere/at/all does not exist"),
        ({"cwd": "/etc/passwd"}, "the working directory /etc/passwd is not a directory"),
        ({"argv": ["no-such-program-here"]}, "the program no-such-program-here was not found in the job's PATH"),
        ({"argv": ["/no/such/program"]}, "the program /no/such/program does not exist"),
        ({"argv": ["/etc/passwd"]}, "no permission to run /etc/passwd"),
        ({"argv": ["/etc"]}, "/etc is a directory, not a program"),
        ({"argv": ["true"], "env": {"PATH": "/nowhere"}}, "the program true was not found in the job's PATH"),
    ],
)
def test_job_that_cannot_be_launched_says_why(world, spec, sentence) -> None:
    order = world.order("true")
    attempt = world.launch(replace(order, spec={**order.spec, **spec}))
    assert attempt.launched is None
    result = attempt.result()
    assert (result.outcome, result.error, result.exit_code) == (Outcome.LAUNCH_ERROR, sentence, None)
    assert world.launcher.launched(attempt.run_dir, attempt.order.token) is None


def test_script_without_its_interpreter_is_told_apart_from_a_missing_one(world) -> None:
    script = world.root / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    result = world.start(str(script)).result()
    assert result.outcome is Outcome.LAUNCH_ERROR
    assert result.error == f"{script} cannot be run: the interpreter that its first line names does not exist"


def test_script_without_a_first_line_is_explained(world) -> None:
    script = world.root / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    result = world.start(str(script)).result()
    assert result.outcome is Outcome.LAUNCH_ERROR
    assert "#!/bin/sh" in result.error


def test_program_is_looked_up_in_the_path_of_the_job(world) -> None:
    folder = world.root / "bin"
    folder.mkdir()
    (folder / "mine").write_text("#!/bin/sh\necho found\n")
    (folder / "mine").chmod(0o755)
    attempt = world.start("mine", env={"PATH": f"/nowhere:{folder}"})
    assert attempt.result().outcome is Outcome.SUCCEEDED
    assert attempt.log == "found\n"


def test_exit_record_carries_token_and_schema(world) -> None:
    attempt = world.start("true")
    attempt.result()
    record = attempt.exit_record()
    assert (record["schema"], record["token"], record["stop_reason"]) == (1, attempt.order.token, None)


def test_torn_or_foreign_exit_record_is_none_that_is_believed(world, tmp_path) -> None:
    def believed() -> bool:
        result = world.launcher.outcome(run_dir, "t")
        if result.outcome is Outcome.SUCCEEDED:
            return True
        assert (result.outcome, result.swept) == (Outcome.LOST, False)
        assert result.error.startswith("its exit record cannot be believed: it ")
        return False

    run_dir, target = str(tmp_path / "1"), tmp_path / "1.records" / bundle.EXIT
    target.parent.mkdir()
    good = json.dumps({"outcome": "succeeded", "token": "t"})
    target.touch(0o600)
    # Emptied, as of an attempt of before.
    assert world.launcher.outcome(run_dir, "t") is None
    for content in ("{", "[1]", '"x"', good[:-1], good.replace('"t"', '"u"'), good.replace('"t"', "null"), "{}"):
        target.write_text(content)
        assert not believed()
    target.write_text(good)
    assert believed()
    target.chmod(0o660)
    assert not believed()
    target.chmod(0o600)
    target.with_name("other").hardlink_to(target)
    assert not believed()
    target.unlink()
    target.symlink_to("other")
    assert not believed()
    target.unlink()
    os.mkfifo(target)
    assert not believed()


def test_exit_record_of_a_newer_release_is_read_as_far_as_it_is_known(world, tmp_path) -> None:
    run_dir, records = str(tmp_path / "1"), str(tmp_path / "1.records")
    Path(records).mkdir()
    record = {"schema": 9, "token": "t", "outcome": "exit_nonzero", "exit_code": 3, "news": [1], "finished_at": "soon"}
    bundle.write(records, bundle.EXIT, record)
    result = world.launcher.outcome(run_dir, "t")
    assert (result.outcome, result.exit_code, result.finished_at) == (Outcome.EXIT_NONZERO, 3, None)
    bundle.write(records, bundle.EXIT, {"outcome": "evaporated", "token": "t"})
    assert world.launcher.outcome(run_dir, "t").outcome is Outcome.LOST


def test_every_outcome_of_the_supervisor_is_one_of_the_domain() -> None:
    ends = [
        classify.Ending(exit_code=0),
        classify.Ending(exit_code=1),
        classify.Ending(signum=9),
        classify.Ending(signum=9, oom_kills=1),
        classify.Ending(signum=10, noticed=10),
        classify.Ending(exit_code=137, oom_kills=1),
        classify.Ending(exit_code=137),
        classify.Ending(exit_code=1, oom_kills=1),
        *(classify.Ending(exit_code=0, stop_reason=reason) for reason in classify.OF_REASON),
    ]
    outcomes = [Outcome(classify.classify_end(end)[0]) for end in ends]
    assert outcomes[:8] == [
        Outcome.SUCCEEDED,
        Outcome.EXIT_NONZERO,
        Outcome.SIGNAL,
        Outcome.HOST_OOM,
        Outcome.TIME_LIMIT,
        Outcome.HOST_OOM,
        Outcome.EXIT_NONZERO,
        Outcome.EXIT_NONZERO,
    ]
    assert outcomes[8:] == [
        Outcome.CANCELLED,
        Outcome.PREEMPTED,
        Outcome.PREEMPTED,
        Outcome.TIME_LIMIT,
        Outcome.LOST,
        Outcome.OUTPUT_LIMIT,
    ]


def test_oom_counter_of_this_machine_can_be_read() -> None:
    path = classify.oom_counter()
    assert "oom_kill " in Path(path).read_text()
    assert classify.count_oom_kills(path) >= 0


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group of the first version in which 64 MiB are all; those are no group of the supervisors' own."""
    group = Path(f"/sys/fs/cgroup/memory/gpuq-test-{os.getpid()}")
    if os.geteuid() != 0 or classify.oom_counter() != "/proc/vmstat":
        pytest.skip("needs root, and a machine whose memory groups are of the first version")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no memory group can be made: {error}")
    (group / "memory.limit_in_bytes").write_text(str(64 * 2**20))
    yield group
    group.rmdir()


@pytest.mark.parametrize("shell", ["exec", ""])
def test_job_that_the_kernel_ended_for_want_of_memory_is_told_apart(world, little_memory, shell) -> None:
    eat = f"{shell} {sys.executable} -I -S -c 'b = bytearray(256 * 2**20); b[::4096] = bytes(len(b[::4096]))'"
    result = world.shell(f"echo $$ > {little_memory}/cgroup.procs; {eat}; exit $?").result()
    assert result.outcome is Outcome.HOST_OOM
    assert (result.signal, result.exit_code) == ((signal.SIGKILL, None) if shell else (None, 137))
    assert "out-of-memory killer" in result.error


def test_full_disk_delays_the_exit_record_and_keeps_the_lock(world) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    disk = world.root / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "none", disk]).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        order = world.order("/bin/sh", "-c", "read go < $BELL; exit 5", env={"BELL": str(world.bell().path)})
        run_dir = str(disk / "attempt")
        attempt = world.launch(replace(order, run_dir=run_dir, log_path=f"{run_dir}/{bundle.LOG}"))
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"):
            _fill(filler)
        watch = world.launcher.watch(attempt.running)
        Path(world.bells[0].path).write_text("go\n")
        _until_ended(attempt.running.pid)
        # The last page may have room for the record; then it is there, and otherwise the lock says to wait.
        assert world.launcher.alive(run_dir) or world.launcher.outcome(run_dir, order.token) is not None
        filler.unlink()
        assert watch is not None
        os.close(watch)
        with (Path(attempt.records) / bundle.LOCK).open() as lock:
            # Until its supervisor has written it and lets go; what it told before is no sign of that.
            fcntl.flock(lock, fcntl.LOCK_SH)
        assert attempt.result().exit_code == 5
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_own_folder_that_takes_no_more_changes_nothing_of_the_recorded_end(world) -> None:
    """As when the quota of the job's user is used up: the records are not the user's."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    script = 'head -c 1000000 /dev/zero; echo x > "$RUN/progress.json" && exit 5; exit 6'
    order = world.order("/bin/sh", "-c", script, time_limit_s=100.0)
    order.spec["env"]["RUN"] = order.run_dir
    for folder in (order.run_dir, order.run_dir + ".records"):
        os.makedirs(folder, 0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", order.run_dir]).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        attempt = world.launch(order)
        assert attempt.result().exit_code == 6
        assert os.path.getsize(order.log_path) == 64 * 1024
    finally:
        subprocess.run(["umount", "-l", order.run_dir], check=True)


def _until_ended(pid: int) -> None:
    # The job's end cannot be waited for by anyone but its parent, and a pidfd of it can.
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([fd], [], [], 20)
    os.close(fd)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)

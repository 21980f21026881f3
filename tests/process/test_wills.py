"""What a fork server writes down for a supervisor that was killed."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.linux import look
from gpuq.supervise import bundle, processes
from gpuq.supervise.crash_record import CrashRecord, recover
from gpuq.supervise.launch import ForkServerLauncher
from gpuq.supervise.orphans import Orphans


@pytest.fixture
def known(tmp_path: Path) -> dict[str, object]:
    """What a supervisor has in its will while the job runs."""
    records = tmp_path / "1.records"
    records.mkdir()
    return {
        "dir": str(records),
        "token": "t",
        "pid": 1,
        "started_at": 1.0,
        "time_limit_s": 60.0,
        "noticed": None,
        "stop_reason": None,
    }


def ending(known: dict[str, object], code: int | None, **changes: object) -> dict[str, object] | None:
    assert recover({**known, **changes}, code)
    return bundle.read(str(known["dir"]), bundle.EXIT)


@pytest.mark.parametrize(
    ("code", "reason", "outcome"),
    [
        (0, None, Outcome.SUCCEEDED),
        (7, None, Outcome.EXIT_NONZERO),
        (-signal.SIGSEGV, None, Outcome.SIGNAL),
        (0, "cancel", Outcome.CANCELLED),
        (-signal.SIGTERM, "preempt", Outcome.PREEMPTED),
        (-signal.SIGKILL, "time_limit", Outcome.TIME_LIMIT),
    ],
)
def test_status_of_the_job_and_the_stop_that_reached_it_make_the_outcome(known, code, reason, outcome) -> None:
    record = ending(known, code, stop_reason=reason)
    assert record["outcome"] == outcome
    assert (record["exit_code"], record["signal"]) == ((code, None) if code >= 0 else (None, -code))


@pytest.mark.parametrize("code", [None, -signal.SIGKILL, -signal.SIGTERM])
def test_what_may_have_come_with_the_death_of_the_supervisor_is_not_taken_for_the_jobs_end(known, code) -> None:
    assert ending(known, code) is None


def test_record_that_the_supervisor_had_written_itself_stands(known) -> None:
    bundle.write(str(known["dir"]), bundle.EXIT, {"outcome": "succeeded", "token": "t"})
    assert ending(known, 7) == {"outcome": "succeeded", "token": "t"}


def test_what_a_job_wrote_in_its_place_does_not_stand(known) -> None:
    bundle.write(str(known["dir"]), bundle.EXIT, {"outcome": "succeeded"})
    assert ending(known, 7)["exit_code"] == 7


def test_disk_that_is_full_is_tried_again_and_a_folder_that_is_gone_is_not(known, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write", refuse)
        number = errno.ENOSPC
        assert not recover(known, 0)
        number = errno.ENOENT
        assert recover(known, 0)
    assert ending(known, 0) is not None


def test_will_is_replaced_as_a_whole_and_can_be_forgotten() -> None:
    will = CrashRecord()
    assert will.read() is None
    for number in range(3):
        will.write({"number": number, "text": "x" * (3000 - number)})
        assert will.read()["number"] == number
    will.write({"text": "x" * 5000})
    assert will.read() is None
    will.write({"number": 4})
    will.forget()
    assert will.read() is None
    will.close()


def test_what_a_job_left_behind_does_not_count_as_swept(known) -> None:
    run_dir = str(known["dir"]).removesuffix(".records")
    ending(known, 0)
    assert ForkServerLauncher().outcome(run_dir, "t").swept is False


def test_fork_server_stays_for_its_supervisors_and_no_longer(world) -> None:
    attempt = world.start("sleep", "100")
    server = world.launcher.server.pid
    watched = os.pidfd_open(server)
    world.launcher.close()
    assert look(attempt.running.supervisor_pid).parent == server
    attempt.stop()
    assert attempt.result().outcome is Outcome.CANCELLED
    assert select.select([watched], [], [], 20)[0], "the fork server never ended"
    os.close(watched)


def test_number_that_was_given_again_has_not_the_end_of_the_one_before() -> None:
    orphans = Orphans()
    child = subprocess.Popen(["sh", "-c", "exit 3"])
    seen = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    start = processes.start_of(child.pid)
    assert (orphans.end_of(child.pid, start), orphans.end_of(child.pid, start + 1)) == (3, None)
    orphans.note(seen)
    child.wait()
    assert (orphans.end_of(child.pid, start), orphans.end_of(child.pid, start + 1)) == (3, None)


# In a process of its own, because it kills and reaps whatever children it has.
HEIR = """
import os, signal, socket, subprocess, sys
sys.path[:0] = [sys.argv[1]]
from gpuq.supervise import forkserver, processes
from gpuq.supervise.crash_record import CrashRecord
ours, theirs = socket.socketpair()
server = forkserver._Server(theirs, os.dup(0))
signal.signal(signal.SIGCHLD, lambda *_: None)
supervisor, stray = subprocess.Popen(["sleep", "100"]), subprocess.Popen(["sleep", "100"])
server._serials[supervisor.pid] = 1
server._wills[supervisor.pid] = CrashRecord()
server._wills[supervisor.pid].write({"dir": "/", "end": {"outcome": "succeeded"}})
forkserver.recover = lambda *_: False
supervisor.kill()
os.waitid(os.P_PID, supervisor.pid, os.WEXITED | os.WNOWAIT)
start = processes.start_of(stray.pid)
server._reap()
print(server._orphans.last_end_of(stray.pid, start), supervisor.pid in server._serials)
"""


def test_what_a_killed_supervisor_left_dies_also_while_the_disk_takes_no_record() -> None:
    root = str(Path(bundle.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", HEIR, root], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{-signal.SIGKILL} True\n", "")

"""What a fork server writes down for a supervisor that was killed."""

from __future__ import annotations

import errno
import os
import select
import signal
from pathlib import Path

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.supervise import bundle, processes
from gpuq.supervise.launch import ForkServerLauncher
from gpuq.supervise.will import LastWill, execute


@pytest.fixture
def known(tmp_path: Path) -> dict[str, object]:
    """What a supervisor has in its will while the job runs."""
    return {
        "dir": str(tmp_path),
        "token": "t",
        "pid": 1,
        "started_at": 1.0,
        "time_limit_s": 60.0,
        "noticed": None,
        "stop_reason": None,
    }


def ending(known: dict[str, object], code: int | None, **changes: object) -> dict[str, object] | None:
    assert execute({**known, **changes}, code)
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
    bundle.write(str(known["dir"]), bundle.EXIT, {"outcome": "succeeded"})
    assert ending(known, 7) == {"outcome": "succeeded"}


def test_disk_that_is_full_is_tried_again_and_a_folder_that_is_gone_is_not(known, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "write", refuse)
        number = errno.ENOSPC
        assert not execute(known, 0)
        number = errno.ENOENT
        assert execute(known, 0)
    assert ending(known, 0) is not None


def test_will_is_replaced_as_a_whole_and_can_be_forgotten() -> None:
    will = LastWill()
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
    ending(known, 0)
    assert ForkServerLauncher().outcome(str(known["dir"])).swept is False


def test_fork_server_stays_for_its_supervisors_and_no_longer(world) -> None:
    attempt = world.start("sleep", "100")
    server = world.launcher.server.pid
    watched = os.pidfd_open(server)
    world.launcher.close()
    assert processes.look(attempt.running.supervisor_pid).parent == server
    attempt.stop()
    assert attempt.result().outcome is Outcome.CANCELLED
    assert select.select([watched], [], [], 20)[0], "the fork server never ended"
    os.close(watched)

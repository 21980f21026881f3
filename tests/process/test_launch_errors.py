"""Every call of a launch that can fail, with every error that it may have; and the launch of nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.attempt.launch_breaker import is_machines_fault
from gpuq.ports.launcher import LaunchOrder
from gpuq.supervise import bundle, launch, rehearsal, server_process, spares
from gpuq.supervise.launch import ForkServerLauncher


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[ForkServerLauncher]:
    made = ForkServerLauncher(str(tmp_path / "messages"))
    yield made
    made.close()


def order(tmp_path: Path, *argv: str, **spec: Any) -> LaunchOrder:
    run_dir = str(tmp_path / "jobs" / "7" / "1")
    whole = {
        "token": "t",
        "argv": list(argv) or ["/bin/true"],
        "env": {},
        "uid": os.geteuid(),
        "gid": os.getegid(),
        **spec,
    }
    return LaunchOrder(7, 1, "t", run_dir, f"{run_dir}/output.log", whole)  # fmt: skip


def ended(launcher: ForkServerLauncher, fd: int) -> None:
    """Reads the report, if there is one, and returns when the attempt is over."""
    while launcher.report(fd) is not None:
        pass
    os.close(fd)


class _Refusing:
    def __init__(self, error: OSError) -> None:
        self._error = error

    def sendmsg(self, *_: object) -> None:
        raise self._error


def _opening(name: str) -> Callable[[pytest.MonkeyPatch, OSError], None]:
    def inject(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
        real = os.open

        def open_(path: Any, *words: Any, **named: Any) -> int:
            if os.fspath(path).endswith(f"/{name}"):
                raise error
            return real(path, *words, **named)

        monkeypatch.setattr(os, "open", open_)

    return inject


def _calling(module: Any, name: str) -> Callable[[pytest.MonkeyPatch, OSError], None]:
    def inject(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
        def fail(*_: object, **__: object) -> Any:
            raise error

        monkeypatch.setattr(module, name, fail)

    return inject


CALLS: dict[str, Callable[[pytest.MonkeyPatch, OSError], None]] = {
    "mkdir": _calling(os, "mkdir"),
    "mkfifo": _calling(os, "mkfifo"),
    "flock": _calling(fcntl, "flock"),
    "pipe2": _calling(os, "pipe2"),
    "open of the lock": _opening(bundle.LOCK),
    "open of the spec": _opening(bundle.SPEC),
    "open of the log": _opening(bundle.LOG),
    "sendmsg": lambda monkeypatch, error: monkeypatch.setattr(
        server_process.ForkServer, "_connected", lambda _: _Refusing(error)
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_whatever_fails_on_the_way_to_a_supervisor_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: ForkServerLauncher, call: str
) -> None:
    monkeypatch.setattr("gpuq.supervise.launch.time.sleep", lambda _: None)
    before = len(os.listdir("/proc/self/fd"))
    for number in sorted(errno.errorcode):
        with monkeypatch.context() as broken:
            CALLS[call](broken, OSError(number, os.strerror(number)))
            with pytest.raises(OSError) as told:
                # Where mkdir and mkfifo say that it is there already, what comes after them fails.
                os.close(launcher.start(order(tmp_path / str(number))))
            assert is_machines_fault(told.value), errno.errorcode[number]
            told.value.__traceback__ = None
    # The error holds on to what the call had made.
    assert len(os.listdir("/proc/self/fd")) == before


# A launch of nothing.


def rehearse(launcher: ForkServerLauncher, tmp_path: Path) -> tuple[str | None, list[str]]:
    folder = tmp_path / "jobs"
    folder.mkdir(exist_ok=True)
    made = launcher.rehearse(str(folder))
    assert select.select([made._fd], [], [], 20)[0]
    assert made.over()
    # What was used for it is kept for the next launch.
    return made.close(), [name for name in os.listdir(folder) if name != spares.FOLDER]


def test_a_launch_of_nothing_goes_all_the_way_and_leaves_nothing(tmp_path: Path, launcher: ForkServerLauncher) -> None:
    (tmp_path / "jobs" / f"{rehearsal._NAME}.of-one-that-was-killed" / "1.records").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    assert rehearse(launcher, tmp_path) == (None, [])
    # The fork server's socket and pipe stay.
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_fork_server_whose_program_is_away_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: ForkServerLauncher
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(server_process, "_MAIN", str(tmp_path / "none.py"))
        assert rehearse(launcher, tmp_path) == ("a supervisor died before it had begun", [])
    assert rehearse(launcher, tmp_path) == (None, [])


def test_a_fork_server_that_sleeps_is_found_out(tmp_path: Path, launcher: ForkServerLauncher) -> None:
    launcher.warm_up()
    pid = launcher.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        (tmp_path / "jobs").mkdir()
        made = launcher.rehearse(str(tmp_path / "jobs"))
        assert (made.over(), made.close()) == (False, "no supervisor takes a launch")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_folder_in_which_nothing_can_be_made_is_found_out(tmp_path: Path, launcher: ForkServerLauncher) -> None:
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(NotADirectoryError):
        launcher.rehearse(str(tmp_path / "jobs"))


# What a supervisor says.


@pytest.mark.parametrize(
    "spec",
    [
        {"cwd": "/nowhere"},
        {"cwd": "/dev/null"},
        {"cwd": "/a\0b"},
        {"argv": ["/nowhere"]},
        {"argv": ["/etc/passwd"]},
        {"argv": ["/"]},
        {"argv": ["a\0b"]},
    ],
)
def test_its_program_and_its_directory_are_the_jobs_own(
    tmp_path: Path, launcher: ForkServerLauncher, spec: dict[str, Any]
) -> None:
    asked = order(tmp_path, **spec)
    ended(launcher, launcher.start(asked))
    found = launcher.outcome(asked.run_dir, "t")
    assert found is not None
    assert (found.outcome, found.machine_fault) == (Outcome.LAUNCH_ERROR, False), found.error


def test_a_supervisor_that_does_not_find_its_orders_blames_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: ForkServerLauncher
) -> None:
    asked = order(tmp_path)
    fill = launch._fill_records

    def lose(records: str, spec: dict[str, Any]) -> None:
        fill(records, spec)
        os.unlink(os.path.join(records, bundle.SPEC))

    monkeypatch.setattr(launch, "_fill_records", lose)
    ended(launcher, launcher.start(asked))
    found = launcher.outcome(asked.run_dir, "")
    assert found is not None
    assert (found.outcome, found.machine_fault) == (Outcome.LAUNCH_ERROR, True)
    assert "the spec of the attempt cannot be found" in str(found.error)
    assert not launcher.begun(asked.run_dir)


def test_a_supervisor_says_when_the_jobs_program_may_exist(tmp_path: Path, launcher: ForkServerLauncher) -> None:
    asked = order(tmp_path)
    assert not launcher.begun(asked.run_dir)
    ended(launcher, launcher.start(asked))
    assert launcher.begun(asked.run_dir)
    found = launcher.outcome(asked.run_dir, "t")
    assert found is not None
    assert found.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("spoil", [Path.unlink, lambda spec: spec.write_text("{")], ids=["gone", "torn"])
def test_an_attempt_whose_spec_is_lost_before_it_is_read_never_begins_and_that_can_be_told(
    launcher: ForkServerLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object]
) -> None:
    asked = order(tmp_path, "/bin/touch", str(tmp_path / "ran"))

    def lose(point: str) -> None:
        if point == "launch.before_send":
            spoil(Path(f"{asked.run_dir}.records", bundle.SPEC))

    monkeypatch.setattr(launch.failpoints, "point", lose)
    ended(launcher, launcher.start(asked))
    result = launcher.outcome(asked.run_dir, asked.token)
    assert result is not None
    # The record has no token, so everything else is looked at before it is believed that nothing runs.
    assert (result.outcome, result.swept) == (Outcome.LOST, False)
    assert not launcher.begun(asked.run_dir)
    assert not (tmp_path / "ran").exists()

"""The way of a launch from the daemon to a supervisor, where a part of it is missing, full or broken."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.supervise import __main__ as entry
from gpuq.supervise import bundle, forkserver, launch, server_process, shim, stop
from gpuq.supervise.launch import ForkServerLauncher
from gpuq.supervise.server_process import ForkServer


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert len(set(os.listdir("/proc/self/fd"))) == len(before)


# The command line of the fork server.


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--fd"],
        ["--fd", "3"],
        ["--served", "3"],
        ["--fd", "x", "--served", "4"],
        ["--fd", "3", "--served", ""],
        ["--fd", "3", "--served", "4", "--files", "many"],
        ["--fd", "3", "--served", "4", "--other", "5"],
        ["--fd", "3", "--served", "4", "5"],
        ["-h"],
    ],
)
def test_a_fork_server_with_another_command_line_says_who_starts_it(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert entry.main(words) == 2
    assert "gpuq starts this itself" in capsys.readouterr().err


def test_the_fork_server_serves_the_descriptors_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr(forkserver, "serve", lambda *fds: served.append(fds))
    limits: list[Any] = []
    monkeypatch.setattr(entry.resource, "setrlimit", lambda *given: limits.append(given))
    monkeypatch.setattr(entry.resource, "getrlimit", lambda _: (64, 128))
    assert entry.main(["--fd", "3", "--served", "14"]) == 0
    assert (served.pop(), limits) == ((3, 14, "", [""]), [])
    words = ["--fd", "3", "--served", "14", "--files", "-1", "--groups", "folder", "--kinds", "v2,freezer"]
    assert entry.main(words) == 0
    assert served == [(3, 14, "folder", ["v2", "freezer"])]
    assert limits == [(resource.RLIMIT_NOFILE, (-1, 128))]


# The daemon's end.


class Connection:
    """One whose messages meet these errors, in order; None is taken."""

    def __init__(self, *answers: OSError | None) -> None:
        self.answers = list(answers)
        self.sent: list[Any] = []

    def sendmsg(self, *message: Any) -> None:
        if (error := self.answers.pop(0)) is not None:
            raise error
        self.sent.append(message)


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "-"), ConnectionResetError(errno.ECONNRESET, "-")])
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_launch_is_tried_with_three_fork_servers(
    monkeypatch: pytest.MonkeyPatch, error: OSError, failures: int
) -> None:
    server, connection = ForkServer(), Connection(*[error] * failures, None)
    abandoned: list[int] = []
    monkeypatch.setattr(server, "_connected", lambda: connection)
    monkeypatch.setattr(server, "_abandon", lambda: abandoned.append(1))
    server.launch("here", (7, 8, 9))
    [(data, ancillary, flags)] = connection.sent
    assert data == [f'{{"dir": "{Path.cwd()}/here"}}'.encode()]
    assert [(level, kind, list(fds)) for level, kind, fds in ancillary] == [
        (socket.SOL_SOCKET, socket.SCM_RIGHTS, [7, 8, 9])
    ]
    assert flags == socket.MSG_NOSIGNAL
    assert len(abandoned) == failures


def test_a_launch_that_no_fork_server_takes_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    server, broken = ForkServer(), BrokenPipeError(errno.EPIPE, "Broken pipe")
    connection = Connection(broken, broken, broken, None)
    abandoned: list[int] = []
    monkeypatch.setattr(server, "_connected", lambda: connection)
    monkeypatch.setattr(server, "_abandon", lambda: abandoned.append(1))
    with pytest.raises(BrokenPipeError):
        server.launch("here", (7, 8, 9))
    assert (connection.sent, len(abandoned)) == ([], 3)


def test_a_fork_server_that_takes_nothing_in_time_is_the_machines_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    server, connection = ForkServer(), Connection(BlockingIOError(errno.EAGAIN, "-"), None)
    monkeypatch.setattr(server, "_connected", lambda: connection)
    with pytest.raises(OSError, match="the fork server takes no launches") as told:
        server.launch("here", (7, 8, 9))
    assert (told.value.errno, connection.sent) == (errno.EAGAIN, [])


def test_a_fork_server_that_cannot_be_started_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_process, "_PYTHON", [str(tmp_path / "no-python")])
    server = ForkServer()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError) as told:
        server.start()
    # Now, while the error keeps alive what was made, not when that is collected.
    assert len(os.listdir("/proc/self/fd")) == before
    assert (server.pid, told.value.errno) == (None, errno.ENOENT)
    server.close()
    monkeypatch.undo()
    in_nowhere = ForkServer(str(tmp_path / "none" / "messages"))
    with pytest.raises(FileNotFoundError):
        in_nowhere.start()


def test_a_fork_server_is_started_once_and_closed_twice(tmp_path: Path) -> None:
    launcher = ForkServerLauncher(str(tmp_path / "messages"))
    launcher.warm_up()
    pid = launcher.server.pid
    assert pid is not None
    launcher.warm_up()
    assert launcher.server.pid == pid
    fd = os.pidfd_open(pid)
    launcher.close()
    assert launcher.server.pid is None
    launcher.close()
    assert select.select([fd], [], [], 20)[0]
    os.close(fd)
    assert (tmp_path / "messages").read_bytes() == b""


def test_a_fork_server_that_is_stuck_is_killed_when_it_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server_process, "_CLOSE_TIMEOUT_S", 0.05)
    server = ForkServer(str(tmp_path / "messages"))
    server.start()
    assert server.pid is not None
    fd = os.pidfd_open(server.pid)
    os.kill(server.pid, signal.SIGSTOP)
    server.close()
    assert select.select([fd], [], [], 20)[0]
    os.close(fd)


def test_a_fork_server_that_died_is_followed_by_another(tmp_path: Path) -> None:
    server = ForkServer(str(tmp_path / "messages"))
    server.start()
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    server.start()
    assert server.pid not in {None, first}
    server.close()


# A stop that finds no room.


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "1.records"
    folder.mkdir(mode=0o700)
    return folder


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stop_without_a_supervisor_is_a_file_for_the_one_to_come(tmp_path: Path, records: Path) -> None:
    stop.request_stop(str(tmp_path / "1"), "preempt", 5.0, "USR1")
    found = bundle.read(str(records), bundle.STOP)
    assert found is not None
    assert (found["reason"], found["grace_s"], found["signal"]) == ("preempt", 5.0, "USR1")
    os.mkfifo(records / bundle.CONTROL)
    stop.request_stop(str(tmp_path / "1"), "cancel", 0.0)
    assert (bundle.read(str(records), bundle.STOP) or {})["reason"] == "cancel"


def test_without_disk_and_supervisor_a_stop_has_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, records: Path
) -> None:
    monkeypatch.setattr(bundle, "write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        stop.request_stop(str(tmp_path / "1"), "cancel", 5.0)
    os.mkfifo(records / bundle.CONTROL)
    with pytest.raises(OSError, match="No space left"):
        stop.request_stop(str(tmp_path / "1"), "cancel", 5.0)


def test_a_request_that_is_in_no_file_needs_room_in_the_pipe_and_a_nudge_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, records: Path
) -> None:
    os.mkfifo(records / bundle.CONTROL)
    bundle.create(str(records), bundle.SPEC, {"token": "t"})
    fd = os.open(records / bundle.CONTROL, os.O_RDWR | os.O_NONBLOCK)
    try:
        stop.request_stop(str(tmp_path / "1"), "cancel", 5.0)
        assert os.read(fd, 100) == b"\n"
        with monkeypatch.context() as broken:
            broken.setattr(bundle, "write", full_disk)
            stop.request_stop(str(tmp_path / "1"), "cancel", 7.0)
            said = os.read(fd, 1000)
            # Whatever stood before it without an end is a line of its own.
            assert said.startswith(b"\n")
            told = bundle.parsed(said.strip())
            assert told is not None
            assert (told["reason"], told["grace_s"], told["token"]) == ("cancel", 7.0, "t")
            os.write(fd, b"\n" * fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ))
            with pytest.raises(OSError, match="No space left"):
                stop.request_stop(str(tmp_path / "1"), "cancel", 7.0)
        stop.request_stop(str(tmp_path / "1"), "cancel", 7.0)
    finally:
        os.close(fd)


def test_something_else_in_the_place_of_the_pipe_is_an_error(tmp_path: Path, records: Path) -> None:
    (records / bundle.CONTROL).symlink_to("/dev/null")
    with pytest.raises(OSError, match="symbolic links"):
        stop.nudge(str(records))


# The exit record and a full disk.


def test_an_exit_record_is_tried_ever_more_rarely_until_the_disk_takes_it(
    monkeypatch: pytest.MonkeyPatch, records: Path
) -> None:
    pauses: list[float] = []
    write = bundle.write
    monkeypatch.setattr(shim.time, "sleep", pauses.append)

    def refuse(folder: str, name: str, record: dict[str, object]) -> None:
        if len(pauses) < 12:
            full_disk()
        write(folder, name, record)

    monkeypatch.setattr(bundle, "write", refuse)
    shim.record_end(str(records), {"outcome": "succeeded"})
    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert (max(pauses), pauses[-1], len(pauses)) == (15.0, 15.0, 12)
    assert bundle.read(str(records), bundle.EXIT) == {"outcome": "succeeded"}
    # Nobody asks for the record of a folder that is gone.
    shim.record_end(str(records / "none"), {"outcome": "succeeded"})
    assert len(pauses) == 12


# What is read of a supervisor's word.

WHOLE: dict[str, Any] = {"supervisor_pid": 1, "supervisor_start": 2, "pid": 3, "pid_start": 4, "started_at": 5.5}


def test_a_report_counts_only_whole(tmp_path: Path) -> None:
    launcher = ForkServerLauncher()

    def said(data: bytes) -> Launched | None:
        read_end, write_end = os.pipe()
        os.write(write_end, data)
        os.close(write_end)
        try:
            return launcher.report(read_end)
        finally:
            os.close(read_end)

    assert said(bundle.line(WHOLE)) == Launched(1, 2, 3, 4, 5.5)
    for name in WHOLE:
        assert said(bundle.line({**WHOLE, name: None})) is None
        assert said(bundle.line({**WHOLE, name: "1"})) is None
    for data in (b"", b"{", b"[1]", b"7"):
        assert said(data) is None
    launcher.close()


def test_an_exit_record_is_read_field_by_field(tmp_path: Path) -> None:
    launcher, run_dir = ForkServerLauncher(), str(tmp_path / "1")
    assert launcher.outcome(run_dir, "t") is None
    folder = tmp_path / "1.records"
    folder.mkdir()

    def read(**fields: object) -> Result | None:
        bundle.write(str(folder), bundle.EXIT, {"token": "t", **fields})
        return launcher.outcome(run_dir, "t")

    whole = read(outcome="signal", signal=9, exit_code=None, error="e", started_at=1.5, finished_at=2.5, swept=True)
    assert whole == Result(Outcome.SIGNAL, signal=9, error="e", started_at=1.5, finished_at=2.5, swept=True)
    for field, values in {"swept": (False, None, True), "machine_fault": (True, None, "yes")}.items():
        found = [getattr(read(outcome="succeeded", exit_code=0, **{field: value}), field) for value in values]
        assert found == ([False, True, True] if field == "swept" else [True, False, False])
    strange = read(outcome="melted", error="hot")
    assert strange is not None
    assert (strange.outcome, strange.error) == (Outcome.LOST, "the exit record names an unknown outcome 'melted'")
    another = launcher.outcome(run_dir, "another")
    assert another is not None
    assert (another.outcome, another.swept) == (Outcome.LOST, False)
    launcher.close()


def test_a_supervisor_that_is_not_the_one_that_was_meant_is_not_watched() -> None:
    launcher = ForkServerLauncher()
    me = launch.linux.look(os.getpid())
    assert me is not None
    fd = launcher.watch(Launched(me.pid, me.start, 3, 4, 5.5))
    assert fd is not None
    os.close(fd)
    assert launcher.watch(Launched(me.pid, me.start + 1, 3, 4, 5.5)) is None
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    start = launch.processes.start_of(dead)
    assert launcher.watch(Launched(dead, start, 3, 4, 5.5)) is None
    os.waitpid(dead, 0)
    assert launcher.watch(Launched(dead, start, 3, 4, 5.5)) is None
    launcher.close()


def test_pipes_of_what_is_over_are_closed_now_and_then_and_remembered() -> None:
    launcher = ForkServerLauncher()
    writers: list[int] = []
    for number in range(8):
        read_end, write_end = os.pipe()
        os.write(write_end, bundle.line({**WHOLE, "pid": number + 1}))
        assert launcher.report(read_end) is not None
        os.close(read_end)
        writers.append(write_end)
        if number in {2, 4}:
            os.close(writers[number])
    for number in range(8):
        fd = launcher.watch(Launched(2**22 + 1, 2, number + 1, 4, 5.5))
        assert (fd is None) == (number in {2, 4})
        if fd is not None:
            os.close(fd)
    for number in set(range(8)) - {2, 4}:
        os.close(writers[number])
    launcher.close()


# A machine without room for another process.


def test_a_fork_server_that_cannot_fork_says_so_and_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    served, served_end = os.pipe()
    handlers = signal.set_wakeup_fd(-1)
    server = forkserver._Server(theirs, served_end)
    waits: list[Any] = []

    class Poll:
        def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
            waits.append(timeout)
            return []

    def fail() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    server._poll = Poll()  # type: ignore[assignment]
    monkeypatch.setattr(forkserver.os, "fork", fail)
    try:
        server.turn()
        assert (server._idle, server._serials, server._wills) == (set(), {}, {})
        assert capsys.readouterr().err.startswith("gpuq supervise: cannot fork: [Errno 11]")
        # A second, and then it tries again, whatever it hears.
        assert waits == [1000, 0]
        assert not server.finished
    finally:
        wake_end = signal.set_wakeup_fd(handlers)
        for fd in (server._status, server._status_end, server._tokens, server._tokens_end, server._wake, wake_end):
            os.close(fd)
        ours.close()
        theirs.close()
        os.close(served)
        os.close(served_end)

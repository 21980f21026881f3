"""What happens at the edges of supervision: descriptors that are let go, children that cannot begin, calls refused."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.supervise import bundle, cgroup, cgroup_folders, isolation, kernel, processes, server_process, shim, spawn
from gpuq.supervise.cgroup_folders import FREEZER, V2
from gpuq.supervise.events import Events
from gpuq.supervise.isolation import CannotIsolate
from gpuq.supervise.ladder import KILL, NOTICE, STRAYS, TERMINATE, Ladder
from gpuq.supervise.server_process import ForkServer
from gpuq.supervise.spawn import MACHINE_FAULT, AttemptSpec, CannotRun


class Left(BaseException):
    """In the place of a process that ends here."""


# Control groups.


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The one that is made next."""
    ends = os.pipe()
    monkeypatch.setattr(cgroup.os, "pipe2", lambda _: ends)
    yield ends
    monkeypatch.undo()
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.mark.parametrize("entered", [True, False])
def test_a_child_tries_a_group_leaves_and_removes_it_and_says_of_which_kind_it_was(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int], entered: bool
) -> None:
    steps: list[Any] = []
    group = SimpleNamespace(kind=FREEZER, leave=lambda: steps.append("leave"), remove=lambda: steps.append("remove"))

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(cgroup, "available", lambda folder, kinds: [(kinds[0], f"/x/{folder}")])
    monkeypatch.setattr(cgroup, "remove", lambda places: steps.append(places))
    monkeypatch.setattr(cgroup, "enter", lambda places: steps.append(places) or (group if entered else None))
    monkeypatch.setattr(cgroup.os, "fork", lambda: 0)
    monkeypatch.setattr(cgroup.os, "_exit", leave)
    with pytest.raises(Left, match="0"):
        cgroup.usable([FREEZER])
    places = [(FREEZER, f"/x/gpuq-try-{os.getpid()}")]
    assert steps == [places, *(["leave", "remove"] if entered else []), places]
    os.close(pipe[1])
    assert os.read(pipe[0], 100) == (b"freezer" if entered else b"")


@pytest.mark.parametrize(("told", "kind"), [(b"v2", V2), (b"", None)])
def test_what_the_child_says_is_the_kind_and_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int], told: bytes, kind: str | None
) -> None:
    waited: list[Any] = []
    os.write(pipe[1], told)
    monkeypatch.setattr(cgroup, "available", lambda folder, kinds: [(V2, "/x")])
    monkeypatch.setattr(cgroup, "remove", lambda places: None)
    monkeypatch.setattr(cgroup.os, "fork", lambda: 4194305)
    monkeypatch.setattr(cgroup.os, "waitpid", lambda *words: waited.append(words))
    assert cgroup.usable() == kind
    assert waited == [(4194305, 0)]
    for fd in pipe:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    monkeypatch.setattr(cgroup, "available", lambda folder, kinds: [])
    assert cgroup.usable() is None
    assert len(waited) == 1


def test_the_group_of_a_supervisor_that_is_a_zombie_is_left_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroup, "found", lambda _: [(V2, str(tmp_path))])
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        (tmp_path / f"{pid}-{processes.start_of(pid)}").mkdir()
        assert [Path(group.path).parent for group in cgroup.left_over("x")] == [tmp_path]
    finally:
        os.waitpid(pid, 0)


def test_between_two_kills_of_what_is_left_over_there_is_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    left = [1, 2]
    group = SimpleNamespace(path="x", remove=lambda: not left, members=lambda: [7], kill=lambda: left.pop())
    monkeypatch.setattr(cgroup, "left_over", lambda _: [group])
    monkeypatch.setattr(cgroup.time, "sleep", naps.append)
    assert cgroup.end_left_over("x") == 1
    assert len(naps) == 2


def test_a_folder_for_groups_that_is_gone_again_is_of_no_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroup_folders, "_hierarchies", lambda: [(V2, str(tmp_path), "own")])
    monkeypatch.setattr(cgroup_folders, "make", lambda path: None)
    assert cgroup_folders.available("gpuq-x") == []
    with pytest.raises(FileNotFoundError):
        cgroup_folders.folder_name(str(tmp_path / "none"))
    monkeypatch.undo()
    cgroup_folders.make(str(tmp_path / "new"))
    cgroup_folders.make(str(tmp_path / "new"))
    assert cgroup_folders.subfolders(str(tmp_path)) == ["new"]
    assert cgroup_folders.subfolders(str(tmp_path / "none")) == []
    (tmp_path / "new" / "inner").mkdir()
    cgroup_folders.remove([(V2, str(tmp_path / "new")), (V2, str(tmp_path / "new" / "inner"))])
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert list((tmp_path / "new").iterdir()) == []


# Hidden devices.


def test_hiding_is_tried_to_the_end_and_the_kernels_own_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Thread:
        """One that gets no time before somebody waits for it."""

        def __init__(self, target: Any, name: str) -> None:
            self.started, self.target = False, target

        def start(self) -> None:
            self.started = True

        def join(self) -> None:
            assert self.started
            self.target()

    def refuse(nodes: Any) -> None:
        raise CannotIsolate("no root")

    monkeypatch.setattr(isolation, "hide", refuse)
    monkeypatch.setattr(isolation.threading, "Thread", Thread)
    assert isolation.works() == "no root"
    result = isolation._libc.mount(b"/no/such", b"/no/such", None, 0x1000, None)
    with pytest.raises(CannotIsolate, match=r"^x: (No such file or directory|Operation not permitted)$"):
        isolation._call("x", result)


# What wakes a supervisor.


def test_a_reading_that_ends_with_a_full_buffer_is_whole_and_a_wait_is_in_milliseconds(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / bundle.CONTROL)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)}
    wakeup = signal.set_wakeup_fd(-1)
    pauses: list[Any] = []
    try:
        events = Events(str(tmp_path))
        os.write(events.control, b"x" * 4095 + b"\n")
        assert events.wait(None, 0) == {events.control}
        assert events.lines() == [b"x" * 4095]
        assert events.wait(None, 0) == set()
        events._poll = SimpleNamespace(poll=lambda pause: pauses.append(pause) or [])  # type: ignore[assignment]
        events.wait(None, 0.25)
        events.wait(None)
        assert pauses == [250, None]
        me = processes.look(os.getpid())
        assert me is not None
        assert processes.catches(me, signal.SIGTERM)
        events.close()
        assert signal.set_wakeup_fd(-1) == -1
        assert [processes.catches(me, number) for number in (signal.SIGTERM, signal.SIGINT)] == [False, False]
        assert processes.catches(me, signal.SIGCHLD)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)


def test_a_stop_that_was_due_when_the_job_ended_is_not_put_off() -> None:
    ladder = Ladder(started=100.0, time_limit_s=None, kill_grace_s=5.0)
    ladder.request(100.0, "cancel")
    ladder.main_ended(100.5)
    assert (ladder.due(104.9), ladder.due(105.0)) == ([TERMINATE], [KILL])


# A supervisor and its job's process.


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A supervised process, which is played by the test's own, with a pipe for the answer of its exec."""
    seen: dict[str, list[Any]] = {"watch": [], "forget": [], "will": [], "wait": []}
    events = SimpleNamespace(
        watch=lambda fd, **_: seen["watch"].append(fd),
        forget=seen["forget"].append,
        wait=lambda *words: seen["wait"].append(words) or {70},
        control=71,
        told_to_stop=False,
        requests=list,
    )
    spec = AttemptSpec({"token": "t", "argv": ["x"], "env": {}})
    answer, answer_end = os.pipe()
    report, report_end = os.pipe()
    made: Any = shim._Run(
        str(tmp_path),
        spec,
        events,  # type: ignore[arg-type]
        os.getpid(),
        answer,
        report_end,
        0,
        SimpleNamespace(write=seen["will"].append),  # type: ignore[arg-type]
        None,
    )
    monkeypatch.setattr(made, "_reap", lambda: True)
    yield SimpleNamespace(run=made, seen=seen, answer=answer, answer_end=answer_end, report=report, events=events)
    for fd in (answer_end, report, report_end):
        os.close(fd)
    if made.exec_fd >= 0:
        os.close(answer)


def test_the_answer_of_an_exec_is_heard_once_and_its_descriptor_forgotten_before_it_is_closed(run: Any) -> None:
    assert run.seen["watch"] == [run.answer]
    os.write(run.answer_end, MACHINE_FAULT + b"no room")
    run.run._hear_the_exec()
    assert run.seen["forget"] == [run.answer]
    assert (run.run.refusal, run.run.machine_fault, run.run.exec_fd) == ("no room", True, -1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(run.answer)
    assert run.seen["will"] == []


def test_who_is_alone_is_told_so_once(run: Any) -> None:
    alone: list[int] = []
    run.run.until_nothing_is_left(70, lambda: alone.append(1))
    assert (alone, run.seen["forget"]) == ([1], [70])
    run.run.until_nothing_is_left(72, lambda: alone.append(2))
    assert alone == [1]


def test_only_a_job_that_sigterm_ended_may_have_been_ended_by_a_shutdown(run: Any) -> None:
    os.write(run.answer_end, b"it cannot be run")
    run.run._hear_the_exec()
    for code, waits in ((0, 0), (-9, 0), (-15, 1)):
        run.seen["wait"].clear()
        run.run._main_ended(code)
        assert len(run.seen["wait"]) == waits
    run.events.told_to_stop = True
    run.run._main_ended(-15)
    assert (len(run.seen["wait"]), run.run.ending.stop_reason) == (1, "shutdown")
    for code, reason in ((0, None), (1, "shutdown")):
        run.run._main_ended(code)
        ending = run.run.ending
        assert (ending.exit_code, ending.signum, ending.stop_reason) == (code, None, reason)
    run.run._main_ended(-1)
    assert (run.run.ending.exit_code, run.run.ending.signum) == (None, signal.SIGHUP)


@pytest.mark.parametrize(
    ("step", "reason", "ended", "reached", "noticed", "told"),
    [
        (NOTICE, None, False, False, 10, ["will", ("notify", 10)]),
        (NOTICE, "preempt", False, True, None, ["will", ("notify", 10)]),
        (NOTICE, None, True, False, None, []),
        (TERMINATE, "cancel", False, True, None, ["will", "terminate"]),
        (TERMINATE, "cancel", True, False, None, ["terminate"]),
        (TERMINATE, STRAYS, False, False, None, ["will", "terminate"]),
        (KILL, "cancel", False, True, None, ["will", "group", ("kill", False)]),
        (KILL, STRAYS, True, False, None, ["group", ("kill", True)]),
    ],
)
def test_each_step_of_a_stop_is_in_the_will_before_it_is_taken(
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    reason: str | None,
    ended: bool,
    reached: bool,
    noticed: int | None,
    told: list[Any],
) -> None:
    done: list[Any] = []
    supervised = run.run
    os.close(run.answer)
    supervised.exec_fd = -1
    supervised.ladder = SimpleNamespace(reason=reason, notice=10)
    supervised.will = SimpleNamespace(write=lambda will: done.append("will") or run.seen["will"].append(will))
    supervised.family = SimpleNamespace(
        notify=lambda number: done.append(("notify", number)),
        terminate=lambda: done.append("terminate"),
        kill=lambda main_reaped, reap: done.append(("kill", main_reaped)),
    )
    supervised.ending = "over" if ended else None
    monkeypatch.setattr(shim, "end_all_in", lambda group: done.append("group"))
    supervised._take(step)
    assert done == told
    assert (supervised.stop_reached, supervised.noticed) == (reached, noticed)
    if "will" in told:
        [will] = run.seen["will"]
        assert (will["stop_reason"], will["noticed"]) == (reason if reached else None, noticed)
    # Nothing is known of a program that does not run.
    supervised.refusal, supervised.ending = "refused", None
    done.clear()
    supervised._take(TERMINATE)
    assert done == ["terminate"]


SPEC = {"token": "t", "argv": ["x"], "env": {}, "uid": 1000, "gid": 1000, "cwd": "/y", "umask": 0o27}


@pytest.mark.parametrize(
    ("where", "error", "told"),
    [
        ("hide", CannotIsolate("no mounts"), MACHINE_FAULT + b"other GPUs cannot be hidden from the job: no mounts"),
        ("enter", CannotRun("no such folder"), b"no such folder"),
        (
            "identity",
            RuntimeError("odd"),
            MACHINE_FAULT + b"the job's process could not be set up: RuntimeError('odd')",
        ),
        ("identity", ValueError("odd"), b"the job's process could not be set up: ValueError('odd')"),
        ("execute", None, b""),
    ],
)
def test_a_child_that_cannot_become_the_job_says_why_and_ends(
    monkeypatch: pytest.MonkeyPatch, where: str, error: Exception | None, told: bytes
) -> None:
    steps: list[Any] = []

    def step(name: str) -> Any:
        def take(*words: Any) -> None:
            steps.append((name, *words) if name in {"umask", "dup2", "block", "signal", "die"} else name)
            if name == where and error is not None:
                raise error

        return take

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(spawn.signal, "set_wakeup_fd", step("wakeup"))
    monkeypatch.setattr(kernel, "default_action", step("signal"))
    monkeypatch.setattr(kernel, "die_with_parent", step("die"))
    monkeypatch.setattr(kernel, "block_exactly", step("block"))
    monkeypatch.setattr(isolation, "hide", step("hide"))
    monkeypatch.setattr(spawn, "_take_identity", step("identity"))
    monkeypatch.setattr(spawn, "_enter", step("enter"))
    monkeypatch.setattr(spawn, "_execute", step("execute"))
    for name in ("setsid", "umask", "dup2"):
        monkeypatch.setattr(spawn.os, name, step(name))
    monkeypatch.setattr(spawn.os, "_exit", leave)
    read_end, write_end = os.pipe()
    spec = AttemptSpec({**SPEC, "hide_devices": ["/dev/x"]})
    with pytest.raises(Left, match="127"):
        spawn._become_the_job(spec, 9, write_end, os.getppid())
    monkeypatch.undo()
    os.close(write_end)
    assert os.read(read_end, 5000) == told
    os.close(read_end)
    whole = [
        "wakeup", ("signal", 15), ("signal", 2), ("signal", 1), "setsid", ("umask", 0o27), "hide", "identity",
        ("die", 9), ("dup2", 9, 1), ("dup2", 9, 2), "enter", ("block", ()), "execute",
    ]  # fmt: skip
    assert steps == whole[: whole.index(where) + 1]


# The daemon's end of the fork server.


def test_a_message_waits_ten_seconds_for_room_and_an_ended_fork_server_is_reaped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[socket.socket] = []
    real = socket.socketpair

    def pair(*words: Any) -> Any:
        made.extend(real(*words))
        return tuple(made)

    monkeypatch.setattr(server_process.socket, "socketpair", pair)
    server = ForkServer(str(tmp_path / "messages"), ("a folder", ["v2", "freezer"]))
    assert server._options == ["--groups", "a folder", "--kinds", "v2,freezer"]
    server = ForkServer(str(tmp_path / "messages"))
    server.start()
    pid = server.pid
    assert pid is not None
    ours, theirs = made
    length = struct.calcsize("ll")
    assert struct.unpack("ll", ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, length)) == (10, 0)
    assert theirs.fileno() == -1
    fd = os.pidfd_open(pid)
    server.close()
    assert ours.fileno() == -1
    assert select.select([fd], [], [], 20)[0]
    os.close(fd)
    for thread in threading.enumerate():
        if thread.name == "gpuq-fork-server-end":
            thread.join(20)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

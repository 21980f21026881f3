"""What wakes a supervisor, and how it takes a launch from the socket that it shares with others."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.supervise import bundle, kernel, supervisor_pool
from gpuq.supervise.crash_record import CrashRecord
from gpuq.supervise.events import Events
from gpuq.supervise.supervisor_pool import MESSAGE_BYTES, OVER, PooledSupervisor, messages

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Any]:
    os.mkfifo(tmp_path / bundle.CONTROL)
    # Of no harm to these tests, should the supervisor's own handlers not be there.
    handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(-1)
    before = descriptors()
    made = Events(str(tmp_path))
    try:
        yield made
    finally:
        made.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
    assert descriptors() == before


def tell(events: Any, data: bytes) -> None:
    os.write(events.control, data)


def test_an_alarm_and_nothing_else_ends_a_wait_at_its_moment(events: Any) -> None:
    assert events.wait(None, 0) == set()
    moment = kernel.since_boot() + 0.01
    [fd] = events.wait(moment)
    assert kernel.since_boot() >= moment
    assert events.wait(None, 0) == set()
    # A moment that is over, and one that is far.
    assert events.wait(kernel.since_boot() - 1) == {fd}
    assert events.wait(kernel.since_boot() + 1000, 0) == set()
    assert events.wait(None, 0) == set()


def test_what_stands_in_the_pipe_is_read_line_by_line_and_nudges_are_none(events: Any) -> None:
    tell(events, b"\n")
    assert events.control in events.wait(None)
    assert events.lines() == []
    tell(events, b"one\n\nno record\ntwo\n")
    assert events.wait(None, 0) == {events.control}
    assert events.lines() == [b"one", b"no record", b"two"]
    assert events.lines() == []
    # More than one reading takes.
    tell(events, b"x" * 5000 + b"\n")
    tell(events, b"two\n")
    events.wait(None, 0)
    assert [len(line) for line in events.lines()] == [5000, 3]
    assert events.wait(None, 0) == set()


def test_a_line_comes_when_it_is_whole_and_of_an_endless_one_little_is_kept(events: Any) -> None:
    tell(events, b"on")
    events.wait(None, 0)
    assert events.lines() == []
    tell(events, b"e\n")
    events.wait(None, 0)
    assert events.lines() == [b"one"]
    for _ in range(20):
        tell(events, b"x" * 60_000)
        events.wait(None, 0)
        assert events.lines() == []
    assert len(events._told) < 70_000


def test_one_look_at_a_pipe_that_is_filled_again_and_again_ends(events: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuq.supervise.events.os.read", lambda fd, most: b"x" * most)
    tell(events, b"x")
    events.wait(None, 0)
    assert len(events._told) == 16 * 4096


@pytest.mark.parametrize(("number", "told"), [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGCHLD, False)])
def test_a_signal_wakes_and_only_some_are_a_word_to_the_supervisor_itself(events: Any, number: int, told: bool) -> None:
    assert not events.told_to_stop
    os.kill(os.getpid(), number)
    assert len(events.wait(None, 20)) == 1
    assert events.told_to_stop is told
    assert events.wait(None, 0) == set()


def test_a_descriptor_is_watched_until_it_is_forgotten(events: Any) -> None:
    read_end, write_end = os.pipe()
    try:
        events.watch(read_end, for_hangup_only=True)
        os.write(write_end, b"x")
        assert events.wait(None, 0) == set()
        events.forget(read_end)
        events.watch(read_end)
        assert events.wait(None, 0) == {read_end}
        events.forget(read_end)
        assert events.wait(None, 0) == set()
        events.watch(read_end, for_hangup_only=True)
        os.close(write_end)
        write_end = -1
        assert events.wait(None, 0) == {read_end}
        events.forget(read_end)
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)


def test_an_alarm_is_as_it_was_set_last() -> None:
    before = descriptors()
    alarm = kernel.Alarm()
    try:

        def rings() -> bool:
            with contextlib.suppress(BlockingIOError):
                return bool(os.read(alarm.fd, 8))
            return False

        assert not rings()
        alarm.clear()
        # A moment before the machine's start is over, too.
        for over in (-5.0, 0.0, kernel.since_boot() - 1):
            alarm.set(over)
            assert rings()
            alarm.clear()
        alarm.set(kernel.since_boot() + 1000)
        assert not rings()
        alarm.set(1e18)
        assert not rings()
        alarm.set(5.0)
        alarm.set(None)
        assert not rings()
    finally:
        os.close(alarm.fd)
    assert descriptors() == before


# The shared socket.


class Crew:
    """One member, the daemon's end of its socket, and the pipe on which it reports."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.status, self.status_end = os.pipe()
        self.tokens, self.tokens_end = os.pipe2(os.O_NONBLOCK)
        self.will = CrashRecord()
        self.member = PooledSupervisor(7, theirs, self.status_end, self.tokens, self.will)
        self.theirs = theirs

    def send(self, run_dir: str, fds: list[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.ours.sendmsg([json.dumps({"dir": run_dir}).encode()], ancillary)

    def close(self) -> None:
        self.member._poll.close()
        self.ours.close()
        self.theirs.close()
        self.will.close()
        for fd in (self.status, self.status_end, self.tokens, self.tokens_end):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def crew() -> Iterator[Crew]:
    before = descriptors()
    made = Crew()
    yield made
    made.close()
    assert descriptors() == before


def test_a_launch_is_a_folder_and_three_descriptors_and_anything_else_is_dropped(crew: Crew) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        before = descriptors()
        for fds in ([], [null], [null, null]):
            crew.send("/dropped", fds)
        crew.send("/taken", [null, null, null])
        taken = crew.member._take(20)
        assert taken is not None
        run_dir, fds = taken
        assert (run_dir, len(fds)) == ("/taken", 3)
        assert descriptors() == before + 3
        assert not any(os.get_inheritable(fd) for fd in fds)
        for fd in fds:
            os.close(fd)
    finally:
        os.close(null)


def test_when_the_daemon_is_gone_the_member_says_so_and_waits_no_more(crew: Crew) -> None:
    crew.ours.close()
    assert crew.member._take(20) is None
    assert list(messages(os.read(crew.status, 100))) == [(7, OVER)]
    assert MESSAGE_BYTES == 5


def test_a_member_that_nobody_needs_for_a_while_leaves_without_a_word(crew: Crew) -> None:
    assert crew.member._take(0) is None
    os.set_blocking(crew.status, False)
    with pytest.raises(BlockingIOError):
        os.read(crew.status, 1)


def test_when_the_fork_server_is_gone_no_launch_is_taken_any_more(crew: Crew) -> None:
    crew.send("/later", [])
    os.close(crew.status)
    assert crew.member._take(20) is None
    crew.member._say(OVER)
    # The socket is let go of, so that no launch waits in it unseen.
    assert crew.theirs.fileno() == -1
    assert crew.member._take(20) is None


def test_as_many_may_wait_for_another_launch_as_there_are_tokens(crew: Crew) -> None:
    os.write(crew.tokens_end, b"\0\0")
    assert [crew.member._may_park() for _ in range(3)] == [True, True, False]


def test_a_member_removes_its_own_group_only_where_no_fork_server_does(crew: Crew) -> None:
    done: list[str] = []
    group: Any = SimpleNamespace(left=False, leave=lambda: done.append("leave"), remove=lambda: done.append("remove"))
    crew.member._clear(group)
    crew.member._clear(None)
    assert done == []
    crew.member._let_go()
    crew.member._clear(None)
    crew.member._clear(group)
    assert done == ["leave", "remove"]
    group.left = True
    crew.member._clear(group)
    assert done[2:] == ["remove"]


@pytest.mark.parametrize(
    ("fit", "tokens", "said"),
    [(True, 2, [0, 1, 0, 1, 0]), (True, 0, [0]), (False, 2, [0]), (True, 1, [0, 1, 0])],
)
def test_a_member_goes_on_as_long_as_it_is_fit_and_may_wait(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, fit: bool, tokens: int, said: list[int]
) -> None:
    pauses: list[Any] = []
    supervised: list[Any] = []
    os.write(crew.tokens_end, bytes(tokens))
    monkeypatch.setattr(crew.member, "_take", lambda pause: pauses.append(pause) or ("/run", [3, 4, 5]))
    monkeypatch.setattr(supervisor_pool.shim, "supervise", lambda *words: supervised.append(words) or fit)
    crew.member._serve(None)
    assert list(messages(os.read(crew.status, 100))) == [(7, what) for what in said]
    # For the first it waits as long as it takes.
    attempts = said.count(0)
    assert pauses == [None, 60, 60][:attempts]
    assert (
        supervised
        == [("/run", 3, 4, 5, crew.status_end, crew.member._let_go, crew.will, None, crew.member._ends)] * attempts
    )
    crew.member._take = lambda _: None  # type: ignore[method-assign]
    crew.member._serve(None)
    assert len(supervised) == attempts


def test_a_launch_that_another_member_took_is_waited_for_no_less(crew: Crew) -> None:
    crew.send("/taken", [0, 0, 0])
    real, answers = crew.theirs.recvmsg, [BlockingIOError()]

    def receive(*words: Any) -> Any:
        if answers:
            raise answers.pop()
        return real(*words)

    crew.member._connection = SimpleNamespace(recvmsg=receive)  # type: ignore[assignment]
    taken = crew.member._take(20)
    assert taken is not None
    assert (taken[0], len(taken[1]), answers) == ("/taken", 3, [])
    for fd in taken[1]:
        os.close(fd)

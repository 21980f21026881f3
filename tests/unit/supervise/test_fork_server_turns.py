"""The fork server's own book: who is idle, who may wait, who has ended. Its children are played by the test."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.supervise import forkserver, processes
from gpuq.supervise.supervisor_pool import IDLE, OVER, TAKEN

PID = 2**22
READY = forkserver.READY


class Served:
    """A fork server whose forks give numbers of no process, and whose children end when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.served, served_end = os.pipe()
        self.forks = 0
        self.ended: list[Any] = []
        self.reaped: list[int] = []
        self.hunts: list[set[int]] = []
        self.pauses: list[Any] = []
        self.wakeup = signal.set_wakeup_fd(-1)
        # The fewest, so that each step is seen; one test has as many as there are.
        monkeypatch.setattr(forkserver, "READY", 1)
        monkeypatch.setattr(forkserver.os, "fork", self._fork)
        self.stopped: list[int] = []
        monkeypatch.setattr(forkserver.os, "waitid", self._waitid)
        monkeypatch.setattr(forkserver, "children", lambda: [seen.si_pid for seen in self.ended])
        monkeypatch.setattr(forkserver.os, "waitpid", self._reap)
        monkeypatch.setattr(processes, "start_of", lambda pid: pid + 1)
        monkeypatch.setattr(processes, "everything", dict)
        monkeypatch.setattr(forkserver, "hunt", lambda reap, spare: self.hunts.append(set(spare)) or reap())
        self.server = forkserver._Server(theirs, served_end)
        # As the kernel's: a signal writes a byte there.
        self.wake_end = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(self.wake_end, warn_on_full_buffer=False)
        real = self.server._poll.poll

        def poll(pause: Any = None) -> Any:
            self.pauses.append(pause)
            # Never waits: what is to be heard was said before.
            return real(0)

        self.server._poll = SimpleNamespace(poll=poll, unregister=self.server._poll.unregister)  # type: ignore[assignment]

    def _fork(self) -> int:
        self.forks += 1
        return PID + self.forks

    def _waitid(self, kind: int, pid: int, options: int) -> Any:
        if options & os.WSTOPPED:
            return SimpleNamespace(si_pid=self.stopped.pop(0)) if self.stopped else None
        wanted = [seen for seen in self.ended if seen.si_pid not in self.reaped]
        return next((seen for seen in wanted if kind == os.P_ALL or seen.si_pid == pid), None)

    def _reap(self, pid: int, options: int) -> tuple[int, int]:
        assert options == 0
        self.reaped.append(pid)
        return pid, 0

    def says(self, serial: int, what: int) -> None:
        os.write(self.server._status_end, serial.to_bytes(4, "little") + bytes([what]))
        self.server.turn()

    def ends(self, pid: int, status: int = 0, code: int = os.CLD_EXITED) -> None:
        self.ended.append(SimpleNamespace(si_pid=pid, si_status=status, si_code=code))
        os.kill(os.getpid(), signal.SIGCHLD)
        self.server.turn()

    def tokens(self) -> int:
        """How many may wait for another launch; put back."""
        found = len(os.read(self.server._tokens, 100)) if select.select([self.server._tokens], [], [], 0)[0] else 0
        os.write(self.server._tokens_end, bytes(found))
        return found

    def close(self) -> None:
        wake_end = signal.set_wakeup_fd(self.wakeup)
        for will in self.server._wills.values():
            will.close()
        server = self.server
        ends = (server._status, server._status_end, server._tokens, server._tokens_end, server._wake, wake_end)
        self.ours.close()
        server._connection.close()
        for fd in (*ends, self.served, server._served_fd):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    made = Served(monkeypatch)
    try:
        yield made
    finally:
        made.close()
        signal.signal(signal.SIGCHLD, handler)


def test_one_is_idle_always_and_no_more_are_forked_while_one_is(served: Served) -> None:
    served.server.turn()
    served.server.turn()
    assert (served.forks, served.server._idle) == (1, {1})
    served.says(1, TAKEN)
    assert (served.forks, served.server._idle) == (1, set())
    served.server.turn()
    assert (served.forks, served.server._idle) == (2, {2})
    served.says(1, IDLE)
    assert served.server._idle == {1, 2}
    served.says(2, TAKEN)
    served.server.turn()
    assert (served.forks, served.server._idle) == (2, {1})
    # Of one that has ended meanwhile.
    served.says(99, IDLE)
    assert served.server._idle == {1}


def test_two_are_ready_for_jobs_that_start_at_once_and_one_that_waits_again_counts(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forkserver, "READY", READY)
    for _ in range(3):
        served.server.turn()
    assert (served.forks, served.server._idle) == (2, {1, 2})
    # It does not wait for anything while it is one short.
    assert served.pauses == [0, None, None]
    served.says(1, TAKEN)
    served.server.turn()
    assert (served.forks, served.server._idle) == (3, {2, 3})
    served.says(1, IDLE)
    served.says(2, TAKEN)
    served.server.turn()
    assert (served.forks, served.server._idle) == (3, {1, 3})


def test_who_waited_for_another_launch_makes_room_for_one_who_waits_when_it_takes_it_or_ends(served: Served) -> None:
    served.server.turn()
    assert served.tokens() == forkserver.PARKED
    served.says(1, TAKEN)
    assert served.tokens() == forkserver.PARKED
    os.read(served.server._tokens, 1)
    served.says(1, IDLE)
    assert served.tokens() == forkserver.PARKED - 1
    served.says(1, TAKEN)
    assert served.tokens() == forkserver.PARKED
    os.read(served.server._tokens, 1)
    served.says(1, IDLE)
    served.ends(PID + 1)
    assert served.tokens() == forkserver.PARKED


def test_a_member_that_ended_well_is_forgotten_and_followed_by_another(served: Served) -> None:
    served.server.turn()
    served.ends(PID + 1)
    assert served.reaped == [PID + 1]
    assert (served.server._serials, served.server._wills, served.server._idle) == ({}, {}, set())
    assert served.hunts == []
    served.server.turn()
    assert (served.forks, served.server._idle) == (2, {2})


@pytest.mark.parametrize(("status", "code"), [(9, os.CLD_KILLED), (1, os.CLD_EXITED)])
def test_what_a_member_that_ended_badly_left_behind_is_hunted_and_the_others_spared(
    served: Served, status: int, code: int
) -> None:
    served.server.turn()
    served.says(1, TAKEN)
    served.server.turn()
    served.ends(PID + 1, status, code)
    # The zombie itself is nothing to be hunted.
    assert served.hunts == [{PID + 1, PID + 2}]
    assert served.reaped == [PID + 1]
    # Nothing of it is left: it is not looked for again.
    served.ends(PID + 2)
    assert len(served.hunts) == 1


def test_what_is_left_behind_is_hunted_until_it_is_gone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.server.turn()
    left = SimpleNamespace(pid=PID + 50, parent=os.getpid(), living=True)
    monkeypatch.setattr(processes, "everything", lambda: {left.pid: left})
    served.ends(PID + 1, 9, os.CLD_KILLED)
    served.ours.close()
    served.says(2, OVER)
    served.ends(PID + 2)
    assert (served.server._serials, served.server.finished, len(served.hunts)) == ({}, False, 2)
    left.living = False
    served.ends(PID + 50, 9, os.CLD_KILLED)
    assert (served.server.finished, len(served.hunts)) == (True, 3)


def test_an_orphan_is_reaped_and_its_end_kept_for_the_will_that_names_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovered: list[Any] = []
    monkeypatch.setattr(forkserver, "recover", lambda last, code: recovered.append((last, code)) or True)
    served.server.turn()
    will = {"dir": "/x", "pid": PID + 70, "pid_start": PID + 71}
    served.server._wills[PID + 1].write(will)
    served.ends(PID + 70, 7)
    assert (served.reaped, recovered) == ([PID + 70], [])
    served.ends(PID + 1, 9, os.CLD_KILLED)
    assert recovered == [(will, 7)]
    # A member is nobody's orphan, and reaped once.
    assert served.reaped == [PID + 70, PID + 1]
    assert served.server._orphans.end_of(PID + 1, PID + 2) is None


def test_a_member_stays_a_zombie_until_the_disk_takes_its_will(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [False, False, True]
    monkeypatch.setattr(forkserver, "recover", lambda *_: answers.pop(0))
    served.server.turn()
    served.server._wills[PID + 1].write({"dir": "/x", "pid": 5, "pid_start": 6})
    assert served.pauses[-1] is None
    served.ends(PID + 1)
    assert (served.reaped, answers) == ([], [False, True])
    # Tried again after a while, whoever ends.
    served.server.turn()
    assert (served.reaped, served.pauses[-1]) == ([], 1000)
    served.server.turn()
    assert (served.reaped, served.pauses[-1]) == ([PID + 1], 2000)
    served.server.turn()
    assert served.pauses[-1] is None


def test_a_member_that_stands_still_is_continued_after_a_moment_and_told_of_once(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, states, sent = [100.0], {PID + 1: True}, []
    monkeypatch.setattr(forkserver.kernel, "since_boot", lambda: now[0])
    monkeypatch.setattr(forkserver, "look", lambda pid: SimpleNamespace(stopped=states[pid]))
    monkeypatch.setattr(forkserver.os, "kill", lambda *signalled: sent.append(signalled))
    wake = functools.partial(os.write, served.wake_end, b"!")
    served.server.turn()
    for _ in range(2):
        # The other is nobody's member: what is left of a dead one's job is stopped on purpose.
        served.stopped += [PID + 70, PID + 1]
        wake()
        served.server.turn()
        served.server.turn()
        assert (served.pauses[-1], sent) == (250, [])
        now[0] += 0.25
        served.server.turn()
        assert (served.pauses[-1], sent) == (None, [(PID + 1, signal.SIGCONT)])
        sent.clear()
    assert capsys.readouterr().err == f"gpuq supervise: supervisor {PID + 1} was stopped; it is continued\n"
    # Somebody else has continued it, or it has ended.
    for states[PID + 1], gone in ((False, False), (True, True)):
        served.stopped.append(PID + 1)
        wake()
        served.server.turn()
        now[0] += 0.25
        if gone:
            served.ended.append(SimpleNamespace(si_pid=PID + 1, si_status=0, si_code=os.CLD_EXITED))
            # It is reaped before those are continued whose time has come.
            served.server._reap()
        served.server.turn()
    assert sent == []


def test_when_the_daemon_is_gone_it_stays_for_those_at_work_and_forks_no_more(served: Served) -> None:
    served.server.turn()
    served.says(1, TAKEN)
    served.server.turn()
    served.says(2, OVER)
    assert os.read(served.served, 1) == b""
    assert served.server._connection.fileno() == -1
    assert not served.server.finished
    served.ends(PID + 2)
    assert (served.server.finished, served.forks) == (False, 2)
    served.ends(PID + 1)
    assert (served.server.finished, served.forks) == (True, 2)


def test_what_is_in_the_groups_of_dead_members_is_killed_until_they_can_be_removed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    removals, kills = [False, False, True], []

    def kill() -> None:
        kills.append(1)
        raise OSError

    group = SimpleNamespace(remove=lambda: removals.pop(0), kill=kill)
    asked: list[Any] = []
    monkeypatch.setattr(forkserver.cgroup, "of_supervisor", lambda *words: asked.append(words) or [group])
    served.server.turn()
    served.ends(PID + 1)
    assert asked == [((), PID + 1, PID + 2)]
    assert (len(kills), served.server._groups) == (1, [group])
    served.server.turn()
    assert (len(kills), served.pauses[-1]) == (2, 10)
    served.server.turn()
    assert (len(kills), served.server._groups) == (2, [])
    served.server.turn()
    assert served.pauses[-1] is None


def test_who_waited_for_another_launch_makes_room_once_even_if_it_takes_it_and_then_ends(served: Served) -> None:
    served.server.turn()
    room = served.tokens()
    served.says(1, TAKEN)
    os.read(served.server._tokens, 1)
    served.says(1, IDLE)
    assert served.tokens() == room - 1
    served.says(1, TAKEN)
    served.ends(PID + 1)
    assert served.tokens() == room

"""A hunt for descendants whose processes are played: who is stopped, who is killed, and when it gives up."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest

from gpuq.supervise import hunt, processes

STOP, KILL = signal.SIGSTOP, signal.SIGKILL


@dataclass
class Seen:
    """A process as /proc shows it."""

    pid: int
    state: str = "S"
    parent: int = 10
    living: bool = True


class Machine:
    """What each look at all processes finds, in order; the last one for ever. `children`: what each look at the
    children finds, the same way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: list[Seen]) -> None:
        self.looks = list(looks)
        self.children: list[list[int]] = [[]]
        self.asked = 0
        self.told: list[Any] = []
        self.refuses: type[OSError] | None = None
        monkeypatch.setattr(processes, "everything", self._everything)
        monkeypatch.setattr(processes, "send", lambda process, number: self.told.append((process.pid, number)))
        monkeypatch.setattr(hunt, "children", self._children)
        monkeypatch.setattr(hunt.os, "getpid", lambda: 10)
        monkeypatch.setattr(hunt.os, "kill", self._kill)

    def _everything(self) -> Any:
        self.asked += 1
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return {process.pid: process for process in found}

    def _children(self) -> list[int]:
        return self.children.pop(0) if len(self.children) > 1 else self.children[0]

    def _kill(self, pid: int, number: int) -> None:
        self.told.append((pid, number))
        if self.refuses is not None:
            raise self.refuses

    def reap(self) -> None:
        self.told.append("reap")


def test_all_are_stopped_before_any_is_killed_and_whoever_sleeps_in_the_kernel_is_killed_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [Seen(11, "R"), Seen(12, "S"), Seen(13, "T"), Seen(14, "D"), Seen(15, "R", parent=1)]
    stands = [Seen(11, "T"), Seen(12, "T"), Seen(13, "T"), Seen(14, "D"), Seen(15, "R", parent=1)]
    machine = Machine(monkeypatch, runs, stands)
    hunt.hunt(machine.reap)
    assert machine.told == [(11, STOP), (12, STOP), (11, KILL), (12, KILL), (13, KILL), (14, KILL), "reap"]
    # The look that found none running is the one whose processes are killed.
    assert machine.asked == 2


def test_without_descendants_only_what_has_ended_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [])
    hunt.hunt(machine.reap)
    assert (machine.told, machine.asked) == (["reap"], 1)


def test_a_hunt_ends_after_half_a_second_and_kills_who_is_there_then(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [Seen(11)], [Seen(12)], [Seen(13)], [Seen(14)])
    moments = iter([100.0, 100.4, 100.5, 100.6])
    monkeypatch.setattr(hunt.time, "monotonic", lambda: next(moments))
    hunt.hunt(machine.reap)
    assert machine.told == [(11, STOP), (12, STOP), (13, STOP), (14, KILL), "reap"]


def test_who_is_spared_is_left_alone_with_all_below(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [Seen(11, "T"), Seen(12), Seen(13, parent=12)])
    machine.children = [[12]]
    hunt.hunt(machine.reap, spare=[12])
    assert machine.told == [(11, KILL), "reap"]


@pytest.mark.parametrize("refuses", [None, ProcessLookupError, PermissionError])
def test_children_are_stopped_until_a_look_finds_no_new_one(
    monkeypatch: pytest.MonkeyPatch, refuses: type[OSError] | None
) -> None:
    machine = Machine(monkeypatch, [])
    machine.children = [[11, 12], [11, 12, 13], [13]]
    machine.refuses = refuses
    hunt.hunt(machine.reap)
    assert machine.told == [(11, STOP), (12, STOP), "reap", (13, STOP), "reap", "reap"]


def test_children_that_never_cease_are_looked_at_fifty_times(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [])
    machine.children = [[pid] for pid in range(100, 200)]
    hunt.hunt(machine.reap)
    assert machine.told.count("reap") == 51


def test_ones_own_children_are_read_whole_and_what_is_cut_off_waits_for_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, gate = len(os.listdir("/proc/self/fd")), os.pipe()
    made = os.fork()
    if made == 0:
        os.read(gate[0], 1)
        os._exit(0)
    try:
        assert made in hunt.children()
    finally:
        os.write(gate[1], b"x")
        os.waitpid(made, 0)
        for fd in gate:
            os.close(fd)
    with monkeypatch.context() as cut:
        cut.setattr(hunt.os, "read", lambda *_: b"11 12 13")
        assert hunt.children() == [11, 12]
    assert len(os.listdir("/proc/self/fd")) == before

    def unknown(*_: object) -> int:
        raise FileNotFoundError(errno.ENOENT, "-")

    monkeypatch.setattr(hunt.os, "open", unknown)
    assert hunt.children() == []

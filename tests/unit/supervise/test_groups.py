"""Control groups and hidden devices on a kernel that the test plays: files in folders, and calls that are noted."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.supervise import cgroup, cgroup_folders, isolation, processes
from gpuq.supervise.cgroup import Cgroup
from gpuq.supervise.cgroup_folders import FREEZER, V2
from gpuq.supervise.isolation import CannotIsolate

ME = os.getpid()


def group(tmp_path: Path, kind: str = V2, name: str = "5-6", *files: str) -> Cgroup:
    folder = tmp_path / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).touch()
    return Cgroup(kind, str(tmp_path), name)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(cgroup.os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


def test_a_member_is_whom_this_namespace_shows_and_a_group_that_is_gone_has_none(tmp_path: Path) -> None:
    made = group(tmp_path)
    assert made.members() == []
    (tmp_path / "5-6" / "cgroup.procs").write_text("12\n0\n1\n")
    assert made.members() == [12, 1]
    (tmp_path / "5-6" / "cgroup.procs").unlink()
    (tmp_path / "5-6" / "cgroup.procs").mkdir()
    with pytest.raises(IsADirectoryError):
        made.members()


def test_a_supervisor_leaves_its_group_into_the_folder_above(tmp_path: Path) -> None:
    made = group(tmp_path)
    (tmp_path / "cgroup.procs").touch()
    assert made.left is False
    made.leave()
    assert ((tmp_path / "cgroup.procs").read_bytes(), made.left) == (b"0", True)


def test_a_group_is_killed_in_one_call_where_the_kernel_has_it(tmp_path: Path, killed: list[Any]) -> None:
    made = group(tmp_path, V2, "5-6", "cgroup.kill", "cgroup.freeze")
    made.kill()
    assert (tmp_path / "5-6" / "cgroup.kill").read_bytes() == b"1"
    assert (killed, (tmp_path / "5-6" / "cgroup.freeze").read_bytes()) == ([], b"")


@pytest.mark.parametrize(
    ("kind", "switch", "sign", "told", "thawed"),
    [
        (V2, "cgroup.freeze", "cgroup.events", "populated 1\nfrozen 1\n", b"0"),
        (FREEZER, "freezer.state", "freezer.state", "", b"THAWED"),
    ],
)
def test_elsewhere_it_is_frozen_each_is_killed_and_it_thaws(
    tmp_path: Path, killed: list[Any], kind: str, switch: str, sign: str, told: str, thawed: bytes
) -> None:
    made = group(tmp_path, kind, "5-6", switch, sign)
    if told:
        (tmp_path / "5-6" / sign).write_text(told)
    (tmp_path / "5-6" / "cgroup.procs").write_text("12\n13\n")
    made.kill()
    assert killed == [(12, signal.SIGKILL), (13, signal.SIGKILL)]
    # A file of the kernel's is no file: the words overwrite one another here.
    assert (tmp_path / "5-6" / switch).read_bytes().startswith(thawed)


def test_a_group_that_does_not_freeze_is_killed_all_the_same_after_a_second(
    tmp_path: Path, killed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = group(tmp_path, V2, "5-6", "cgroup.freeze")
    (tmp_path / "5-6" / "cgroup.events").write_text("frozen 0\n")
    (tmp_path / "5-6" / "cgroup.procs").write_text("12\n")
    moments = iter([100.0, 100.5, 101.0])
    naps: list[float] = []
    monkeypatch.setattr(cgroup.time, "monotonic", lambda: next(moments))
    monkeypatch.setattr(cgroup.time, "sleep", naps.append)
    made.kill()
    assert (killed, len(naps)) == ([(12, signal.SIGKILL)], 1)
    assert (tmp_path / "5-6" / "cgroup.freeze").read_bytes() == b"0"


def test_a_group_is_removed_when_it_is_empty_or_gone(tmp_path: Path) -> None:
    made = group(tmp_path, V2, "5-6", "in the way")
    assert made.remove() is False
    (tmp_path / "5-6" / "in the way").unlink()
    assert made.remove() is True
    assert made.remove() is True


def test_a_supervisor_enters_the_first_group_that_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{ME}-{processes.start_of(ME)}"
    written: list[tuple[str, bytes]] = []
    refused = str(tmp_path / "refused" / name / "cgroup.procs")

    def write(path: str, data: bytes) -> None:
        written.append((path, data))
        if path == refused:
            raise OSError(errno.EBUSY, "-")

    monkeypatch.setattr(cgroup, "_write", write)
    places = [(V2, str(tmp_path / "no" / "such")), (V2, str(tmp_path / "refused")), (FREEZER, str(tmp_path / "good"))]
    made = cgroup.enter(places)
    assert made is not None
    assert (made.kind, made.path, made.left) == (FREEZER, str(tmp_path / "good" / name), False)
    assert written == [(refused, b"0"), (f"{made.path}/cgroup.procs", b"0")]
    assert not (tmp_path / "refused" / name).exists()
    assert cgroup.enter(places[:2]) is None
    assert cgroup.enter([]) is None


def test_all_in_a_group_end_and_not_who_ends_them(tmp_path: Path) -> None:
    made = group(tmp_path, V2, "5-6", "cgroup.kill")
    (tmp_path / "cgroup.procs").touch()
    cgroup.end_all_in(made)
    assert (made.left, (tmp_path / "5-6" / "cgroup.kill").read_bytes()) == (True, b"1")
    (tmp_path / "cgroup.procs").unlink()
    # It has left once; and a kernel that refuses is no error.
    cgroup.end_all_in(made)
    refused = Cgroup(V2, str(tmp_path / "none"), "5-6")
    cgroup.end_all_in(refused)
    assert not refused.left
    cgroup.end_all_in(None)


def test_groups_of_dead_supervisors_are_left_over_and_those_of_living_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = processes.start_of(ME)
    names = {f"{ME}-{start}": False, f"{ME}-{start + 1}": True, "4194305-7": True, "other": False, "5-": False}
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(cgroup, "found", lambda folder: [(V2, str(tmp_path))] if folder == "gpuq-x" else [])
    dead = {name for name, over in names.items() if over}
    assert {os.path.basename(one.path) for one in cgroup.left_over("gpuq-x")} == dead
    assert cgroup.left_over("gpuq-y") == []
    assert cgroup.end_left_over("gpuq-x") == 0
    assert {path.name for path in tmp_path.iterdir()} == set(names) - dead
    places = [(V2, str(tmp_path))]
    assert [one.path for one in cgroup.of_supervisor(places, ME, start)] == [str(tmp_path / f"{ME}-{start}")]
    assert list(cgroup.of_supervisor(places, ME, start + 1)) == []


def test_what_is_left_over_is_killed_until_it_is_gone_and_named_when_it_does_not_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Group:
        path = "/sys/fs/cgroup/x"

        def __init__(self, *rounds: list[int]) -> None:
            self.rounds = list(rounds)
            self.kills = 0

        def remove(self) -> bool:
            return not self.rounds

        def members(self) -> list[int]:
            return self.rounds[0]

        def kill(self) -> None:
            self.kills += 1
            if len(self.rounds) < 5:
                self.rounds.pop(0)
            raise OSError(errno.ENOENT, "-")

    monkeypatch.setattr(cgroup.time, "sleep", lambda _: None)
    first, second = Group([12, 13], [13, 14]), Group([20])
    monkeypatch.setattr(cgroup, "left_over", lambda _: [first, second])
    assert cgroup.end_left_over("x") == 4
    assert (first.kills, second.kills) == (2, 1)
    for members, told in (([30, 31], "30, 31"), ([], "in /sys/fs/cgroup/x")):
        stuck = Group(*[members] * 9)
        moments = iter([100.0, 110.0, 110.1])
        monkeypatch.setattr(cgroup, "left_over", lambda _, stuck=stuck: [stuck])
        with monkeypatch.context() as timed:
            timed.setattr(cgroup.time, "monotonic", lambda moments=moments: next(moments))
            with pytest.raises(TimeoutError, match=f"cannot be ended: {told}$"):
                cgroup.end_left_over("x", timeout_s=10.0)
        assert stuck.kills == 1


def test_people_are_told_which_kind_of_groups_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kinds: list[str | None] = [V2, FREEZER, None]
    monkeypatch.setattr(cgroup, "found", lambda _: [])
    monkeypatch.setattr(cgroup, "usable", lambda: kinds.pop(0))
    assert cgroup.means(str(tmp_path)) == "control groups (version 2)"
    # Of a home that is not there yet.
    assert cgroup.means(str(tmp_path / "none")) == "control groups (the freezer of version 1)"
    assert cgroup.means(str(tmp_path)) is None
    monkeypatch.setattr(cgroup, "found", lambda _: [(FREEZER, "/x"), (V2, "/y")])
    assert cgroup.means(str(tmp_path)) == "control groups (the freezer of version 1)"


def test_a_folder_for_groups_is_ours_and_has_a_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {name: tmp_path / name for name in ("two", "one", "closed", "bare")}
    for name in ("two", "one", "bare"):
        (points[name] / "own").mkdir(parents=True)
    hierarchies = [
        (FREEZER, str(points["one"]), "own"),
        (V2, str(points["closed"]), "own"),
        (V2, str(points["bare"]), "own"),
        (V2, str(points["two"]), "own"),
    ]
    monkeypatch.setattr(cgroup_folders, "_hierarchies", lambda: hierarchies)
    for name, file in (("two", "cgroup.freeze"), ("one", "freezer.state")):
        (points[name] / "own" / "gpuq-x").mkdir()
        (points[name] / "own" / "gpuq-x" / file).touch()
    best = [(V2, str(points["two"] / "own" / "gpuq-x")), (FREEZER, str(points["one"] / "own" / "gpuq-x"))]
    assert cgroup_folders.available("gpuq-x") == best
    assert cgroup_folders.available("gpuq-x", [FREEZER]) == best[1:]
    assert cgroup_folders.available("gpuq-x", [V2]) == best[:1]
    # What is of no use is taken away again.
    assert not (points["bare"] / "own" / "gpuq-x").exists()
    assert cgroup_folders.found("gpuq-x") == best
    assert cgroup_folders.available("gpuq-new") == []

    def make(path: str) -> None:
        """As the kernel does: a new group has its switches."""
        os.mkdir(path)
        for switch in ("cgroup.freeze", "freezer.state"):
            Path(path, switch).touch()

    with monkeypatch.context() as kernel:
        kernel.setattr(cgroup_folders, "make", make)
        assert [kind for kind, _ in cgroup_folders.available("gpuq-new")] == [V2, V2, FREEZER]
    with monkeypatch.context() as other:
        other.setattr(cgroup_folders.os, "geteuid", lambda: 54321)
        assert cgroup_folders.found("gpuq-x") == []
    assert cgroup_folders.folder_name(str(tmp_path)) != cgroup_folders.folder_name(str(tmp_path / "two"))


GROUPS = """12:cpuset:/elsewhere
7:freezer,misc:/box/own
0::/box/unified
"""
MOUNTS = """22 1 0:1 / /proc rw - proc proc rw
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw
31 30 0:27 /box /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
33 30 0:29 / /mnt/a\\040blank rw - cgroup2 cgroup2 rw
34 30 0:30 /other /mnt/other rw - cgroup2 cgroup2 rw
35 30 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
36 30 0:32 /bo /mnt/half rw - cgroup2 cgroup2 rw
"""


def test_hierarchies_are_those_that_are_mounted_and_that_show_the_group_that_we_are_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {"/proc/self/cgroup": GROUPS, "/proc/self/mountinfo": MOUNTS}
    monkeypatch.setattr(cgroup_folders, "open", lambda path: io.StringIO(files[path]), raising=False)
    assert cgroup_folders._hierarchies() == [
        (V2, "/sys/fs/cgroup/unified", "unified"),
        (FREEZER, "/sys/fs/cgroup/freezer", "box/own"),
    ]
    # Above what this namespace shows.
    files["/proc/self/cgroup"] = "7:freezer:/../outside\n"
    assert cgroup_folders._hierarchies() == []


# Hidden devices.


class Kernel:
    """Notes what is mounted; the call with this number fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: int | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fails = fails
        monkeypatch.setattr(
            isolation, "_libc", SimpleNamespace(unshare=self._note("unshare"), mount=self._note("mount"))
        )
        monkeypatch.setattr(isolation.ctypes, "get_errno", lambda: errno.EPERM)

    def _note(self, name: str) -> Any:
        def note(*given: Any) -> int:
            self.calls.append((name, *given))
            return -1 if len(self.calls) - 1 == self.fails else 0

        return note


NULL = b"/dev/null"
HIDING = [
    ("unshare", 0x20000),
    ("mount", None, b"/", None, 0x4000 | 0x80000, None),
    ("mount", NULL, NULL, None, 0x1000, None),
    ("mount", None, NULL, None, 0x20 | 0x1000 | 0x4, None),
]


def test_a_node_is_mounted_over_itself_without_devices_and_one_that_is_gone_is_hidden_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch)
    isolation.hide(["/dev/no-such-node", "/dev/null"])
    assert kernel.calls == HIDING


@pytest.mark.parametrize(
    ("fails", "told"),
    [(0, "a mount namespace of its own"), (1, "private mounts"), (2, "/dev/null hidden"), (3, "/dev/null hidden")],
)
def test_each_step_that_the_kernel_refuses_is_told(monkeypatch: pytest.MonkeyPatch, fails: int, told: str) -> None:
    kernel = Kernel(monkeypatch, fails)
    with pytest.raises(CannotIsolate, match=f"^{told}: Operation not permitted$"):
        isolation.hide(["/dev/null"])
    assert len(kernel.calls) == fails + 1


def test_what_is_no_device_or_cannot_be_seen_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = Kernel(monkeypatch)
    with pytest.raises(CannotIsolate, match="it is not a device node"):
        isolation.hide([str(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(CannotIsolate, match="cannot be hidden: Not a directory"):
        isolation.hide([f"{tmp_path}/file/node"])
    assert len(kernel.calls) == 4
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(
    ("hides", "opens", "told"),
    [
        (None, PermissionError(), None),
        (CannotIsolate("no root"), None, "no root"),
        (None, None, "a node that was hidden could still be opened"),
    ],
)
def test_hiding_works_where_a_hidden_node_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, hides: Exception | None, opens: Exception | None, told: str | None
) -> None:
    hidden: list[Any] = []

    def hide(nodes: Any) -> None:
        hidden.append(nodes)
        if hides is not None:
            raise hides

    real = os.open

    def open_file(path: Any, *words: Any, **named: Any) -> int:
        if path == "/dev/null" and opens is not None:
            raise opens
        return real(path, *words, **named)

    monkeypatch.setattr(isolation, "hide", hide)
    monkeypatch.setattr(isolation.os, "open", open_file)
    assert isolation.works() == told
    assert hidden == [["/dev/null"]]

"""What is asked of /proc, which processes are ended, and how an attempt's records and outcome are worded."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.attempt_mark import MARK, mark_of
from gpuq.supervise import begin_mark, bundle, classify, descendants, own_folder, processes, shim, sweep
from gpuq.supervise.crash_record import CrashRecord
from gpuq.supervise.descendants import Family
from gpuq.supervise.ladder import KILL, TERMINATE, Ladder


@dataclass
class Known:
    """A process as /proc shows it."""

    pid: int
    parent: int = 1
    group: int = 0
    session: int = 0
    start: int = 100
    living: bool = True
    stopped: bool = False

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.start


def table(*found: Known) -> Any:
    return {process.pid: process for process in found}


@contextlib.contextmanager
def child(*argv: str, **words: Any) -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(argv or ("sleep", "100"), stdout=subprocess.PIPE, **words)
    try:
        yield made
    finally:
        made.kill()
        made.wait()
        assert made.stdout is not None
        made.stdout.close()


# /proc.


def test_a_process_that_is_gone_has_no_name_no_user_no_variables_and_no_handlers() -> None:
    gone = Known(2**22 + 1)
    assert processes.name_of(gone.pid) == b""
    assert processes.user_of(gone) is None  # type: ignore[arg-type]
    assert not processes.carries(gone, b"A=1")  # type: ignore[arg-type]
    assert not processes.catches(gone, signal.SIGTERM)  # type: ignore[arg-type]
    with pytest.raises(ProcessLookupError, match="no process"):
        processes.start_of(gone.pid)


def test_what_proc_says_of_a_living_process_is_read_whole() -> None:
    script = "trap : USR1 HUP; echo ready; while :; do sleep 1; done"
    with child("sh", "-c", script, env={"A": "1", "PATH": "/usr/bin:/bin"}) as made:
        # Its environment is in /proc a moment after the program was put in place.
        assert made.stdout is not None
        assert made.stdout.readline() == b"ready\n"
        seen = processes.look(made.pid)
        assert seen is not None
        assert processes.start_of(made.pid) == seen.start
        assert processes.user_of(seen) == os.getuid()
        assert [processes.carries(seen, entry) for entry in (b"A=1", b"A=", b"=1", b"A=11")] == [True] + [False] * 3
        assert made.pid in processes.everything()
        caught = {number for number in range(1, 20) if processes.catches(seen, number)}
        assert {signal.SIGHUP, signal.SIGUSR1} <= caught
        assert not {signal.SIGUSR2, signal.SIGALRM, signal.SIGKILL} & caught


def test_descendants_are_all_below_and_living_and_parents_come_first() -> None:
    found = table(
        Known(10), Known(11, 10), Known(12, 11), Known(13, 10), Known(14, 13, living=False), Known(15, 14), Known(16, 1)
    )
    assert [process.pid for process in processes.descendants([10], found)] == [11, 13, 12]
    assert [process.pid for process in processes.descendants([10, 11], found)] == [13, 12]
    assert processes.descendants([], found) == []
    # A table that was read while numbers were given again may have a ring.
    assert [process.pid for process in processes.descendants([20], table(Known(20, 21), Known(21, 20)))] == [21]


@pytest.mark.parametrize("by_number", [False, True])
@pytest.mark.parametrize(("error", "reached"), [(ProcessLookupError(), False), (PermissionError(), True)])
def test_a_signal_that_may_not_be_sent_has_found_somebody_who_lives(
    monkeypatch: pytest.MonkeyPatch, by_number: bool, error: OSError, reached: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    def no_pidfd(pid: int) -> int:
        raise OSError(errno.ENOSYS, "-")

    if by_number:
        monkeypatch.setattr(processes.os, "pidfd_open", no_pidfd)
    monkeypatch.setattr(processes.os, "kill", fail)
    monkeypatch.setattr(processes.signal, "pidfd_send_signal", fail)
    me = processes.look(os.getpid())
    assert me is not None
    before = len(os.listdir("/proc/self/fd"))
    assert processes.send(me, signal.SIGTERM) is reached
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("by_number", [False, True])
def test_a_process_that_has_ended_gets_no_signal(monkeypatch: pytest.MonkeyPatch, by_number: bool) -> None:
    def no_pidfd(pid: int) -> int:
        raise OSError(errno.ENOSYS, "-")

    if by_number:
        monkeypatch.setattr(processes.os, "pidfd_open", no_pidfd)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    zombie = processes.look(pid)
    assert zombie is not None
    assert not processes.send(zombie, signal.SIGTERM)
    os.waitpid(pid, 0)
    assert not processes.send(zombie, signal.SIGTERM)


# The family of a job.


class Told:
    """A machine whose processes are these, and what was sent to whom."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *found: Known, catch: dict[int, int] | None = None) -> None:
        self.found = list(found)
        self.sent: list[tuple[int, int]] = []
        self.groups: list[tuple[int, int]] = []
        caught = catch or {}
        monkeypatch.setattr(processes, "everything", lambda: table(*self.found))
        monkeypatch.setattr(processes, "catches", lambda process, signum: caught.get(process.pid) == signum)
        monkeypatch.setattr(processes, "send", lambda process, signum: self.sent.append((process.pid, signum)) or True)
        monkeypatch.setattr(descendants, "hunt", lambda reap: reap())
        monkeypatch.setattr(descendants.os, "getpid", lambda: 10)
        monkeypatch.setattr(descendants.os, "killpg", lambda group, signum: self.groups.append((group, signum)))


USR1, TERM, CONT, SIGKILL = (int(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGCONT, signal.SIGKILL))


def test_a_notice_goes_to_the_outermost_who_listen_and_else_to_the_main_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = [Known(11, 10), Known(12, 11), Known(13, 12), Known(14, 11)]
    told = Told(monkeypatch, *shell, catch={12: USR1, 13: USR1, 14: USR1})
    Family(11).notify(USR1)
    assert sorted(told.sent) == [(12, USR1), (14, USR1)]
    told = Told(monkeypatch, *shell, catch={13: TERM})
    Family(11).notify(USR1)
    assert told.sent == [(11, USR1)]
    told = Told(monkeypatch, Known(11, 10, living=False), Known(12, 11), catch={11: USR1, 12: USR1})
    Family(11).notify(USR1)
    assert told.sent == [(12, USR1)]
    told = Told(monkeypatch, Known(12, 10), catch={12: USR1})
    Family(11).notify(USR1)
    assert told.sent == []


def test_sigterm_goes_once_to_each_and_wakes_who_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, Known(10), Known(11, 10), Known(12, 11, stopped=True))
    family = Family(11)
    family.terminate()
    assert told.sent == [(11, TERM), (12, TERM), (12, CONT)]
    # One more has appeared meanwhile, and a number was given again.
    told.found += [Known(13, 11), Known(14, 10)]
    family.terminate()
    assert told.sent[3:] == [(14, TERM), (13, TERM)] or told.sent[3:] == [(13, TERM), (14, TERM)]
    told.found[1] = Known(11, 10, start=200)
    family.terminate()
    assert told.sent[5:] == [(11, TERM)]


def test_who_appears_while_others_are_terminated_is_terminated_too_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(monkeypatch, Known(10), Known(11, 10))
    monkeypatch.setattr(
        processes, "send", lambda process, signum: told.found.append(Known(process.pid + 1, 10)) or told.sent.append(0)
    )
    Family(11).terminate()
    assert len(told.sent) == 3


@pytest.mark.parametrize(
    ("found", "reaped", "whole"),
    [
        ([Known(11, 10, group=11)], False, True),
        ([], False, True),
        ([], True, False),
        ([Known(12, 10, group=11)], True, True),
        ([Known(12, 10, group=12)], True, False),
        ([Known(12, 10, group=12), Known(13, 12, group=11)], True, False),
    ],
)
def test_the_group_is_killed_as_long_as_its_number_is_the_jobs(
    monkeypatch: pytest.MonkeyPatch, found: list[Known], reaped: bool, whole: bool
) -> None:
    told = Told(monkeypatch, Known(10), *found)
    hunted: list[int] = []
    Family(11).kill(main_reaped=reaped, reap=lambda: hunted.append(1))
    assert told.groups == ([(11, SIGKILL)] if whole else [])
    # Whatever became of the group, the others are looked for one by one.
    assert hunted == [1]


@pytest.mark.parametrize("error", [ProcessLookupError(), PermissionError()])
def test_a_group_that_cannot_be_killed_keeps_none_from_its_end(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    Told(monkeypatch, Known(10), Known(11, 10))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(descendants.os, "killpg", fail)
    hunted: list[int] = []
    Family(11).kill(main_reaped=False, reap=lambda: hunted.append(1))
    assert hunted == [1]


# Sweeping.

ENTRY = f"{MARK}={mark_of('t' * 32)}".encode()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ours is 10. 20 leads session 20, which has 21 and 22; 30 carries the mark and has a child 31."""
    found = [
        Known(10, session=10),
        Known(20, session=20, start=7),
        Known(21, 20, session=20),
        Known(22, 20, session=20, living=False),
        Known(30, session=30),
        Known(31, 30, session=31),
        Known(40, session=40),
    ]
    users = {process.pid: os.geteuid() for process in found}
    marks = {10, 30}
    monkeypatch.setattr(processes, "everything", lambda: table(*found))
    monkeypatch.setattr(processes, "carries", lambda process, entry: process.pid in marks and entry == ENTRY)
    monkeypatch.setattr(processes, "user_of", lambda process: users[process.pid])
    monkeypatch.setattr(sweep.os, "getpid", lambda: 10)

    class Machine:
        pass

    made = Machine()
    made.found, made.users, made.marks = found, users, marks  # type: ignore[attr-defined]
    return made


def pids(*asked: Any, **named: Any) -> list[int]:
    return [process.pid for process in sweep.strays(*asked, **named)]


def test_what_carries_the_mark_is_the_attempts_with_all_below_it(machine: Any) -> None:
    assert pids(ENTRY, None, None) == [30, 31]
    assert pids(b"another", None, None) == []
    assert pids(ENTRY, None, None, owner=4321) == []
    machine.users[30] = 4321
    assert pids(ENTRY, None, None) == []
    assert pids(ENTRY, None, None, owner=4321) == [30, 31]


def test_a_session_counts_by_its_leaders_start_or_by_a_mark_in_it(machine: Any) -> None:
    assert pids(b"another", 20, 7) == [20, 21]
    assert pids(b"another", 20, 8) == []
    assert pids(b"another", 20, None) == []
    assert pids(b"another", 50, 7) == []
    machine.users[20] = 4321
    assert pids(b"another", 20, 7) == []
    machine.marks.add(21)
    assert pids(ENTRY, 20, None) == [20, 21, 30, 31]
    # Never the one that sweeps.
    assert pids(b"another", 10, 100) == []


def test_a_sweep_counts_each_once_and_ends_when_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [[Known(20), Known(21)], [Known(21), Known(22)], []]
    asked: list[Any] = []
    killed: list[int] = []
    monkeypatch.setattr(sweep, "strays", lambda *words: asked.append(words) or rounds[len(asked) - 1])
    monkeypatch.setattr(processes, "send", lambda process, _: killed.append(process.pid) or False)
    monkeypatch.setattr(sweep, "_PAUSE_S", 0)
    assert sweep.sweep("t" * 32, 20, 7, owner=5) == 3
    assert asked == [(ENTRY, 20, 7, 5, ())] * 3
    assert killed == [20, 21, 21, 22]


def test_who_cannot_be_ended_is_named_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "strays", lambda *_: [Known(20), Known(21)])
    monkeypatch.setattr(processes, "send", lambda *_: False)
    monkeypatch.setattr(sweep, "_PAUSE_S", 0)
    moments = iter([100.0, 110.0, 110.1])
    monkeypatch.setattr(sweep.time, "monotonic", lambda: next(moments))
    with pytest.raises(TimeoutError, match="cannot be ended: 20, 21"):
        sweep.sweep("t", timeout_s=10.0)
    assert next(moments, None) is None


def test_a_sweep_ends_a_real_process_and_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with child(env={MARK: mark_of("s" * 32), "PATH": "/usr/bin:/bin"}) as made:
        assert sweep.sweep("s" * 32) == 1
        assert made.wait(20) == -signal.SIGKILL
    assert len(os.listdir("/proc/self/fd")) == before


# Records.


def test_a_record_that_cannot_be_written_whole_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.write(str(tmp_path), "a.json", {"old": True})

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as broken:
        broken.setattr(bundle.os, "write", full)
        with pytest.raises(OSError, match="full"):
            bundle.write(str(tmp_path), "a.json", {"new": True})
        with pytest.raises(OSError, match="full"):
            bundle.create(str(tmp_path), "b.json", {"new": True})
    assert os.listdir(tmp_path) == ["a.json"]
    assert bundle.read(str(tmp_path), "a.json") == {"old": True}
    bundle.create(str(tmp_path), "b.json", {"new": True})
    with pytest.raises(FileExistsError):
        bundle.create(str(tmp_path), "b.json", {"newer": True})
    assert bundle.read(str(tmp_path), "b.json") == {"new": True}


def test_a_folder_in_the_place_of_a_record_is_moved_away(tmp_path: Path) -> None:
    (tmp_path / "a.json" / "inner").mkdir(parents=True)
    bundle.write(str(tmp_path), "a.json", {"end": 1})
    assert bundle.read(str(tmp_path), "a.json") == {"end": 1}
    assert [path.name[:13] for path in tmp_path.iterdir() if path.is_dir()] == ["a.json.moved-"]


def test_a_record_is_only_what_its_owner_alone_may_write(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    bundle.write(str(tmp_path), "a.json", {"x": 1})
    assert path.stat().st_mode & 0o777 == 0o600
    for mode, found in ((0o600, {"x": 1}), (0o640, None), (0o602, None), (0o601, None), (0o400, {"x": 1})):
        path.chmod(mode)
        assert bundle.read(str(tmp_path), "a.json") == found
    path.chmod(0o600)
    os.link(path, tmp_path / "b.json")
    assert bundle.read(str(tmp_path), "a.json") is None
    (tmp_path / "b.json").unlink()
    path.rename(tmp_path / "c.json")
    path.symlink_to("c.json")
    assert bundle.read(str(tmp_path), "a.json") is None
    assert bundle.read(str(tmp_path / "c.json"), "a.json") is None
    assert bundle.read(str(tmp_path), "none.json") is None


@pytest.mark.parametrize(
    ("value", "number", "integer", "text"),
    [
        (1, 1, 1, None), (1.5, 1.5, None, None), (True, None, None, None), ("x", None, None, "x"),
        (None, None, None, None), (float("nan"), None, None, None), (float("inf"), None, None, None),
        (1e18, None, None, None), (-1e17, -1e17, None, None), (0, 0, 0, None),
    ],
)  # fmt: skip
def test_a_field_is_read_as_what_it_is_or_not_at_all(value: object, number: Any, integer: Any, text: Any) -> None:
    record = {"key": value}
    assert bundle.number(record, "key") == number
    assert bundle.integer(record, "key") == integer
    assert bundle.text(record, "key") == text
    assert (bundle.number({}, "key"), bundle.integer({}, "key"), bundle.text({}, "key")) == (None, None, None)


def test_the_records_of_an_attempt_are_beside_its_own_folder_and_in_it_where_an_older_release_made_them(
    tmp_path: Path,
) -> None:
    run_dir = str(tmp_path / "1")
    assert bundle.records_of(run_dir) == f"{run_dir}.records"
    os.mkdir(run_dir)
    assert bundle.records_of(run_dir) == f"{run_dir}.records", "they were lost"
    bundle.write(run_dir, bundle.EXIT, {"outcome": "succeeded"})
    assert bundle.records_of(run_dir) == run_dir
    # It did not write tokens into all of them.
    assert bundle.read_of_attempt(run_dir, bundle.EXIT, "t") == {"outcome": "succeeded"}
    bundle.write(run_dir, bundle.EXIT, {"outcome": "succeeded", "token": "u"})
    assert bundle.read_of_attempt(run_dir, bundle.EXIT, "t") is None
    os.mkdir(f"{run_dir}.records")
    assert bundle.records_of(run_dir) == f"{run_dir}.records"
    for record, counts in (({"token": "t"}, True), ({"token": "u"}, False), ({}, False)):
        bundle.write(f"{run_dir}.records", bundle.EXIT, record)
        assert (bundle.read_of_attempt(run_dir, bundle.EXIT, "t") is not None) is counts
    bundle.write(f"{run_dir}.records", bundle.SPEC, {"token": "t"})
    assert (bundle.token_in(f"{run_dir}.records"), bundle.token_in(run_dir)) == ("t", "")


def test_the_own_folder_is_made_once_with_an_empty_log_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "1"
    fd = own_folder.make(str(run_dir), None, None)
    os.write(fd, b"first\n")
    os.close(fd)
    assert (run_dir.stat().st_mode & 0o777, (run_dir / bundle.LOG).stat().st_mode & 0o777) == (0o700, 0o600)
    with pytest.raises(FileExistsError):
        own_folder.make(str(run_dir), None, None)
    before = len(os.listdir("/proc/self/fd"))

    def fail(*_: object) -> None:
        raise PermissionError(errno.EPERM, "used up the disk quota")

    monkeypatch.setattr(own_folder.user_files, "hand_over", fail)
    with pytest.raises(PermissionError):
        own_folder.make(str(tmp_path / "2"), 1000, 1000)
    assert len(os.listdir("/proc/self/fd")) == before


# Words.


@pytest.mark.parametrize(
    ("reason", "limit", "told"),
    [
        ("cancel", None, ("cancelled", "stopped: cancel")),
        ("preempt", None, ("preempted", "stopped: preempt")),
        ("drain", 5, ("preempted", "stopped: drain")),
        ("time_limit", 60.5, ("time_limit", "ran into its time limit of 60.5 s")),
        ("time_limit", None, ("time_limit", "ran into its time limit")),
        ("shutdown", None, ("lost", classify.SHUT_DOWN)),
        ("unheard of", None, ("cancelled", "stopped: unheard of")),
    ],
)
def test_every_reason_of_a_stop_has_its_outcome(reason: str, limit: float | None, told: tuple[str, str]) -> None:
    assert classify.of_reason(reason, limit) == told


def test_signals_are_named_and_numbers_without_a_name_are_told() -> None:
    assert [classify.signal_name(number) for number in (9, 15, 63, 200)] == [
        "SIGKILL", "SIGTERM", "signal 63", "signal 200",
    ]  # fmt: skip


def test_oom_kills_of_what_cannot_be_read_are_none(tmp_path: Path) -> None:
    assert classify.count_oom_kills(str(tmp_path / "none")) == 0
    assert classify.count_oom_kills(str(tmp_path)) == 0
    assert classify.count_oom_kills(classify.oom_counter()) >= 0


# The supervisor's own failure.


@pytest.mark.parametrize("begun", [True, False])
def test_a_supervisor_that_fails_ends_the_job_tells_so_and_lets_go_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], begun: bool
) -> None:
    """Before the job's program may have existed, nothing is charged for it, and a folder that is gone is no bug."""
    records = tmp_path / "1.records"
    records.mkdir()
    bundle.write(str(records), bundle.SPEC, {"token": "t"})
    ended: list[int] = []
    monkeypatch.setattr(shim, "_end_every_child", lambda _: ended.append(1))
    will = CrashRecord()
    will.write({"dir": str(records)})
    fds = [os.open(records / bundle.LOCK, os.O_RDWR | os.O_CREAT, 0o600)]
    fds += [os.open(os.devnull, os.O_RDONLY) for _ in range(2)]
    if begun:
        begin_mark.put(fds[0])
    before = len(os.listdir("/proc/self/fd"))
    # There is no FIFO.
    with pytest.raises(FileNotFoundError) if begun else contextlib.nullcontext():
        assert shim.supervise(str(records), *fds, 0, lambda: None, will) is False
    assert ("could not begin" in capsys.readouterr().err) is not begun
    record = bundle.read(str(records), bundle.EXIT)
    assert record is not None
    assert (record["outcome"], record["token"]) == ("lost" if begun else "launch_error", "t")
    assert record.get("machine_fault", False) is not begun
    assert str(record["error"]).startswith("the supervisor failed: FileNotFoundError(2")
    assert (ended, will.read()) == ([1], None)
    assert len(os.listdir("/proc/self/fd")) == before - 3
    will.close()


# The ladder.


def test_a_stop_at_the_very_moment_of_the_limit_or_of_the_kill_is_due() -> None:
    ladder = Ladder(started=100.0, time_limit_s=10.0, kill_grace_s=5.0)
    assert (ladder.due(109.9), ladder.next_at()) == ([], 110.0)
    assert (ladder.due(110.0), ladder.reason, ladder.next_at()) == ([TERMINATE], "time_limit", 115.0)
    assert (ladder.due(114.9), ladder.due(115.0)) == ([], [KILL])
    assert ladder.next_at() == pytest.approx(115.01)

"""What becomes of an attempt's records once SQL has its end, and of ends that nobody confirms."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome, Result
from gpuq.supervise import bundle, ended, in_place, unconfirmed
from gpuq.supervise.unconfirmed import REMOVE, UnconfirmedEnds


def until(condition: Any, what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def written(attempt: Any) -> Result:
    """As the agent does after the commit."""
    result = attempt.result()
    attempt.launcher.end_written(attempt.run_dir, attempt.order.token, attempt.launched, result, [])
    return result


def everything_below(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


# With real supervisors.


def test_an_attempt_whose_end_is_written_leaves_its_output_and_nothing_else(world: Any) -> None:
    checkpoint = world.root / "jobs" / "1" / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.mkdir(0o700)
    attempt = world.shell("echo hello", checkpoint_dir=str(checkpoint))
    written(attempt)
    job = os.path.dirname(attempt.run_dir)
    until(lambda: everything_below(job) == ["1", "1/output.log"], "nothing else is left")
    assert attempt.log == "hello\n"


def test_a_checkpoint_stays(world: Any) -> None:
    checkpoint = world.root / "jobs" / "1" / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.mkdir(0o700)
    attempt = world.shell(f"echo 7 > {checkpoint}/step", checkpoint_dir=str(checkpoint))
    written(attempt)
    assert (checkpoint / "step").read_text() == "7\n"


def test_until_its_end_is_written_the_records_stay(world: Any) -> None:
    attempt = world.shell("exit 3")
    assert attempt.result().exit_code == 3
    # The supervisor goes on: its next attempt is run to its end, and still nobody has confirmed the first.
    assert world.shell("exit 4").result().exit_code == 4
    assert attempt.result().exit_code == 3
    assert attempt.exit_record()["exit_code"] == 3


def test_an_end_is_still_known_to_a_database_that_has_forgotten_it(world: Any) -> None:
    attempt = world.shell("exit 3")
    result = written(attempt)
    until(lambda: not os.path.exists(attempt.run_dir + ".records"), "the records are gone")
    assert not world.launcher.alive(attempt.run_dir)
    assert world.launcher.outcome(attempt.run_dir, attempt.order.token) == result
    assert world.launcher.outcome(attempt.run_dir, "f" * 32) is None
    with pytest.raises(FileExistsError):
        world.launcher.start(attempt.order)


def test_an_end_that_is_written_by_a_later_daemon_is_cleared_by_it(world: Any) -> None:
    attempt = world.shell("exit 3")
    attempt.wait()
    adopted = world.adopt(attempt.order)
    world.launcher.close()
    written(adopted)
    assert not os.path.exists(attempt.run_dir + ".records")


def test_what_keeps_an_attempt_from_ever_being_launched_stays(world: Any) -> None:
    order = world.order("/bin/true")
    world.launcher.request_stop(order.run_dir, reason="shutdown", grace_s=0.0)
    lost = Result(Outcome.LOST, finished_at=1.0)
    world.launcher.end_written(order.run_dir, order.token, None, lost, [])
    assert bundle.read(order.run_dir + ".records", bundle.STOP) is not None
    assert world.launcher.outcome(order.run_dir, order.token) is None


def test_the_fence_of_an_attempt_that_was_taken_over_stays(world: Any) -> None:
    attempt = world.shell("exit 3")
    attempt.wait()
    taken = {"token": attempt.order.token, "outcome": "cancelled"}
    bundle.write(attempt.records, bundle.TAKEOVER, taken)
    assert written(attempt).outcome is Outcome.CANCELLED
    assert bundle.taken_over(attempt.records)


# The supervisor's side.


class Side:
    """What one supervisor has to be confirmed, and the daemon at the other end."""

    def __init__(self, records: Path) -> None:
        self.records = records
        records.mkdir(0o700)
        for name in (bundle.LOCK, bundle.CONTROL, "left-over"):
            (records / name).touch()
        in_place.fill(str(records), bundle.EXIT, {"token": "t"})
        self.poll = select.epoll()
        self.ends = UnconfirmedEnds(self.poll)
        self.daemon, theirs = socket.socketpair()
        self.ends.note(str(records))
        assert self.ends.take_over(str(records), theirs.detach())

    def close(self) -> None:
        self.daemon.close()
        self.ends.close()
        self.poll.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(unconfirmed.kernel, "since_boot", lambda: now[0])
    return now


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made durable, by its name."""
    names: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: names.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
    return names


@pytest.fixture
def side(tmp_path: Path, clock: list[float], synced: list[str]) -> Iterator[Side]:
    made = Side(tmp_path / "1.records")
    yield made
    made.close()


def test_a_confirmed_end_costs_no_fsync_and_its_records_are_removed(side: Side, synced: list[str]) -> None:
    # The daemon hears that it is over.
    assert side.daemon.recv(1) == b""
    side.ends.look()
    assert side.records.exists()
    side.daemon.send(REMOVE)
    assert side.poll.poll(0)
    side.ends.look()
    assert (side.records.exists(), synced, side.ends.wait_s()) == (False, [], None)


def test_an_end_that_is_not_confirmed_soon_is_made_durable_and_left_to_who_confirms_it(
    side: Side, clock: list[float], synced: list[str]
) -> None:
    assert side.ends.wait_s() == pytest.approx(0.05)
    clock[0] += 0.04
    side.ends.look()
    assert synced == []
    clock[0] += 0.02
    assert side.ends.wait_s() == 0.0
    side.ends.look()
    side.ends.look()
    assert (synced, side.ends.wait_s()) == (["exit.json", "1.records"], None)
    with pytest.raises(BrokenPipeError):
        side.daemon.send(REMOVE)
    assert side.records.exists()


def test_an_end_that_nobody_listens_to_is_made_durable_at_once(side: Side, synced: list[str]) -> None:
    side.daemon.close()
    side.ends.look()
    assert (synced, side.records.exists()) == (["exit.json", "1.records"], True)


def test_a_disk_that_takes_nothing_is_asked_again(
    side: Side, clock: list[float], synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        clock[0] += 0.06
        side.ends.look()
    assert side.ends.wait_s() == pytest.approx(1.0)
    clock[0] += 1.0
    side.ends.look()
    assert synced == ["exit.json", "1.records"]


def test_a_supervisor_that_leaves_makes_everything_durable(
    side: Side, clock: list[float], synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Poll:
        def register(self, *_: Any) -> None: ...

        def poll(self, milliseconds: float) -> None:
            clock[0] += milliseconds / 1000

    monkeypatch.setattr(unconfirmed.select, "poll", Poll)
    side.ends.close()
    assert (synced, side.ends.wait_s()) == (["exit.json", "1.records"], None)
    with pytest.raises(BrokenPipeError):
        side.daemon.send(REMOVE)


def test_records_that_somebody_else_has_removed_are_no_trouble(
    side: Side, clock: list[float], synced: list[str]
) -> None:
    unconfirmed.clear(str(side.records), keep=False)
    clock[0] += 0.06
    side.ends.look()
    assert (synced, side.ends.wait_s()) == ([], None)


def test_a_daemon_that_listens_on_a_pipe_gets_a_durable_record(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "1.records").mkdir()
    (tmp_path / "1.records" / bundle.EXIT).touch()
    read_end, write_end = os.pipe()
    with select.epoll() as poll:
        ends = UnconfirmedEnds(poll)
        ends.note(str(tmp_path / "1.records"))
        # It stays the caller's.
        assert not ends.take_over(str(tmp_path / "1.records"), write_end)
        assert (synced, ends.wait_s()) == (["exit.json", "1.records"], None)
        # Nor does an attempt count whose end was made durable from the start.
        assert not ends.take_over(str(tmp_path / "2.records"), write_end)
    os.close(read_end)
    os.close(write_end)


def test_a_folder_of_the_previous_release_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / bundle.EXIT).touch()
    unconfirmed.clear(str(tmp_path), keep=True)
    assert (tmp_path / bundle.EXIT).exists()


# What is kept.


def test_the_kept_ends_are_told_apart_by_token(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "7" / "1")
    ended.note(
        run_dir, "a", Result(Outcome.EXIT_NONZERO, exit_code=3, started_at=1.5, finished_at=2.5, error="e" * 999)
    )
    ended.note(run_dir, "b", Result(Outcome.LAUNCH_ERROR, error="no", machine_fault=True))
    first = {
        "run": "7/1",
        "gpus": [],
        "token": "a",
        "outcome": "exit_nonzero",
        "exit_code": 3,
        "error": "e" * 300,
        "started_at": 1.5,
    }
    assert ended.find(run_dir, "a") == {**first, "finished_at": 2.5}
    assert ended.find(run_dir, "b") == {
        "run": "7/1",
        "gpus": [],
        "token": "b",
        "outcome": "launch_error",
        "error": "no",
        "machine_fault": True,
    }
    assert ended.find(run_dir, "eeee") is None
    assert ended.find(run_dir, "") is None
    assert ended.find(str(tmp_path / "none" / "7" / "1"), "a") is None
    assert (tmp_path / ended.NAME).stat().st_mode & 0o777 == 0o600


def test_token_and_gpus_of_an_attempt_are_found_by_its_folder(tmp_path: Path) -> None:
    for number, gpus in (("1", ["GPU-a"]), ("11", ["GPU-b", "GPU-c"]), ("2", [])):
        ended.note(str(tmp_path / "7" / number), f"token-{number}", Result(Outcome.SUCCEEDED, exit_code=0), gpus)
    assert ended.spec_of(str(tmp_path / "7" / "11")) == {
        "token": "token-11", "env": {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-c"},
    }  # fmt: skip
    assert ended.spec_of(str(tmp_path / "7" / "2")) == {"token": "token-2", "env": {"CUDA_VISIBLE_DEVICES": ""}}
    assert ended.spec_of(str(tmp_path / "7" / "3")) == {}
    assert ended.spec_of(str(tmp_path / "none" / "7" / "1")) == {}


def test_a_full_file_of_kept_ends_is_put_aside_and_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = str(tmp_path / "7" / "1")
    monkeypatch.setattr(ended, "_MOST_BYTES", 200)
    for number in range(7):
        ended.note(run_dir, f"token-{number}", Result(Outcome.SUCCEEDED, exit_code=0))
    known = [number for number in range(7) if ended.find(run_dir, f"token-{number}")]
    assert known[-1] == 6
    assert len(known) >= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended.jsonl", "ended.jsonl.1"]


def test_an_end_that_cannot_be_kept_keeps_its_records(world: Any) -> None:
    attempt = world.shell("exit 3")
    result = attempt.result()
    (world.root / "jobs" / ended.NAME).mkdir()
    world.launcher.end_written(attempt.run_dir, attempt.order.token, attempt.launched, result, [])
    assert attempt.exit_record()["exit_code"] == 3

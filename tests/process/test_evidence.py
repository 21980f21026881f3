"""Signs of life of real attempts whose folders were removed, moved, or spoiled."""

from __future__ import annotations

import os
import select
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuq import user_files
from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome
from gpuq.domain.proof_of_death import Evidence, Sign, Verdict, judge
from gpuq.linux import look
from gpuq.supervise import bundle, evidence


def seen(world: Any, attempt: Any, launched: Launched | None = None) -> Evidence:
    found: Evidence = world.launcher.evidence(attempt.run_dir, attempt.order.token, launched, os.geteuid())
    return found


def until_gone(pid: int, signum: int = signal.SIGKILL) -> None:
    fd = os.pidfd_open(pid)
    os.kill(pid, signum)
    assert select.select([fd], [], [], 20)[0]
    os.close(fd)


# No mark is left of it, whoever looks for one.
UNMARKED = ("/usr/bin/env", "-i", "/bin/sleep", "100")


@pytest.mark.parametrize("known", [True, False], ids=["by_what_sql_says", "by_looking_at_all_supervisors"])
def test_an_attempt_whose_folders_were_removed_is_supervised_as_long_as_its_supervisor_lives(
    world: Any, known: bool
) -> None:
    attempt = world.start(*UNMARKED)
    launched = attempt.launched if known else None
    shutil.rmtree(Path(attempt.run_dir).parent)
    assert not world.launcher.alive(attempt.run_dir)
    found = seen(world, attempt, launched)
    assert (judge(found), found.supervisor, found.lock) == (Verdict.SUPERVISED, Sign.LIVES, Sign.GONE)
    assert attempt.running.supervisor_pid in found.pids
    until_gone(attempt.running.pid)
    attempt.wait()
    # Its supervisor is there for another attempt now.
    assert judge(seen(world, attempt, launched)) is Verdict.DEAD


def _remove_records(attempt: Any) -> None:
    shutil.rmtree(attempt.records)


def _put_a_file_in_the_place_of_its_folder(attempt: Any) -> None:
    folder = Path(attempt.run_dir).parent
    folder.rename(folder.with_name("moved-by-somebody"))
    folder.touch()


@pytest.mark.parametrize("spoil", [_remove_records, _put_a_file_in_the_place_of_its_folder])
def test_an_attempt_is_supervised_when_part_of_its_folders_is_gone(world: Any, spoil: Any) -> None:
    attempt = world.start(*UNMARKED)
    spoil(attempt)
    assert bundle.records_of(attempt.run_dir) == attempt.records
    assert not world.launcher.alive(attempt.run_dir)
    found = seen(world, attempt, attempt.launched)
    assert (judge(found), found.supervisor) == (Verdict.SUPERVISED, Sign.LIVES)


def test_the_end_of_an_attempt_is_recorded_although_a_file_took_the_place_of_its_folder(world: Any) -> None:
    attempt = world.start(*UNMARKED)
    _put_a_file_in_the_place_of_its_folder(attempt)
    os.kill(attempt.running.pid, signal.SIGTERM)
    result = attempt.result()
    assert (result.outcome, result.signal) == (Outcome.SIGNAL, signal.SIGTERM)
    jobs = Path(attempt.run_dir).parent.parent
    assert [path.is_file() for path in jobs.glob("*.moved-*")] == [True]
    attempt.wait()
    assert judge(seen(world, attempt, attempt.launched)) is Verdict.DEAD


def test_a_file_or_a_link_in_the_place_of_a_job_folder(tmp_path: Path) -> None:
    (tmp_path / "7").touch()
    assert user_files.make_private(f"{tmp_path}/7/checkpoint")
    (tmp_path / "8").symlink_to("file")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        # It may lead to a disk that is away.
        user_files.make_private(f"{tmp_path}/8/checkpoint")
    with pytest.raises(NotADirectoryError):
        user_files.make_private(f"{tmp_path}/file/9/checkpoint")
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["7", "7.moved", "8", "file"]


def _put_a_file_in_the_place_of_its_records(attempt: Any) -> Path:
    records = Path(attempt.records)
    records.rename(records.with_name("moved-by-somebody"))
    records.write_text("not mine")
    return records


def test_the_end_of_an_attempt_is_recorded_although_a_file_took_the_place_of_its_records(world: Any) -> None:
    attempt = world.start(*UNMARKED)
    records = _put_a_file_in_the_place_of_its_records(attempt)
    os.kill(attempt.running.pid, signal.SIGTERM)
    result = attempt.result()
    assert (result.outcome, result.signal) == (Outcome.SIGNAL, signal.SIGTERM)
    assert [path.read_text() for path in records.parent.glob("1.records.moved-*")] == ["not mine"]


def test_an_attempt_is_stopped_although_a_file_took_the_place_of_its_records(world: Any) -> None:
    attempt = world.start(*UNMARKED)
    _put_a_file_in_the_place_of_its_records(attempt)
    # Nobody can reach the supervisor any more, so whoever oversees it ends the attempt in its place.
    attempt.stop("cancel", grace_s=0.0)
    end = os.pidfd_open(attempt.running.supervisor_pid)
    known = (attempt.run_dir, attempt.order.token, attempt.launched)
    while (again_s := world.launcher.oversight.take_over(*known, reason="cancel", grace_s=0.0)) is not None:
        select.select([end], [], [], again_s)
    os.close(end)
    assert attempt.result().outcome is Outcome.CANCELLED


def test_an_attempt_whose_records_a_file_replaced_is_not_launched_again(world: Any) -> None:
    attempt = world.start("true")
    attempt.result()
    _put_a_file_in_the_place_of_its_records(attempt)
    with pytest.raises(FileExistsError, match="launched before"):
        world.launcher.start(attempt.order)


@pytest.mark.parametrize("wrong", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_folder_is_moved_aside_before_a_launch(world: Any, wrong: Any) -> None:
    order = world.order("true")
    records = Path(f"{order.run_dir}.records")
    records.parent.mkdir(parents=True)
    wrong(records)
    assert world.launch(order).result().outcome is Outcome.SUCCEEDED
    assert len(list(records.parent.glob("1.records.moved-*"))) == 1


def test_a_folder_that_somebody_makes_meanwhile_is_not_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, rename = tmp_path / "1.records", os.rename
    place.touch()

    def late(*names: Any, **where: Any) -> None:
        if place.is_file():
            place.unlink()
            place.mkdir()
        rename(*names, **where)

    monkeypatch.setattr(os, "rename", late)
    assert not user_files.make_private(str(place))
    assert [path.name for path in tmp_path.iterdir()] == ["1.records"]
    assert place.is_dir()


def test_nothing_is_moved_aside_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "1.records").touch()
    (tmp_path / "7").symlink_to("theirs")
    with pytest.raises(OSError, match="Not a directory"):
        user_files.make_private(str(tmp_path / "7" / "1.records"))
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["1.records"]


def test_an_attempt_is_supervised_wherever_its_home_is(world: Any) -> None:
    attempt = world.start(*UNMARKED)
    away = world.root.with_name(world.root.name + "-away")
    world.root.rename(away)
    try:
        assert judge(seen(world, attempt, attempt.launched)) is Verdict.SUPERVISED
    finally:
        away.rename(world.root)


def test_a_supervisor_at_another_attempt_is_none_of_this_ones(world: Any) -> None:
    attempt = world.start("true")
    attempt.result()
    supervisor = attempt.running.supervisor_pid
    others = [world.start("sleep", "100") for _ in range(3)]
    assert supervisor in {other.running.supervisor_pid for other in others}, "it is at work again"
    shutil.rmtree(Path(attempt.run_dir).parent)
    assert judge(seen(world, attempt, attempt.launched)) is Verdict.DEAD


def test_what_is_left_without_a_supervisor_is_found_by_each_of_its_signs(world_of_each_kind: Any) -> None:
    world = world_of_each_kind
    attempt = world.start(*UNMARKED)
    # A fork server that stands still ends nothing.
    server = look(attempt.running.supervisor_pid).parent
    os.kill(server, signal.SIGSTOP)
    try:
        until_gone(attempt.running.supervisor_pid)
        found = seen(world, attempt, attempt.launched)
        # Its fork server has yet to say how it ended.
        assert (judge(found), found.supervisor) == (Verdict.SUPERVISED, Sign.LIVES)
        bundle.write(attempt.records, bundle.EXIT, {"token": attempt.order.token, "outcome": "lost"})
        found = seen(world, attempt, attempt.launched)
        assert (judge(found), found.main, found.session) == (Verdict.LEFT_OVER, Sign.LIVES, Sign.LIVES)
        assert found.marked is Sign.GONE
        assert attempt.running.pid in found.pids
    finally:
        os.kill(server, signal.SIGCONT)


def test_a_lock_that_is_no_file_of_its_own_is_none_and_one_that_cannot_be_asked_is_a_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / bundle.LOCK
    assert evidence._lock(str(tmp_path)) is Sign.GONE
    path.symlink_to("elsewhere")
    assert evidence._lock(str(tmp_path)) is Sign.GONE
    path.unlink()
    path.touch()
    assert evidence._lock(str(tmp_path)) is Sign.GONE

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(evidence.os, "open", broken)
        assert evidence._lock(str(tmp_path)) is Sign.UNSEEN
    monkeypatch.setattr(evidence.fcntl, "flock", broken)
    assert evidence._lock(str(tmp_path)) is Sign.UNSEEN


def test_what_is_in_a_session_without_its_leader_may_be_the_jobs(world: Any) -> None:
    """A daemonized process that has cleared its environment, and whose parent has ended."""
    read_end, write_end = os.pipe()
    leader = os.fork()
    if leader == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(write_end)
            os.read(read_end, 1)
        os._exit(0)
    start = look(leader).start
    os.waitpid(leader, 0)
    attempt = world.start("true")
    attempt.result()
    known = Launched(2**22, 1, leader, start, 1.0)
    try:
        found = seen(world, attempt, known)
        assert (judge(found), found.main, found.session) == (Verdict.IN_DOUBT, Sign.GONE, Sign.UNSEEN)
        assert len(found.pids) == 1
        end = os.pidfd_open(found.pids[0])
    finally:
        os.close(write_end)
        os.close(read_end)
    assert select.select([end], [], [], 20)[0]
    os.close(end)
    assert judge(seen(world, attempt, known)) is Verdict.DEAD

"""The true end is recorded wherever the folder of its record went meanwhile, and told at once to who listens."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.supervise import bundle, last_word
from gpuq.supervise.last_word import HomeGone, JobsFolder, record_end, write_end


def ended(pid: int) -> int:
    """A descriptor that becomes readable at the end of the process."""
    return os.pidfd_open(pid)


def readable(fd: int, seconds: float = 20.0) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


@pytest.mark.parametrize("what", ['"$RUN.records"', '"$RUN"', '"$RUN" "$RUN.records"', '"${RUN%/*}"'])
def test_a_job_that_removes_the_folders_of_its_attempt_has_its_true_end(world: Any, what: str) -> None:
    order = world.order("/bin/sh", "-c", f"rm -rf {what}; exit 7")
    order.spec["env"]["RUN"] = order.run_dir
    result = world.launch(order).result()
    assert (result.outcome, result.exit_code) == (Outcome.EXIT_NONZERO, 7)


def test_the_end_of_a_supervisor_that_was_killed_is_written_where_its_folder_was_removed(world: Any) -> None:
    bell = world.bell()
    order = world.order("/bin/sh", "-c", "read go < $BELL; exit 7", env={"BELL": str(bell.path)})
    attempt = world.launch(order)
    shutil.rmtree(Path(order.run_dir).parent)
    supervisor, job = attempt.running.supervisor_pid, ended(attempt.running.pid)
    # Its job ends while it cannot look, so that its fork server has to say how.
    os.kill(supervisor, signal.SIGSTOP)
    bell.path.write_text("go\n")
    assert readable(job)
    os.kill(supervisor, signal.SIGKILL)
    fd = world.launcher.watch(attempt.running)
    assert fd is None or readable(fd)
    world_until(lambda: world.launcher.outcome(order.run_dir, order.token) is not None)
    assert world.launcher.outcome(order.run_dir, order.token).exit_code == 7


def world_until(condition: Any) -> None:
    """The fork server has no signal for others: asked again until it holds."""
    for _ in range(2000):
        if condition():
            return
        select.select([], [], [], 0.01)
    raise AssertionError("it never came about")


@contextlib.contextmanager
def away(home: Path) -> Any:
    """The home, renamed for a time, as when its volume is taken elsewhere."""
    elsewhere = home.with_name(home.name + "-away")
    home.rename(elsewhere)
    try:
        yield elsewhere
    finally:
        elsewhere.rename(home)


def test_what_ends_while_the_home_is_away_is_told_at_once_and_written_when_it_is_back(world: Any) -> None:
    bell = world.bell()
    order = world.order(
        "/bin/sh", "-c", "exec 3<$BELL; echo > $READY; read go <&3; exit 7", env={"BELL": str(bell.path)}
    )
    ready = world.bell()
    order.spec["env"]["READY"] = str(ready.path)
    attempt = world.hand_over(order)
    assert readable(attempt.report_fd)
    attempt.launched = world.launcher.report(attempt.report_fd)
    writer = os.open(bell.path, os.O_RDWR)
    ready.wait()
    with away(world.root):
        os.write(writer, b"go\n")
        assert readable(attempt.report_fd), "nothing is told"
        assert world.launcher.report(attempt.report_fd) is None
        told = world.launcher.told_end(order.token)
        assert (told.outcome, told.exit_code, told.swept) == (Outcome.EXIT_NONZERO, 7, True)
        assert world.launcher.outcome(order.run_dir, order.token) == told
        assert not world.root.exists(), "nothing was made where the home was"
    os.close(writer)
    assert readable(attempt.report_fd), "the supervisor is still there"
    os.close(attempt.report_fd)
    assert attempt.exit_record()["exit_code"] == 7


def test_the_supervisor_ends_without_a_record_when_the_home_was_deleted(world: Any) -> None:
    bell = world.bell()
    attempt = world.shell("exec 3<$BELL; read go <&3; exit 7", env={"BELL": str(bell.path)})
    watch = world.launcher.watch(attempt.running)
    writer = os.open(bell.path, os.O_RDWR)
    shutil.rmtree(world.root / "jobs")
    os.write(writer, b"go\n")
    os.close(writer)
    assert readable(watch)
    os.close(watch)
    assert not (world.root / "jobs").exists()


# The folder of all attempts.


@pytest.fixture
def jobs(tmp_path: Path) -> tuple[JobsFolder, Path]:
    path = tmp_path / "home" / "jobs"
    path.mkdir(parents=True)
    folder = JobsFolder()
    folder.open(str(path))
    return folder, path


def test_a_folder_of_records_is_made_again_where_it_was(jobs: tuple[JobsFolder, Path]) -> None:
    folder, path = jobs
    assert folder.restore(str(path / "1" / "1.records"))
    assert (path / "1" / "1.records").stat().st_mode & 0o777 == 0o700


def test_nothing_is_made_while_the_folder_is_away_or_another_is_in_its_place(jobs: tuple[JobsFolder, Path]) -> None:
    folder, path = jobs
    with away(path.parent):
        assert not folder.restore(str(path / "1" / "1.records"))
        # What a mount point shows while nothing is mounted there.
        path.mkdir(parents=True)
        assert not folder.restore(str(path / "1" / "1.records"))
        assert list(path.iterdir()) == []
        shutil.rmtree(path.parent)
    assert folder.restore(str(path / "1" / "1.records"))


def test_a_folder_that_was_deleted_is_gone_unless_it_was_made_again(jobs: tuple[JobsFolder, Path]) -> None:
    folder, path = jobs
    shutil.rmtree(path)
    with pytest.raises(HomeGone):
        folder.restore(str(path / "1" / "1.records"))
    path.mkdir()
    assert folder.restore(str(path / "1" / "1.records"))


def test_a_folder_that_nobody_knows_is_gone(tmp_path: Path, jobs: tuple[JobsFolder, Path]) -> None:
    folder, path = jobs
    for unknown in (JobsFolder(), folder):
        with pytest.raises(HomeGone):
            unknown.restore(str(tmp_path / "1" / "1.records"))
    never = JobsFolder()
    never.open(str(path / "none"))
    with pytest.raises(HomeGone):
        never.restore(str(path / "none" / "1" / "1.records"))


# How long it is tried.


def test_an_end_is_given_up_when_the_home_was_away_for_half_a_day(
    monkeypatch: pytest.MonkeyPatch, jobs: tuple[JobsFolder, Path]
) -> None:
    folder, path = jobs
    monkeypatch.setattr(last_word, "JOBS", folder)
    now, told = [1000.0], []
    monkeypatch.setattr(last_word.kernel, "since_boot", lambda: now[0])
    monkeypatch.setattr(last_word.time, "sleep", lambda pause: now.__setitem__(0, now[0] + pause))
    record: dict[str, object] = {"outcome": "succeeded", "token": "t"}
    with away(path.parent):
        record_end(str(path / "1" / "1.records"), record, tell=told.append)
    assert last_word.AWAY_S < now[0] - 1000 < last_word.AWAY_S + 20
    # Once is enough.
    assert told == [bundle.line(record)]
    assert write_end(str(path / "1" / "1.records"), record)
    assert bundle.read(str(path / "1" / "1.records"), bundle.EXIT) == record


def test_an_end_that_can_be_written_at_once_is_not_told(tmp_path: Path) -> None:
    told: list[bytes] = []
    record_end(str(tmp_path), {"outcome": "succeeded"}, tell=told.append)
    assert told == []
    assert bundle.read(str(tmp_path), bundle.EXIT) == {"outcome": "succeeded"}


def test_a_full_disk_is_told_once_and_waited_for_without_an_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now, told, write = [0.0], [], bundle.write
    monkeypatch.setattr(last_word.kernel, "since_boot", lambda: now[0])
    monkeypatch.setattr(last_word.time, "sleep", lambda pause: now.__setitem__(0, now[0] + pause))

    def full(*words: Any) -> None:
        if now[0] < 3 * last_word.AWAY_S:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*words)

    monkeypatch.setattr(bundle, "write", full)
    record_end(str(tmp_path), {"outcome": "succeeded"}, tell=told.append)
    assert told == [bundle.line({"outcome": "succeeded"})]
    assert bundle.read(str(tmp_path), bundle.EXIT) == {"outcome": "succeeded"}

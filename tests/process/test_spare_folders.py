"""Folders of earlier attempts that later ones use: what is in them, and whose they are."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from gpuq.supervise import bundle, in_place, spares
from gpuq.supervise.spares import SpareFolders

NOBODY = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to another user")


def records_of(jobs: Path, job: int, attempt: int = 1) -> Path:
    """As they are after the end of an attempt that was told to stop."""
    records = jobs / str(job) / f"{attempt}.records"
    records.mkdir(0o700, parents=True)
    for name in (bundle.SPEC, bundle.STARTED, bundle.EXIT, bundle.STOP):
        in_place.fill(str(records), name, {"token": "old"})
    (records / bundle.LOCK).write_text("anything")
    os.mkfifo(records / bundle.CONTROL, 0o600)
    return records


def checkpoint_of(jobs: Path, job: int) -> Path:
    folder = jobs / str(job) / "checkpoint"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(0o700)
    return folder


def new_job(jobs: Path, job: int) -> Path:
    folder = jobs / str(job)
    folder.mkdir()
    return folder


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


@pytest.fixture
def folders(jobs: Path) -> SpareFolders:
    found = SpareFolders()
    # Whoever starts anything looks for some first, which makes their place.
    assert not found.take_records(str(jobs / "0" / "1.records"))
    return found


def test_records_come_back_with_nothing_of_their_former_attempt(jobs: Path, folders: SpareFolders) -> None:
    old = records_of(jobs, 7)
    inode = old.stat().st_ino
    assert folders.expect_records(str(old))
    spares.put_records(str(old))
    assert not old.exists()
    fresh = new_job(jobs, 8) / "1.records"
    assert folders.take_records(str(fresh))
    assert (fresh.stat().st_ino, stat.S_IMODE(fresh.stat().st_mode)) == (inode, 0o700)
    assert {path.name: path.stat().st_size for path in fresh.iterdir()} == {
        bundle.LOCK: 0, bundle.CONTROL: 0, bundle.SPEC: 0, bundle.STARTED: 0, bundle.EXIT: 0,
    }  # fmt: skip
    for name in (bundle.EXIT, bundle.STARTED, bundle.STOP):
        assert bundle.read(str(fresh), name) is None
        assert not in_place.is_written(str(fresh), name)
    # Each is used once.
    assert not folders.take_records(str(jobs / "8" / "2.records"))


def test_a_folder_that_is_not_there_yet_is_passed_over_and_found_later(
    jobs: Path, folders: SpareFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, there = records_of(jobs, 7), records_of(jobs, 8)
    assert folders.expect_records(str(late))
    assert folders.expect_records(str(there))
    spares.put_records(str(there))
    job = new_job(jobs, 9)
    assert folders.take_records(str(job / "1.records"))
    spares.put_records(str(late))
    assert not folders.take_records(str(job / "2.records"))
    monkeypatch.setattr(spares, "_LOOK_AGAIN_S", 0.0)
    assert folders.take_records(str(job / "2.records"))


def test_a_daemon_that_is_started_anew_finds_them(jobs: Path, folders: SpareFolders) -> None:
    spares.put_records(str(records_of(jobs, 7)))
    spares.put_checkpoint(str(checkpoint_of(jobs, 7)))
    later, job = SpareFolders(), new_job(jobs, 8)
    assert later.take_records(str(job / "1.records"))
    assert later.take_checkpoint(str(job / "checkpoint"), None, None)
    assert list((jobs / spares.FOLDER).iterdir()) == []


def test_what_stands_in_the_place_of_records_is_not_replaced(jobs: Path, folders: SpareFolders) -> None:
    spares.put_records(str(records_of(jobs, 7)))
    # A stop came before the launch.
    told = records_of(jobs, 8)
    later = SpareFolders()
    assert not later.take_records(str(told))
    assert in_place.is_written(str(told), bundle.STOP)
    # It is still there for another one.
    assert later.take_records(str(jobs / "8" / "2.records"))


def test_more_than_can_be_used_soon_are_not_kept(
    jobs: Path, folders: SpareFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares, "_MOST", 1)
    for job, kept in ((7, True), (8, False)):
        assert folders.expect_records(str(records_of(jobs, job))) is kept
        checkpoint = checkpoint_of(jobs, job)
        folders.note_launch(str(jobs / str(job) / "1"), {"checkpoint_dir": str(checkpoint)})
        spares.put_checkpoint(str(checkpoint))
        folders.note_over(str(jobs / str(job) / "1"))
        # A second call changes nothing.
        folders.note_over(str(jobs / str(job) / "1"))
    owner = f"{os.geteuid()}.{os.getegid()}"
    assert [path.name for path in (jobs / spares.FOLDER).iterdir()] == [f"7.checkpoint.{owner}"]


def test_an_empty_checkpoint_folder_is_used_by_the_next_job(jobs: Path, folders: SpareFolders) -> None:
    old = checkpoint_of(jobs, 7)
    inode = old.stat().st_ino
    folders.note_launch(str(jobs / "7" / "1"), {"checkpoint_dir": str(old), "uid": None})
    spares.put_checkpoint(str(old))
    folders.note_over(str(jobs / "7" / "1"))
    fresh = new_job(jobs, 8) / "checkpoint"
    assert folders.take_checkpoint(str(fresh), None, None)
    assert (fresh.stat().st_ino, old.exists()) == (inode, False)


@pytest.mark.parametrize("change", ["a file", "a folder", "mode", "attribute", "link"])
def test_a_checkpoint_folder_that_is_not_as_it_was_made_stays(jobs: Path, folders: SpareFolders, change: str) -> None:
    folder = checkpoint_of(jobs, 7)
    if change == "a file":
        (folder / "step").touch()
    elif change == "a folder":
        (folder / "step").mkdir()
    elif change == "mode":
        folder.chmod(0o750)
    elif change == "attribute":
        try:
            os.setxattr(folder, "user.mine", b"1")
        except OSError:
            pytest.skip("no extended attributes here")
    else:
        folder.rename(jobs / "elsewhere")
        folder.symlink_to(jobs / "elsewhere")
    spares.put_checkpoint(str(folder))
    assert os.path.lexists(folder)
    assert list((jobs / spares.FOLDER).iterdir()) == []


def test_what_is_written_into_a_checkpoint_folder_at_the_last_moment_comes_back(
    jobs: Path, folders: SpareFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = checkpoint_of(jobs, 7), os.rename

    def written_to(source: str, target: str) -> None:
        if source == str(folder):
            (folder / "step").touch()
        real(source, target)

    monkeypatch.setattr(spares.os, "rename", written_to)
    spares.put_checkpoint(str(folder))
    assert (folder / "step").exists()


@only_root
def test_a_checkpoint_folder_goes_to_nobody_but_its_user(jobs: Path, folders: SpareFolders) -> None:
    folder = checkpoint_of(jobs, 7)
    os.chown(folder, NOBODY, NOBODY)
    folders.note_launch(str(jobs / "7" / "1"), {"checkpoint_dir": str(folder), "uid": NOBODY, "gid": NOBODY})
    spares.put_checkpoint(str(folder))
    folders.note_over(str(jobs / "7" / "1"))
    fresh = str(new_job(jobs, 8) / "checkpoint")
    for uid, gid in ((None, None), (0, 0), (NOBODY - 1, NOBODY), (NOBODY, NOBODY - 1)):
        assert not folders.take_checkpoint(fresh, uid, gid)
    assert folders.take_checkpoint(fresh, NOBODY, NOBODY)
    assert os.stat(fresh).st_uid == NOBODY


def test_a_job_after_another_one_makes_three_files_and_deletes_none(world: Any) -> None:
    """Its folder, its own folder and its log: by the inodes of what is there after each."""

    def one() -> set[int]:
        order = world.order("/bin/true")
        checkpoint = Path(order.run_dir).parent / "checkpoint"
        checkpoint.parent.mkdir(parents=True)
        if not world.launcher.take_spare(str(checkpoint), None, None):
            checkpoint.mkdir(0o700)
        order.spec["checkpoint_dir"] = str(checkpoint)
        attempt = world.launch(order)
        result = attempt.result()
        world.launcher.end_written(attempt.run_dir, order.token, attempt.launched, result, [])
        while os.path.exists(attempt.run_dir + ".records"):
            os.sched_yield()
        return {path.lstat().st_ino for path in (world.root / "jobs").rglob("*")}

    before = one()
    after = one()
    assert before <= after
    assert len(after - before) == 3

"""Measuring and removing whole folders: nothing outside them is touched, and no more at a time than is allowed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuq.file_trees import Budget, measure, remove

ME = os.geteuid()


def gone(parent: Path, name: str, names: int = 10_000) -> tuple[bool, int]:
    return remove(str(parent), name, Budget(names), ME)


def blocks(path: Path) -> int:
    return path.lstat().st_blocks * 512


def test_a_folder_is_removed_with_all_that_is_in_it_and_what_came_free_is_what_it_took(tmp_path: Path) -> None:
    top = tmp_path / "1"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "x").write_bytes(b"x" * 100_000)
    (top / "y").write_bytes(b"y" * 5000)
    os.mkfifo(top / "pipe")
    taken = measure(str(tmp_path), "1", Budget(100))
    assert taken == sum(map(blocks, [top, top / "a", top / "a" / "b", top / "a" / "b" / "x", top / "y"]))
    assert taken >= 105_000
    assert gone(tmp_path, "1") == (True, taken)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_takes_nothing_and_is_gone(tmp_path: Path) -> None:
    assert gone(tmp_path, "1") == (True, 0)
    assert gone(tmp_path / "none", "1") == (True, 0)
    assert measure(str(tmp_path), "1", Budget(9)) == 0
    assert measure(str(tmp_path / "none"), "1", Budget(9)) == 0


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_bytes(b"p" * 100_000)
    top = tmp_path / "jobs" / "1"
    top.mkdir(parents=True)
    (top / "in").symlink_to(other)
    (top / "file").symlink_to(other / "precious")
    (tmp_path / "jobs" / "2").symlink_to(other)
    assert measure(str(tmp_path / "jobs"), "1", Budget(99)) < 50_000
    assert measure(str(tmp_path / "jobs"), "2", Budget(99)) == 0
    assert gone(tmp_path / "jobs", "1")[0]
    assert gone(tmp_path / "jobs", "2")[0]
    assert list((tmp_path / "jobs").iterdir()) == []
    assert (other / "precious").read_bytes() == b"p" * 100_000


def test_a_file_with_two_names_counts_once_and_gives_nothing_back_while_one_is_left(tmp_path: Path) -> None:
    top = tmp_path / "1"
    top.mkdir()
    (top / "a").write_bytes(b"a" * 100_000)
    os.link(top / "a", top / "b")
    os.link(top / "a", tmp_path / "elsewhere")
    assert 100_000 <= measure(str(tmp_path), "1", Budget(99)) < 200_000
    done, freed = gone(tmp_path, "1")
    assert done
    assert freed < 100_000
    assert (tmp_path / "elsewhere").stat().st_nlink == 1


def test_no_more_names_are_removed_than_allowed_and_a_second_call_goes_on(tmp_path: Path) -> None:
    top = tmp_path / "1"
    (top / "in").mkdir(parents=True)
    for number in range(50):
        (top / "in" / str(number)).touch()
    pauses: list[int] = []
    budget = Budget(20, lambda: bool(pauses.append(1)))
    assert remove(str(tmp_path), "1", budget, ME)[0] is False
    assert budget.spent
    assert 30 <= len(list((top / "in").iterdir())) < 50
    assert gone(tmp_path, "1")[0]
    assert not top.exists()


def test_every_so_many_names_there_is_a_pause_which_may_end_it(tmp_path: Path) -> None:
    top = tmp_path / "1"
    top.mkdir()
    for number in range(3 * Budget.PAUSE_AFTER):
        (top / str(number)).touch()
    told: list[bool] = []

    def pause() -> bool:
        told.append(True)
        return len(told) == 2

    assert remove(str(tmp_path), "1", Budget(10_000, pause), ME)[0] is False
    assert len(told) == 2
    assert len(list(top.iterdir())) >= Budget.PAUSE_AFTER


def test_a_tower_of_folders_deeper_than_descriptors_allow_is_removed(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for name in ["1", *["deeper"] * 1500]:
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    open_before = len(os.listdir("/proc/self/fd"))
    assert measure(str(tmp_path), "1", Budget(10_000)) >= 0
    assert gone(tmp_path, "1")[0]
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_folder_that_its_owner_has_closed_to_himself_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "1"
    (top / "closed").mkdir(parents=True)
    (top / "closed" / "file").touch()
    (top / "closed").chmod(0)
    top.chmod(0)
    assert gone(tmp_path, "1")[0]
    assert not top.exists()


@pytest.mark.skipif(ME != 0, reason="only root gives folders to others")
def test_a_shared_folder_that_the_user_may_have_taken_from_somebody_else_is_not_emptied(tmp_path: Path) -> None:
    top = tmp_path / "1"
    (top / "shared" / "theirs").mkdir(parents=True)
    (top / "shared" / "theirs" / "precious").touch()
    os.chown(top, 4001, 4001)
    os.chown(top / "shared", 4002, 4001)
    (top / "shared").chmod(0o2775)
    with pytest.raises(PermissionError, match="uid 4002"):
        remove(str(tmp_path), "1", Budget(99), 4001)
    assert (top / "shared" / "theirs" / "precious").exists()
    # One that only its owner could have moved is in the way by accident: a container of the job's made it.
    (top / "shared").chmod(0o755)
    assert remove(str(tmp_path), "1", Budget(99), 4001)[0]

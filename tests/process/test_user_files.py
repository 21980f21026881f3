"""Making the folders of users, and opening files in them, where it takes root, a mount or a quota."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpuq import user_files
from gpuq.engine.attempt.launch import _make_checkpoint_folder
from gpuq.engine.attempt.launch_breaker import is_machines_fault
from gpuq.supervise import own_folder

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")

# In a mount namespace of its own, so that nothing stays mounted however this ends.
MOUNTED = """
import os, subprocess, sys
sys.path[:0] = [sys.argv[1]]
from gpuq.user_files import open_file
folder = sys.argv[2]
os.close(open_file(folder, "output.log", None))
os.mkdir(folder + "/real")
subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
open(folder + "/output.log", "w").close()
try:
    open_file(folder, "output.log", None)
except OSError as error:
    print(error.errno)
"""


@as_root
def test_nothing_is_opened_on_a_file_system_that_a_user_may_have_mounted_there(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "output.log").touch(0o600)
    root = str(Path(user_files.__file__).parents[1])
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", MOUNTED, root, str(folder)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (f"{errno.EXDEV}\n", "")


def test_a_kernel_without_openat2_opens_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_files, "_OPENAT2", 1000)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "output.log").write_text("x")
    fd = user_files.open_file(str(tmp_path / "1"), "output.log", os.geteuid())
    assert os.read(fd, 2) == b"x"
    os.close(fd)
    (tmp_path / "2").symlink_to("1")
    with pytest.raises(NotADirectoryError):
        user_files.open_file(str(tmp_path / "2"), "output.log", os.geteuid())


def test_the_modes_of_folders_are_the_same_whatever_the_umask_is(tmp_path: Path) -> None:
    for umask in (0o077, 0o000):
        run_dir = tmp_path / str(umask) / "7" / "1"
        before = os.umask(umask)
        try:
            os.close(own_folder.make(str(run_dir), None, None))
        finally:
            os.umask(before)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (run_dir.parents[1], run_dir.parent, run_dir)]
        assert modes == [0o711, 0o711, 0o700]


def test_a_passage_that_others_may_change_is_closed(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    for mode, then in ((0o755, 0o755), (0o777, 0o711), (0o775, 0o711)):
        (tmp_path / "jobs").chmod(mode)
        user_files.make_passage(str(tmp_path / "jobs"))
        assert stat.S_IMODE((tmp_path / "jobs").stat().st_mode) == then


def test_a_folder_that_the_user_had_already_is_not_filled_a_second_time(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "1")
    os.close(own_folder.make(run_dir, None, None))
    with pytest.raises(FileExistsError):
        own_folder.make(run_dir, None, None)


@as_root
def test_a_folder_that_was_handed_over_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    user_files.hand_over(str(tmp_path / "1"), NOBODY, NOBODY)
    with pytest.raises(FileExistsError, match="launched before"):
        own_folder.make(str(tmp_path / "1"), NOBODY, NOBODY)


@as_root
@pytest.mark.parametrize("call", ["fchown", "chown"])
def test_a_user_without_disk_quota_keeps_nobody_else_from_being_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(PermissionError, match="disk quota") as refusal:
        own_folder.make(str(tmp_path / "1"), NOBODY, NOBODY)
    assert not is_machines_fault(refusal.value)


@as_root
def test_a_checkpoint_folder_that_an_earlier_attempt_did_not_give_away_is_given_to_the_user(tmp_path: Path) -> None:
    checkpoint = tmp_path / "7" / "checkpoint"
    checkpoint.mkdir(parents=True)
    checkpoint.parent.chmod(0o777)
    _make_checkpoint_folder(str(checkpoint), NOBODY, NOBODY)
    assert (checkpoint.stat().st_uid, stat.S_IMODE(checkpoint.parent.stat().st_mode)) == (NOBODY, 0o711)
    checkpoint.chmod(0o750)
    _make_checkpoint_folder(str(checkpoint), NOBODY, NOBODY)
    assert (checkpoint.stat().st_uid, stat.S_IMODE(checkpoint.stat().st_mode)) == (NOBODY, 0o750)

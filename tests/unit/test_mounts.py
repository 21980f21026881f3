"""A home on a disk that is not mounted is not begun anew below it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpuq import mounts
from gpuq.errors import DatabaseUnavailable
from gpuq.home import prepare_home

Mounted = Callable[..., None]


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    """Says what is mounted, by mount point and kind of file system."""
    table, state = tmp_path / "mountinfo", tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setattr(mounts, "_MOUNTED", table)

    def write(**points: str) -> None:
        lines = ["22 1 0:21 / / rw - overlay overlay rw"]
        lines += [f"30 22 8:17 / {tmp_path}/{name} rw shared:1 - {kind} x rw" for name, kind in points.items()]
        table.write_text("\n".join(lines) + "\n")

    write()
    return write


def test_a_home_that_was_on_a_disk_is_not_made_while_that_is_not_mounted(tmp_path: Path, mounted: Mounted) -> None:
    home = tmp_path / "disk" / "home"
    mounted(disk="ext4")
    prepare_home(home)
    mounts.note(home)
    home.rmdir()
    # Whoever empties the home may begin anew on that disk.
    prepare_home(home)
    home.rmdir()
    mounted()
    with pytest.raises(DatabaseUnavailable, match=f"the disk of {tmp_path}/disk is not mounted") as told:
        prepare_home(home)
    assert not home.exists()
    note = Path(str(told.value.hint).rpartition("rm ")[2])
    note.unlink()
    prepare_home(home)


def test_a_home_that_is_in_use_below_a_mount_point_stays_in_use(tmp_path: Path, mounted: Mounted) -> None:
    home = tmp_path / "disk"
    mounted(disk="xfs")
    mounts.note(home)
    mounted()
    prepare_home_with_mark = home / "installation.json"
    home.mkdir(mode=0o755)
    with pytest.raises(DatabaseUnavailable):
        prepare_home(home)
    prepare_home_with_mark.touch()
    prepare_home(home)


def test_nothing_is_noted_of_what_cannot_go_away_by_itself(tmp_path: Path, mounted: Mounted) -> None:
    home = tmp_path / "disk" / "home"
    for kind in ({}, {"disk": "tmpfs"}):
        mounted(**kind)
        mounts.note(home)
        assert not list(tmp_path.glob("state/gpuq/mounts/*"))
    mounted(disk="ext4")
    mounts.note(home)
    (note,) = tmp_path.glob("state/gpuq/mounts/*")
    written = note.stat().st_mtime_ns
    mounts.note(home)
    assert note.stat().st_mtime_ns == written
    # It lives on the system's own disk by now.
    mounted()
    mounts.note(home)
    assert not note.exists()


@pytest.mark.parametrize(
    ("line", "home", "refused"),
    [
        ("/dev/sdb {disk} ext4 defaults,nofail 0 2", "disk/home", True),
        ("UUID=1 {disk} ext4", "disk", True),
        ("UUID=1\t{disk}/\text4\tnoauto", "disk/a/b", True),
        ("# /dev/sdb {disk} ext4", "disk/home", False),
        ("/dev/sdb {disk} ext4", "disk2/home", False),
        ("/dev/sdb {disk}/scratch ext4", "disk/home", False),
        ("/dev/sdb none swap sw 0 0", "disk/home", False),
        ("/dev/sdb / ext4", "disk/home", False),
        ("nonsense", "disk/home", False),
        ("/dev/sdb {disk}\\040with\\040blanks ext4", "disk with blanks/home", True),
    ],
)  # fmt: skip
def test_a_mount_point_of_fstab_is_expected_to_be_mounted(
    tmp_path: Path, mounted: Mounted, line: str, home: str, refused: bool
) -> None:
    fstab, disk = tmp_path / "fstab", tmp_path / "disk"
    fstab.write_text(f"\n{line.format(disk=disk)}\n")
    found = mounts.not_mounted(tmp_path / home, fstab=fstab)
    assert (found is not None) == refused
    mounted(disk="ext4", **{"disk\\040with\\040blanks": "ext4"})
    assert mounts.not_mounted(tmp_path / home, fstab=fstab) is None


def test_where_nothing_can_be_known_nobody_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fstab").write_text(f"/dev/sdb {tmp_path} ext4\n")
    monkeypatch.setattr(mounts, "_MOUNTED", tmp_path / "no-proc")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "not-there"))
    assert mounts.not_mounted(tmp_path / "home", fstab=tmp_path / "fstab") is None
    mounts.note(tmp_path / "home")


def test_a_note_that_says_nothing_is_none(tmp_path: Path, mounted: Mounted) -> None:
    home = tmp_path / "disk" / "home"
    mounted(disk="ext4")
    mounts.note(home)
    (note,) = tmp_path.glob("state/gpuq/mounts/*")
    mounted()
    for content in (b"", b"disk\n", b"\xff\xfe"):
        note.write_bytes(content)
        assert mounts.not_mounted(home, fstab=tmp_path / "none") is None

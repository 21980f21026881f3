"""Whether the disk that a home stands on is mounted.

Where it is not, its mount point is an empty folder, which looks like a home that is new; and what is put into it is
gone when the disk is mounted over it. Two things tell: /etc/fstab, and a note that each daemon leaves with its
own user, of a home on another disk than the note.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

FSTAB = Path("/etc/fstab")
_MOUNTED = Path("/proc/self/mountinfo")
_NOTE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
# What is on these is gone with the mount.
_PASSING = frozenset({"tmpfs", "ramfs"})


def notes_folder() -> Path:
    """Of this process's user. Not below $HOME, which after `sudo` may be another's. Raises KeyError without an account,
    OSError when XDG_STATE_HOME is not there."""
    state = os.environ.get("XDG_STATE_HOME")
    if state is None or Path(state).stat().st_uid != os.geteuid():
        state = f"{pwd.getpwuid(os.geteuid()).pw_dir}/.local/state"
    return Path(state, "gpuq", "mounts")


def not_mounted(home: Path, notes: Path | None = None, fstab: Path = FSTAB) -> tuple[str, Path] | None:
    """The mount point of a disk that the home should be on and that is not mounted, and the file that says so; None
    when all are, and where that cannot be known."""
    try:
        mounted = dict(_mounts())
    except OSError:
        return None
    expected = dict.fromkeys(_points_in(fstab), fstab)
    if (noted := _noted(home, notes)) is not None:
        expected[noted[0]] = noted[1]
    for point, source in expected.items():
        if point not in mounted and os.path.realpath(point) not in mounted and _is_below(home, point):
            return point, source
    return None


def note(home: Path, notes: Path | None = None) -> None:
    """Remembers the mount point of the disk that the home is on now, as far as that goes."""
    with contextlib.suppress(OSError, KeyError):
        _note(home, _note_of(home, notes))


def _note(home: Path, path: Path) -> None:
    mounts = list(_mounts())
    point, kind = _mount_of(home, mounts)
    if kind in _PASSING or _mount_of(path, mounts)[0] == point:
        path.unlink(missing_ok=True)
        return
    told = f"{point}\n{home}\n"
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == told:
            return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, _NOTE, 0o600)
    try:
        os.write(fd, told.encode())
    finally:
        os.close(fd)


def _note_of(home: Path, notes: Path | None) -> Path:
    return (notes or notes_folder()) / hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:16]


def _noted(home: Path, notes: Path | None) -> tuple[str, Path] | None:
    try:
        path = _note_of(home, notes)
        point = path.read_text().partition("\n")[0]
    except (OSError, KeyError, ValueError):
        return None
    return (point, path) if point.startswith("/") else None


def _mounts() -> Iterator[tuple[str, str]]:
    """(mount point, kind of file system), in the order of mounting."""
    for line in _MOUNTED.read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        yield _plain(before.split(" ")[4]), after.partition(" ")[0]


def _points_in(fstab: Path) -> Iterator[str]:
    try:
        lines = fstab.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) > 2 and not line.lstrip().startswith("#") and fields[1].startswith("/"):
            yield _plain(fields[1]).rstrip("/") or "/"


def _plain(written: str) -> str:
    """Both files write blanks, tabs, line ends and backslashes as octal numbers."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        written = written.replace(octal, character)
    return written


def _is_below(path: Path, point: str) -> bool:
    places = (str(path.absolute()), os.path.realpath(path))
    return any(place == point or place.startswith(point.rstrip("/") + "/") for place in places)


def _mount_of(path: Path, mounts: list[tuple[str, str]]) -> tuple[str, str]:
    real = Path(os.path.realpath(path))
    found = [(point, kind) for point, kind in mounts if _is_below(real, point)]
    # Of several on one point the last one hides the others.
    return max(enumerate(found), key=lambda each: (len(each[1][0]), each[0]), default=(0, ("/", "")))[1]

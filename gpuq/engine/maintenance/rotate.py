"""The logs in the home, kept small: `daemon.log` and `supervisors.log`, each with a few older pieces beside it.

The daemon's own log is renamed, and what this process writes goes to a new file in the same instant: no line is lost,
whenever it is killed. The other one is held open by supervisors that live as long as their jobs and cannot be told.
They append, so it is copied and then emptied: a kill in between leaves a piece twice, and only what is written in the
instant between the last look and the emptying is in neither.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 10 * 2**20
PIECES = 3
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_STDOUT, _STDERR = 1, 2


def rotate(home: Path) -> None:
    """Both, if they have grown. Raises OSError; then they are as they were, and the next time does it."""
    rename_away(home / "daemon.log", (_STDOUT, _STDERR))
    copy_away(home / "supervisors.log")


def rename_away(path: Path, ours: tuple[int, ...]) -> None:
    """`ours`: descriptors of this process; those that write to this file write to the new one then. Without any, the
    file is somebody else's and left alone."""
    status = _grown(path)
    if status is None:
        return
    here = [fd for fd in ours if os.path.samestat(os.fstat(fd), status)]
    if not here:
        return
    # Made first: where there is no room for it, everything goes on as before.
    fresh = path.with_name(f"{path.name}.new")
    fd = os.open(fresh, _APPEND, 0o600)
    try:
        _make_way(path)
        path.rename(_piece(path, 1))
        fresh.rename(path)
        for target in here:
            os.dup2(fd, target)
    finally:
        os.close(fd)


def copy_away(path: Path) -> None:
    """The newest `MAX_BYTES` of it become a piece, and the file is empty for whoever appends to it."""
    if _grown(path) is None:
        return
    copy = path.with_name(f"{path.name}.new")
    copy.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with open(os.open(copy, _APPEND, 0o600), "wb", buffering=0) as piece:
            place = max(0, os.fstat(fd).st_size - MAX_BYTES)
            while data := os.pread(fd, 1 << 16, place):
                piece.write(data)
                place += len(data)
            os.fsync(piece.fileno())
            _make_way(path)
            copy.rename(_piece(path, 1))
            # What was written meanwhile belongs to it, too.
            while data := os.pread(fd, 1 << 16, place):
                piece.write(data)
                place += len(data)
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def start_anew(path: Path) -> None:
    """Before a process opens it: a log that has grown becomes a piece. Raises OSError."""
    if _grown(path) is not None:
        _make_way(path)
        path.rename(_piece(path, 1))


def _grown(path: Path) -> os.stat_result | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status if status.st_size > MAX_BYTES else None


def _make_way(path: Path) -> None:
    for number in range(PIECES - 1, 0, -1):
        with suppress(FileNotFoundError):
            _piece(path, number).rename(_piece(path, number + 1))


def _piece(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")

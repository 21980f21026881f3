"""The attempt folder: what its files are called, and how they are read and written.

    spec.json      what to run                                      daemon, before the launch
    lock           held (flock) by the supervisor for life          liveness
    control        FIFO; any line in it means "read stop.json", or
                   is the request itself if the disk took no file   whoever stops the job
    stop.json      the request to stop, may be rewritten            whoever stops the job
    started.json   who runs: process ids with their start times     supervisor
    progress.json  how far it is                                    the job itself
    exit.json      the true end, durable                            supervisor, once, last
    output.log     stdout and stderr                                the job itself

Under root the job's user may create files in the folder (it is sticky), so nothing in it is trusted by its
name: links are not followed, and a record counts only when the folder's owner or root wrote it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat

SPEC = "spec.json"
LOCK = "lock"
CONTROL = "control"
STOP = "stop.json"
STARTED = "started.json"
PROGRESS = "progress.json"
EXIT = "exit.json"
LOG = "output.log"

SCHEMA = 1
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# The plain C scanner: json.loads looks at much more memory, which a forked process has to copy.
_decode = json.JSONDecoder().raw_decode
_MAX_RECORD = 64 * 1024 * 1024
# What anybody may write is looked at with every listing.
_MAX_BY_ANYONE = 64 * 1024


def write(run_dir: str, name: str, record: dict[str, object]) -> None:
    """Replaces a record as a whole, also after a power cut: a reader sees the old one or the new one.

    Raises OSError (disk full, folder gone); then the old record still stands.
    """
    target = os.path.join(run_dir, name)
    temporary = os.path.join(run_dir, f".{name}.{os.urandom(6).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            _hand_to_owner(fd, run_dir)
            _write_all(fd, json.dumps(record).encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        _move_over(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(run_dir)


def create(run_dir: str, name: str, record: dict[str, object]) -> None:
    """Writes a record for the first and only time, without durability: who reads it too early, or after a crash in
    the middle, finds none. Raises OSError, FileExistsError when there is one."""
    path = os.path.join(run_dir, name)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(fd, json.dumps(record).encode())
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def read(run_dir: str, name: str, *, by_anyone: bool = False) -> dict[str, object] | None:
    """A record; None when it is missing, torn, not an object, or not written by the folder's owner or root.

    `by_anyone` is for what the job's user writes (`PROGRESS`): 64 KiB at most. Raises OSError when it cannot be known.
    """
    try:
        fd = os.open(os.path.join(run_dir, name), _READ_FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        seen = os.fstat(fd)
        most = _MAX_BY_ANYONE if by_anyone else _MAX_RECORD
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > most:
            return None
        if not by_anyone and seen.st_uid not in (0, os.stat(run_dir).st_uid):
            return None
        data = _read_all(fd, most)
    finally:
        os.close(fd)
    return parsed(data) if len(data) <= most else None


def parsed(data: bytes) -> dict[str, object] | None:
    """None when it is torn, not an object, or nested deeper than the decoder goes."""
    try:
        record, _ = _decode(data.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def number(record: dict[str, object], key: str) -> float | None:
    """A finite number of a record, whatever else may stand there."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 1e18 else None


def integer(record: dict[str, object], key: str) -> int | None:
    """A field of a record; None when it is absent or not a whole number."""
    value = record.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(record: dict[str, object], key: str) -> str | None:
    """A field of a record; None when it is absent or not text."""
    value = record.get(key)
    return value if isinstance(value, str) else None


def line(record: dict[str, object]) -> bytes:
    """A record for a pipe, short enough for one write that nothing can tear."""
    return json.dumps(record).encode() + b"\n"


def sync_folder(path: str) -> None:
    """Makes what was renamed or created in the folder survive a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _hand_to_owner(fd: int, run_dir: str) -> None:
    """What root writes into another's folder (a cancel from a root shell) must be readable for its supervisor."""
    if os.geteuid() == 0:
        owner = os.stat(run_dir)
        if owner.st_uid != 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)


def _move_over(temporary: str, target: str) -> None:
    try:
        os.rename(temporary, target)
    except IsADirectoryError:
        # A job may make a folder of that name in its way; that must not keep the true end from being written.
        os.rename(target, f"{target}.moved-{os.urandom(6).hex()}")
        os.rename(temporary, target)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_all(fd: int, most: int) -> bytes:
    """To its end, or little more than `most` bytes of what grows meanwhile."""
    parts, left = [], most + 1
    while left > 0 and (part := os.read(fd, min(left, 1 << 16))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)

"""The files in which calls travel: in a folder of the user's own, 0700, each 0600, durable before its job is queued."""

from __future__ import annotations

import contextlib
import os
import stat
import time

from gpuq.errors import UsageError

_SUFFIX = ".call"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Of a call that did not succeed: it may be retried by hand. What succeeded is removed at once.
KEPT_S = 90 * 86400.0
MOST_BYTES = 256 * 2**20


def folder(home: str) -> str:
    """Where this user's calls are: in `home`, the client's, if it is the user's own, else in the user's default home.
    Raises UsageError when neither can be used."""
    uid = os.geteuid()
    for base in (home, os.path.expanduser("~/.local/share/gpuq")):
        path = os.path.join(base, "calls")
        try:
            if os.path.exists(base) and os.stat(base).st_uid != uid:
                continue
            os.makedirs(base, mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            seen = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISDIR(seen.st_mode) and seen.st_uid == uid and not seen.st_mode & 0o022:
            return path
    raise UsageError(
        "there is no folder of your own for calls", hint="set HOME or GPUQ_HOME to a folder that only you may write"
    )


def write(home: str, data: bytes) -> str:
    """The path of a new file that holds it. Raises UsageError for too much of it, OSError when it cannot be written."""
    if len(data) > MOST_BYTES:
        raise UsageError(
            f"the call has {len(data) // 2**20} MiB with its arguments, more than {MOST_BYTES // 2**20}",
            hint="write the data to a file and pass its path",
        )
    where = folder(home)
    _forget_old(where)
    path = os.path.join(where, os.urandom(16).hex() + _SUFFIX)
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return path


def read(path: str) -> bytes:
    """Raises UsageError for anything but a private file of this user's, and OSError."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        raise UsageError(
            f"the call is not there any more: {path}", hint="submit it again; calls are kept for 90 days"
        ) from None
    with open(fd, "rb") as file:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
            raise UsageError(f"{path} is no private file of yours", hint="submit the call again")
        return file.read()


def remove(path: str) -> None:
    """What a call needed; it succeeded, so nobody runs it again."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def _forget_old(where: str) -> None:
    # Asked for with one call in some hundred only.
    if os.urandom(1)[0] >= 3:
        return
    before = time.time() - KEPT_S
    with contextlib.suppress(OSError), os.scandir(where) as found:
        for entry in found:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(entry.path)

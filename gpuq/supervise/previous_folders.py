"""Closes the folders that a root daemon of the previous release left open to others.

Its checkpoints could be read by everybody, and output by all users with the primary group of the job's. Its attempts
had one folder each (see `bundle`), to which the job's user had access by that group: it is closed when the attempt has
ended.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable

from gpuq.supervise import bundle

_PASSAGE = 0o711
# How the previous release gave an attempt's folder, which was root's, to the group of the job's user.
_SHARED = 0o1770
_LOG = stat.S_IFREG | 0o660


def close(jobs: str, alive: Callable[[str], bool]) -> None:
    """Does nothing once all are closed: `jobs` itself, which was open too, comes last. `alive` tells of an attempt's
    folder whether it runs. Raises OSError."""
    if os.geteuid() != 0 or not os.stat(jobs).st_mode & 0o044:
        return
    with os.scandir(jobs) as found:
        running = [_close_job(job.path, alive) for job in found if job.is_dir(follow_symlinks=False)]
    if not any(running):
        os.chmod(jobs, _PASSAGE)


def _close_job(job: str, alive: Callable[[str], bool]) -> bool:
    """Whether an attempt of that release still runs there."""
    running = False
    with os.scandir(job) as found:
        for folder in found:
            # The job's folder is root's, so what it has is what gpuq made there.
            mode = folder.stat(follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                continue
            if folder.name == "checkpoint" and mode & 0o077:
                os.chmod(folder.path, 0o700)
            elif stat.S_IMODE(mode) == _SHARED and alive(folder.path):
                running = True
            elif stat.S_IMODE(mode) == _SHARED:
                _close_attempt(folder.path)
    os.chmod(job, _PASSAGE)
    return running


def _close_attempt(folder: str) -> None:
    """It stays root's, for what is in it is believed; the output becomes its user's."""
    spec = bundle.read(folder, bundle.SPEC)
    uid = None if spec is None else spec.get("uid")
    with contextlib.suppress(OSError):
        fd = os.open(os.path.join(folder, bundle.LOG), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            seen = os.fstat(fd)
            # Nothing else is given away: the user could add names here, also of files that are root's.
            if (seen.st_mode, seen.st_uid, seen.st_nlink) == (_LOG, 0, 1) and isinstance(uid, int):
                os.fchown(fd, uid, -1)
                os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
    os.chmod(folder, _PASSAGE)

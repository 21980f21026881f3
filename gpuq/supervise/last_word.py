"""Writing the end of an attempt down, wherever its folder went meanwhile.

Nothing that a job or its user can delete keeps the true end from being recorded. Where the folder of the records was
removed it is made again, in the folder of all attempts of this home; while that one is away (its volume was renamed or
unmounted) or takes nothing, the end is kept in memory and tried again.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from gpuq import user_files
from gpuq.supervise import bundle, in_place, kernel

_RETRY_S = 0.05
_RETRY_MAX_S = 15.0
# A home that is away for longer is not expected back.
AWAY_S = 12 * 3600.0
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN)


class HomeGone(Exception):
    """The folder of all attempts was deleted: there is nobody any more who would read an end."""


class JobsFolder:
    """`jobs` in GPUQ_HOME, as it was when `open` was called; without that no folder is made again."""

    def __init__(self) -> None:
        self._path = ""
        self._fd = -1

    def open(self, path: str) -> None:
        """Raises nothing: where it cannot be opened, what its attempts lose stays lost."""
        try:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        self._path = path

    def restore(self, records: str) -> bool:
        """Makes the folder of an attempt's records again. False while the home is away. Raises HomeGone, and OSError
        when it is there and cannot be written in."""
        if self._fd < 0 or os.path.dirname(os.path.dirname(records)) != self._path:
            raise HomeGone
        ours = os.fstat(self._fd)
        try:
            there = os.stat(self._path)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            if ours.st_nlink == 0:
                raise HomeGone from None
            return False
        # Another one in its place, while ours is elsewhere: the mount point below a volume that is not mounted now.
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) and ours.st_nlink > 0:
            return False
        user_files.make_private(records)
        return True


# Of the home whose fork server this process is, or was forked by. Opened before the first fork.
JOBS = JobsFolder()


def write_end(records: str, record: dict[str, object], *, durable: bool = True) -> bool:
    """Whether the exit record is written now, `durable` or not, or not wanted: the attempt was taken over. Raises
    HomeGone, and OSError when the disk does not take it."""
    if bundle.taken_over(records):
        return True
    for left in (True, False):
        try:
            if durable:
                bundle.write(records, bundle.EXIT, record)
            else:
                in_place.fill(records, bundle.EXIT, record)
        except (FileNotFoundError, NotADirectoryError):
            if not left or not JOBS.restore(records):
                return False
        else:
            return True
    return False


def record_end(
    records: str,
    record: dict[str, object],
    log_fd: int | None = None,
    tell: Callable[[bytes], object] | None = None,
    *,
    durable: bool = True,
) -> None:
    """Returns when the exit record is written, however long a full disk makes it wait: the lock is held, and so nobody
    takes the attempt for dead. Gives up only when the home was deleted, or was away for twelve hours.

    What cannot be written at once is given to `tell`, as a line. The log is let go then, whose blocks stay taken as
    long as somebody has it open, even when it was deleted to make room.
    """
    pause, away_since = 0.0, None
    while True:
        try:
            if write_end(records, record, durable=durable):
                return
            away_since = away_since or kernel.since_boot()
        except HomeGone:
            if tell is not None and not pause:
                tell(bundle.line(record))
            return
        except OSError:
            away_since = None
        if away_since is not None and kernel.since_boot() - away_since > AWAY_S:
            return
        if not pause and tell is not None:
            tell(bundle.line(record))
        if log_fd is not None:
            # 0 is /dev/null, by the fork server.
            os.dup2(0, log_fd, inheritable=False)
        pause = min(pause * 2, _RETRY_MAX_S) or _RETRY_S
        time.sleep(pause)

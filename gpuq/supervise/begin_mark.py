"""Whether the program of an attempt may have existed: until then it was not even tried, and nobody is charged."""

from __future__ import annotations

import contextlib
import os

from gpuq.supervise import bundle


def put(lock_fd: int) -> None:
    """By a supervisor, when its job's program may exist from now on. The length of the lock file, since that takes no
    room on a disk that may be full, and no name."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock_fd, 1)


def is_set(lock_fd: int) -> bool:
    """Whether `put` was called."""
    return os.fstat(lock_fd).st_size > 0


def was_set(run_dir: str) -> bool:
    """Whether `put` was called for this attempt, whoever holds its lock now. Raises OSError when it cannot be
    known."""
    try:
        return os.lstat(os.path.join(bundle.records_of(run_dir), bundle.LOCK)).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False

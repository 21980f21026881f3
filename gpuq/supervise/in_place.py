"""Records in files that may be there already, empty, because their folder was used before (see spares.py)."""

from __future__ import annotations

import json
import os


def fill(folder: str, name: str, record: dict[str, object]) -> None:
    """As `create`, into the empty file of that name where there is one. Raises OSError; then no record is there."""
    fd = os.open(
        os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            data = json.dumps(record).encode()
            while data:
                data = data[os.write(fd, data) :]
        except BaseException:
            os.ftruncate(fd, 0)
            raise
    finally:
        os.close(fd)


def is_written(folder: str, name: str) -> bool:
    """Whether there is anything in a record, true or not. Raises OSError when it cannot be known."""
    try:
        return os.lstat(os.path.join(folder, name)).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False

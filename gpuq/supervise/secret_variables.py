"""Variables of a job on their way from the daemon to its supervisor: in memory that has no name and is on no disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping


def hand_over(secrets: Mapping[str, str]) -> int:
    """A descriptor that holds them, to be sent and closed. Raises OSError."""
    fd = os.memfd_create("gpuq-secrets", os.MFD_CLOEXEC)
    try:
        data = json.dumps(dict(secrets)).encode()
        while data:
            data = data[os.write(fd, data) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def take(fd: int) -> dict[str, str]:
    """What the descriptor holds, which is closed; nothing for -1. Raises OSError, ValueError."""
    if fd < 0:
        return {}
    try:
        # Its offset is that of the daemon's copy, which has written to the end.
        data = os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
    found = json.loads(data)
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}

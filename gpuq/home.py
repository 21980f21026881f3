"""The folder of one installation, GPUQ_HOME: whose it has to be, and who may change what is in it."""

from __future__ import annotations

import os
from pathlib import Path

from gpuq import mounts
from gpuq.errors import ConfigError, DatabaseUnavailable, Refused

# What every home has that was used; see `gpuq.engine.home_mark`.
MARK = "installation.json"


def prepare_home(home: Path) -> None:
    """Makes the home (0700; 0755 for root, whose users reach their own folders in it) and refuses another's, and one of
    root's that others may change. Raises ConfigError and Refused; DatabaseUnavailable where it would be made below the
    mount point of a disk that is not mounted."""
    if not os.path.lexists(home / MARK):
        _refuse_below_a_disk(home)
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


def _refuse_below_a_disk(home: Path) -> None:
    """Of a home that looks new."""
    if (found := mounts.not_mounted(home)) is None:
        return
    point, source = found
    otherwise = f"take its line out of {source}" if source == mounts.FSTAB else f"rm {source}"
    raise DatabaseUnavailable(
        f"the disk of {point} is not mounted, and {home} is on it: what is queued now would be lost when it is",
        hint=f"mount {point} and try again; if gpuq is meant to begin anew without that disk: {otherwise}",
    )

"""The machine's address, /run/gpuq/gpuq.sock: a second socket of root's daemon, which every user's command finds.

Clients trust it because only root can make anything in its folder. One daemon has it; the lock beside it says which.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from gpuq import config_file
from gpuq.engine.file_lock import FileLock
from gpuq.errors import AlreadyRunning, Refused
from gpuq.settings import Settings

log = logging.getLogger(__name__)


def is_for(settings: Settings) -> bool:
    """Whether a daemon of these settings is the machine's: root's, in the machine's home or with the machine's GPUs.
    Not one that root tries things out with: on simulated GPUs elsewhere, or with settings from another file."""
    if os.geteuid() != 0:
        return False
    if os.fspath(settings.home) == config_file.MACHINE_HOME:
        return True
    if os.environ.get("GPUQ_CONFIG"):
        return False
    said = config_file.read_config(config_file.MACHINE_FILE)
    return settings.gpus == "nvml" or said.get("home") == os.fspath(settings.home)


def listen(path: Path, bind: Callable[[Path], socket.socket]) -> tuple[socket.socket, Callable[[], None]] | None:
    """The listening socket, and what removes it at the end. None where it cannot be had, which the log tells: the
    daemon serves its own home all the same. `bind` makes a socket at a path."""
    try:
        _prepare(path.parent)
        lock = FileLock(path.with_name("daemon.lock"), "the machine's daemon")
        lock.acquire()
    except AlreadyRunning as error:
        log.warning("%s is another daemon's: %s; users reach this one only at its own socket", path, error.message)
        return None
    except (OSError, Refused) as error:
        log.warning("users do not find this daemon by themselves: %s cannot be made: %s", path, error)
        return None
    try:
        listener = bind(path)
    except Refused as error:
        lock.release()
        log.warning("users do not find this daemon by themselves: %s", error.message)
        return None

    def remove() -> None:
        # Still under the lock, so it is ours.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()

    return listener, remove


def _prepare(folder: Path) -> None:
    """Raises Refused for a folder that others than root can change, OSError where it cannot be made."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o755)
        # Whatever the mask.
        folder.chmod(0o755)
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != 0 or seen.st_mode & 0o022:
        raise Refused(f"{folder} is no folder that root alone can change", hint=f"remove {folder}")

"""The job's own folder (GPUQ_RUN_DIR): made by the daemon, given to the job's user, and never trusted again."""

from __future__ import annotations

import errno
import os
import pwd
from typing import Any

from gpuq import user_files
from gpuq.domain.batch_script import KEPT_AS
from gpuq.supervise import bundle

_NEW_LOG = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


_NEW_SCRIPT = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def make(run_dir: str, uid: int | None, gid: int | None, script: str | None = None) -> int:
    """The folder with an empty log and the job's batch script, if it has one, all of them the user's alone; returns the
    log's descriptor, for appending.

    Raises OSError, FileExistsError when a launch has made it before.
    """
    if not user_files.make_private(run_dir) and os.lstat(run_dir).st_uid != os.geteuid():
        raise FileExistsError(errno.EEXIST, "this attempt was launched before", run_dir)
    # The user cannot enter the folder before it is handed over, so that nothing stands in the way of the log.
    fd = os.open(os.path.join(run_dir, bundle.LOG), _NEW_LOG, 0o600)
    try:
        user_files.hand_over(fd, uid, gid)
        if script is not None:
            _write_script(os.path.join(run_dir, KEPT_AS), script, uid, gid)
        user_files.hand_over(run_dir, uid, gid)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_script(path: str, script: str, uid: int | None, gid: int | None) -> None:
    with open(os.open(path, _NEW_SCRIPT, 0o700), "wb") as file:
        file.write(script.encode("utf-8", "surrogatepass"))
        os.fchmod(file.fileno(), 0o700)
        user_files.hand_over(file.fileno(), uid, gid)


def _group_of(spec: dict[str, Any]) -> int:
    uid = int(spec["uid"])
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def with_group(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec that names a user names a group, too: else the primary one, or that of the same number."""
    if spec.get("uid") is None or spec.get("gid") is not None:
        return spec
    return {**spec, "gid": _group_of(spec)}

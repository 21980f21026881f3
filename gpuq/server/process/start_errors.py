"""What kept a daemon from starting, where it is a file or a limit of this machine: one line, and the next step."""

from __future__ import annotations

import errno
import os

from gpuq.errors import GpuqError

_DOCTOR = "`gpuq doctor` looks into it"
_FULL = "make room on that disk, then start it again"
_WRONG_KIND = "something else stands in its place: move that away, and it is made anew"
_FILES = "allow more open files: `ulimit -n`, or LimitNOFILE= of the unit"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "that file system takes no writes: mount it for writing, or set GPUQ_HOME to a folder on another one",
    errno.EISDIR: _WRONG_KIND,
    errno.ENOTDIR: _WRONG_KIND,
    errno.EEXIST: _WRONG_KIND,
    errno.ELOOP: "a link leads nowhere: move it away, or set GPUQ_HOME to a folder without one",
    errno.ENAMETOOLONG: "set GPUQ_HOME to a shorter path",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EAGAIN: "as many processes run as are allowed: see `ulimit -u`, and TasksMax= of the unit",
    errno.ENOMEM: "this machine has no memory left: see what takes it (`free`), then start it again",
    errno.EIO: "the disk fails: see `dmesg`, and set GPUQ_HOME to a folder on another one",
    errno.ESTALE: "its file server has lost it: mount it anew, or set GPUQ_HOME to a folder on a local disk",
    errno.ENOLCK: "that file system has no locks: set GPUQ_HOME to a folder on a local disk",
}


def of_system(error: OSError) -> GpuqError:
    """The error of a system call during the start."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    hint = _HINTS.get(error.errno or 0, _DOCTOR)
    if error.errno in {errno.EACCES, errno.EPERM}:
        name = where.removesuffix(": ") or "the home"
        hint = f"{name} and its folder have to be yours (you are uid {os.geteuid()}): see `ls -l`, or set GPUQ_HOME"
    return GpuqError(f"the daemon cannot start: {where}{error.strerror or error}", hint=hint)

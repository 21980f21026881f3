"""Folders that belong to a job's user, and how a daemon that may be root's looks into them.

Whoever owns a folder may put anything there under any name: a link to a file that only root may read, a pipe that
never answers, a file of somebody else. So nothing in such a folder is opened by its path alone: see `open_file`.

Supervisors start with nothing but the standard library (`python -I -S`), so nothing else is imported here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

# What stands above the folders of users: they pass through it, and make and see no name in it.
_PASSAGE = 0o711
_PRIVATE = 0o700
_LOOK_AT_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe waits for its writer, and a file for whoever holds a lease on it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437
_RESOLVE_NO_XDEV = 0x01
# Older kernels do not know the call, and some sandboxes refuse every call that they do not know.
_NO_OPENAT2 = (errno.ENOSYS, errno.EPERM)


class OverQuota(PermissionError):
    """The job's user has no disk quota left: proof that a launch fails for this user's jobs alone."""


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def owner_of_job(uid: int | None) -> int:
    """The uid to which the files and processes of a job belong. `uid`: its submitter's, None for one without an account
    here. Only root can give something to another user."""
    own = os.geteuid()
    return uid if own == 0 and uid is not None else own


def make_passage(path: str) -> None:
    """Makes a folder in which users have folders and which they cannot change (0711), and those above it that are
    missing. One that is there and that others may change, as under a umask of 0 once, is closed. Raises OSError."""
    try:
        os.mkdir(path, _PASSAGE)
    except FileExistsError:
        seen = os.stat(path)
        if not seen.st_mode & 0o022 or seen.st_uid != os.geteuid():
            return
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent == path:
            raise
        make_passage(parent)
        make_passage(path)
        return
    # Of what was just made, the umask has taken something off.
    os.chmod(path, _PASSAGE)


def make_private(path: str) -> bool:
    """Makes a folder that is this process's alone (0700), and the passage to it. False when a folder of that name is
    there already. Anything else in its place, or a file in that of the passage, the job's folder, is moved aside: it
    would keep this job from starting or ending, and others behind it. Raises OSError."""
    try:
        os.mkdir(path, _PRIVATE)
    except FileExistsError:
        if os.path.isdir(path) or not _move_aside(path):
            return False
        os.mkdir(path, _PRIVATE)
    except (FileNotFoundError, NotADirectoryError) as error:
        passage = os.path.dirname(path)
        if isinstance(error, NotADirectoryError) and not os.path.islink(passage):
            _move_aside(passage)
        make_passage(passage)
        os.mkdir(path, _PRIVATE)
    return True


def _move_aside(path: str) -> bool:
    """Renames what is no folder, within the folder that it is in, wherever that is moved meanwhile. False when a folder
    is there by now. Raises OSError, also when it is reached through a link."""
    parent, name = os.path.split(path)
    parent_fd = os.open(parent, _LOOK_AT_FOLDER)
    try:
        if _is_folder(name, parent_fd):
            return False
        aside = f"{name}.moved-{os.urandom(6).hex()}"
        os.rename(name, aside, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
        if not _is_folder(aside, parent_fd):
            return True
        # Somebody else has done the same, and has made the folder since.
        os.rename(aside, name, src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
        return False
    finally:
        os.close(parent_fd)


def _is_folder(name: str, parent_fd: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode)


def hand_over(made: str | int, uid: int | None, gid: int | None) -> None:
    """Gives what this process has made, a path or a descriptor, to the job's user. Raises OSError; OverQuota when that
    user has no disk quota left, for then only this job cannot be launched."""
    owner = owner_of_job(uid)
    if owner == os.geteuid():
        return
    group = -1 if gid is None else gid
    try:
        if isinstance(made, int):
            os.fchown(made, owner, group)
        else:
            os.chown(made, owner, group, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EDQUOT:
            raise OverQuota(errno.EPERM, f"user {owner} has used up the disk quota; make room") from None
        raise


def open_file(folder: str, name: str, uid: int | None) -> int:
    """A descriptor for reading the file `name` in a folder of a job of user `uid`; the folder's own parent must be one
    that this user cannot change.

    Raises OSError when there is no such file, and when what is there is not a regular file, has another name besides,
    is reached through a link or another file system, or belongs to anybody else. Never waits.
    """
    owner = owner_of_job(uid)
    parent, base = os.path.split(folder)
    parent_fd = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folder_fd = open_below(parent_fd, base, _LOOK_AT_FOLDER)
    finally:
        os.close(parent_fd)
    try:
        owners = {owner}
        # A folder of ours in which the user may only add names, as the previous release made it: what is ours there
        # was put there by us.
        if os.fstat(folder_fd).st_uid == os.geteuid():
            owners.add(os.geteuid())
        fd = open_below(folder_fd, name, _READ)
    finally:
        os.close(folder_fd)
    seen = os.fstat(fd)
    if not stat.S_ISREG(seen.st_mode) or seen.st_nlink > 1 or seen.st_uid not in owners:
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "no file of the job's user", os.path.join(folder, name))
    return fd


def open_below(folder_fd: int, name: str, flags: int) -> int:
    """A descriptor of `name` in this folder. Where the kernel can tell, not on another file system: a user may have
    mounted one that never answers. Raises OSError."""
    how = _OpenHow(flags, 0, _RESOLVE_NO_XDEV)
    fd = int(_libc.syscall(_OPENAT2, folder_fd, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how)))
    if fd >= 0:
        return fd
    code = ctypes.get_errno()
    if code in _NO_OPENAT2:
        return os.open(name, flags, dir_fd=folder_fd)
    raise OSError(code, os.strerror(code), name)

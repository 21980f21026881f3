"""Whole folders that belonged to jobs: how much of the disk they take, and their removal.

A user may change what is in such a folder at any moment, and root walks through it. So no path is ever followed: each
name is opened in the folder that is open already, a link is removed and not followed, another file system is not
entered, and a folder is taken from its user before it is emptied, so that nothing is added behind the broom. Its parent
must be one that the user cannot change.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from gpuq.user_files import open_below

_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512
# Folders in one another that are held open at once. What lies deeper is not counted, and moved up before it is removed.
_DEEPEST = 40
_NAMES_AT_ONCE = 1000


class Budget:
    """How many names may be looked at or removed before the rest waits for another time. `pause` is called after each
    `PAUSE_AFTER` of them: removing thousands of files in one go keeps a disk, and this process, from everything else.
    It returns True when there is to be no more."""

    PAUSE_AFTER = 200

    def __init__(self, names: int, pause: Callable[[], bool] | None = None) -> None:
        self.left = names
        self._pause = pause
        self._until_pause = self.PAUSE_AFTER

    @property
    def spent(self) -> bool:
        return self.left <= 0

    def take(self) -> bool:
        """False when nothing is left."""
        if self.left <= 0:
            return False
        self.left -= 1
        self._until_pause -= 1
        if self._until_pause <= 0:
            self._until_pause = self.PAUSE_AFTER
            if self._pause is not None and self._pause():
                self.left = 0
        return True


def measure(parent: str, name: str, budget: Budget) -> int:
    """Bytes of the blocks that the folder `name` in `parent` has on the disk, with all that is in it; a file with
    several names there counts once. 0 when there is none. Of what is deeper or more than the budget allows, only the
    beginning counts; so do folders that cannot be read. Raises OSError for a `parent` that cannot be opened."""
    try:
        parent_fd = os.open(parent, _LOOK)
    except FileNotFoundError:
        return 0
    try:
        return _measured(parent_fd, name, budget, set(), _DEEPEST)
    finally:
        os.close(parent_fd)


def _measured(folder_fd: int, name: str, budget: Budget, seen: set[tuple[int, int]], deeper: int) -> int:
    try:
        fd = open_below(folder_fd, name, _LIST)
    except OSError:
        return 0
    try:
        total = os.fstat(fd).st_blocks * _BLOCK
        with os.scandir(fd) as found:
            for entry in found:
                if not budget.take():
                    break
                total += _entry(fd, entry, budget, seen, deeper)
    except OSError:
        return total
    finally:
        os.close(fd)
    return total


def _entry(fd: int, entry: os.DirEntry[str], budget: Budget, seen: set[tuple[int, int]], deeper: int) -> int:
    if entry.is_dir(follow_symlinks=False):
        return _measured(fd, entry.name, budget, seen, deeper - 1) if deeper else 0
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if status.st_nlink > 1:
        if (status.st_dev, status.st_ino) in seen:
            return 0
        seen.add((status.st_dev, status.st_ino))
    return status.st_blocks * _BLOCK


def remove(parent: str, name: str, budget: Budget, owner: int) -> tuple[bool, int]:
    """Removes the folder `name` in `parent` with all that is in it. Whether nothing of it is left, and the bytes of
    blocks that came free; not the whole when the budget is spent first: call it again. `owner`: the uid of the user who
    had it.

    Raises OSError when something cannot be removed: it is on another file system, cannot be changed, or may be somebody
    else's folder that this user has moved here.
    """
    try:
        parent_fd = os.open(parent, _LOOK)
    except FileNotFoundError:
        return True, 0
    try:
        return _remove_in(parent_fd, name, budget, owner)
    finally:
        os.close(parent_fd)


def _remove_in(parent_fd: int, name: str, budget: Budget, owner: int) -> tuple[bool, int]:
    if not budget.take():
        return False, 0
    try:
        fd = _seize(parent_fd, name, None)
    except FileNotFoundError:
        return True, 0
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
        freed = _blocks_if_last(parent_fd, name)
        os.unlink(name, dir_fd=parent_fd)
        return True, freed
    try:
        size = os.fstat(fd).st_blocks * _BLOCK
        done, freed = _Broom(fd, budget, owner).empty(fd, 0)
    finally:
        os.close(fd)
    if done:
        os.rmdir(name, dir_fd=parent_fd)
        freed += size
    return done, freed


def _seize(folder_fd: int, name: str, owner: int | None) -> int:
    """The folder, open for reading, and root's alone from now on if this is root: its user makes no name in it any
    more, also not through a descriptor that is open already. `owner`: it must not be one that this user could have
    moved here from somebody else, which takes the right to write in it."""
    look = open_below(folder_fd, name, _LOOK)
    try:
        status = os.fstat(look)
        if owner is not None and status.st_uid != owner and status.st_mode & 0o022:
            raise PermissionError(errno.EPERM, f"a folder that others may write belongs to uid {status.st_uid}", name)
        if os.geteuid() == 0 or status.st_mode & 0o700 != 0o700:
            itself = f"/proc/self/fd/{look}"
            if os.geteuid() == 0:
                os.chown(itself, 0, 0)
            os.chmod(itself, 0o700)
        return open_below(look, ".", _LIST)
    finally:
        os.close(look)


class _Broom:
    """`top_fd`: where a folder is moved that lies too deep to be entered."""

    def __init__(self, top_fd: int, budget: Budget, owner: int) -> None:
        self._top_fd = top_fd
        self._budget = budget
        self._owner = owner

    def empty(self, fd: int, depth: int) -> tuple[bool, int]:
        """Removes all names in the open folder: whether none is left, and the bytes that came free."""
        freed = 0
        while names := _some_names(fd):
            for name in names:
                if not self._budget.take():
                    return False, freed
                done, more = self._remove(fd, name, depth)
                freed += more
                if not done:
                    return False, freed
        return True, freed

    def _remove(self, fd: int, name: str, depth: int) -> tuple[bool, int]:
        freed = _blocks_if_last(fd, name)
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return True, 0
        except (IsADirectoryError, PermissionError):
            # POSIX says EPERM of a folder. Of anything else it is meant.
            if not _is_folder(fd, name):
                raise
        else:
            return True, freed
        if depth >= _DEEPEST:
            os.rename(name, f".moved-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=self._top_fd)
            return True, 0
        inner = _seize(fd, name, self._owner)
        try:
            done, more = self.empty(inner, depth + 1)
        finally:
            os.close(inner)
        if done:
            os.rmdir(name, dir_fd=fd)
        return done, more + (freed if done else 0)


def _some_names(fd: int) -> list[str]:
    """A folder may hold millions."""
    names: list[str] = []
    with os.scandir(fd) as found:
        for entry in found:
            names.append(entry.name)
            if len(names) >= _NAMES_AT_ONCE:
                break
    return names


def _blocks_if_last(fd: int, name: str) -> int:
    """What the removal of this name gives back."""
    with suppress(OSError):
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            return status.st_blocks * _BLOCK
    return 0


def _is_folder(fd: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)

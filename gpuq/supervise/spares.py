"""Folders that attempts no longer need, kept for later attempts instead of being deleted.

Some file systems (ext4 without a journal) look at every file that was deleted within the last minutes before they make
a new one: where each job deletes what it made, a launch soon takes ten times as long. Renaming costs less than making
and deleting even where that is not so.

They stand in the folder `.spare` of the jobs' folder, which is the daemon's alone. Records go there emptied: a folder
with a lock that nobody holds, a FIFO, and empty files. The checkpoint folder of a job goes there only if it is empty
and as it was made, under a name that says whose it is, and comes back only for a job of the same user.
"""

from __future__ import annotations

import collections
import contextlib
import os
import stat
import threading
import time
from typing import Any

from gpuq import user_files
from gpuq.supervise import bundle

FOLDER = ".spare"
# Of each kind and owner: about as many as end before as many others start.
_MOST = 64
_LOOK_AGAIN_S = 10.0
_RECORDS, _CHECKPOINT = "records", "checkpoint"
_EMPTIED = (bundle.LOCK, bundle.SPEC, bundle.STARTED, bundle.EXIT)
_EMPTY = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def put_records(records: str) -> None:
    """From an attempt that is over for good. Raises OSError; then they stand where they were, or nowhere."""
    for name in os.listdir(records):
        path = os.path.join(records, name)
        if name in _EMPTIED:
            os.close(os.open(path, _EMPTY))
        elif name != bundle.CONTROL:
            os.unlink(path)
    os.rename(records, spare_records(records))


def spare_records(records: str) -> str:
    """Where `put_records` puts them."""
    job, name = os.path.split(records)
    jobs, number = os.path.split(job)
    return f"{jobs}/{FOLDER}/{number}-{name.partition('.')[0]}.{_RECORDS}"


def put_checkpoint(folder: str) -> None:
    """Takes an empty checkpoint folder away from its job, which does not run. Does nothing when something is in it, or
    somebody has changed its rights; what comes into it in this moment comes back to its place."""
    with contextlib.suppress(OSError):
        seen = os.lstat(folder)
        if seen.st_mode != stat.S_IFDIR | 0o700 or seen.st_nlink > 2 or os.listdir(folder) or os.listxattr(folder):
            return
        spare = _spare_checkpoint(folder, f"{_CHECKPOINT}.{seen.st_uid}.{seen.st_gid}")
        os.rename(folder, spare)
        if os.listdir(spare):
            os.rename(spare, folder)


class SpareFolders:
    """The daemon's side: which folders stand there. Any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs = ""
        self._looked_at = 0.0
        self._names: dict[str, collections.deque[str]] = {}
        # Of attempts that run.
        self._lent: dict[str, tuple[str, str]] = {}

    def take_records(self, records: str) -> bool:
        """Whether `records`, a path in a folder that is there, is one of them now."""
        return self._take(records, _RECORDS)

    def take_checkpoint(self, folder: str, uid: int | None, gid: int | None) -> bool:
        """Whether `folder`, a path in a job's folder that was just made, is now one of this user's and group's."""
        return self._take(folder, _kind_of(uid, gid))

    def expect_records(self, records: str) -> bool:
        """Whether there is room for them: then somebody may put them there."""
        return self._note(spare_records(records), _RECORDS)

    def note_launch(self, run_dir: str, spec: dict[str, Any]) -> None:
        """The attempt of this spec may be handed over now."""
        if folder := spec.get("checkpoint_dir"):
            kind = _kind_of(spec.get("uid"), spec.get("gid"))
            self._lent[run_dir] = (_spare_checkpoint(folder, kind), kind)

    def note_over(self, run_dir: str) -> None:
        """Its supervisor has put the checkpoint folder there, unless the job has left something in it."""
        spare, kind = self._lent.pop(run_dir, ("", ""))
        if spare and not self._note(spare, kind):
            with contextlib.suppress(OSError):
                os.rmdir(spare)

    def _take(self, path: str, kind: str) -> bool:
        jobs = os.path.dirname(os.path.dirname(path))
        while (spare := self._next(jobs, kind)) is not None:
            try:
                os.rename(spare, path)
                return True
            except FileNotFoundError:
                # It is not there yet, or never comes. Should it come, it is found with the next look at the folder.
                continue
            except OSError:
                self._note(spare, kind)
                return False
        return False

    def _next(self, jobs: str, kind: str) -> str | None:
        names = self._of(jobs, kind)
        if not names and time.monotonic() - self._looked_at > _LOOK_AGAIN_S:
            self._jobs = ""
            names = self._of(jobs, kind)
        try:
            return names.popleft()
        except IndexError:
            return None

    def _note(self, spare: str, kind: str) -> bool:
        names = self._of(os.path.dirname(os.path.dirname(spare)), kind)
        if len(names) >= _MOST:
            return False
        names.append(spare)
        return True

    def _of(self, jobs: str, kind: str) -> collections.deque[str]:
        with self._lock:
            if jobs != self._jobs:
                self._jobs, self._names, self._looked_at = jobs, _found(os.path.join(jobs, FOLDER)), time.monotonic()
            return self._names.setdefault(kind, collections.deque())


def _kind_of(uid: int | None, gid: int | None) -> str:
    owner = user_files.owner_of_job(uid)
    group = os.getegid() if owner == os.geteuid() or gid is None else gid
    return f"{_CHECKPOINT}.{owner}.{group}"


def _spare_checkpoint(folder: str, kind: str) -> str:
    jobs, number = os.path.split(os.path.dirname(folder))
    return f"{jobs}/{FOLDER}/{number}.{kind}"


def _found(folder: str) -> dict[str, collections.deque[str]]:
    """What an earlier daemon has left there; makes the folder."""
    names: dict[str, collections.deque[str]] = {}
    with contextlib.suppress(OSError):
        user_files.make_private(folder)
        for name in os.listdir(folder):
            names.setdefault(name.partition(".")[2], collections.deque()).append(os.path.join(folder, name))
    return names

"""What the home remembers of its database, so that an older one in its place is recognised.

Two files in GPUQ_HOME:

    installation.json      which database this is; up to which id jobs may have been given theirs; the newest event and
                           job that were durable when it was written. Replaced whole and synced: at a start, every
                           minute in which something changed, and before an id beyond the reserved ones is given.
    installation.latest    the newest event and job, written in place after each commit and never synced.

The database is of the past when it does not have what is remembered here. That must never be said of a sound one:

- What is remembered is never ahead of SQL. Both files are written after the commit of what they name, and a commit is
  durable before it returns. A process killed between commit and note leaves the mark behind, which says nothing.
- After a power cut `installation.latest` holds what it held at some earlier moment, or nothing that can be read; it was
  behind SQL at every moment. It is less than a sector of a disk, so it is not torn; a torn one is not read.
- `ids_up_to` alone is ahead, as a reserve: nothing is judged by it. It says where numbers go on after a database of the
  past was taken on, so that an id whose job left no trace is not given again. A block of ids costs one fsync.
- The database gets its name in SQL first, then the home. A name in the home that SQL does not have is therefore the
  name of another database. A home without these files (of the release before, or new) believes the database.
- Processes that write to `installation.latest` at the same moment may set it back by some events: less is remembered.

On PostgreSQL sequences run ahead of what is durable, so only ids of rows that are committed are remembered. And no
statement there tells the number of an event that it writes: `installation.latest` knows of jobs, `installation.json` of
the events up to a minute ago.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gpuq.domain import failpoints
from gpuq.linux import lock_file
from gpuq.ports.records import Standing

log = logging.getLogger(__name__)

NAME = "installation.json"
LATEST = "installation.latest"
IDS_AHEAD = 5000
# When no more are left, maintenance reserves the next ones, so that no submission has to.
_FEW_IDS = IDS_AHEAD // 2
_LATEST = re.compile(rb"(\S{1,64}) (\d{18}) (\d{18})\n")


@dataclass(frozen=True, slots=True)
class Remembered:
    """`installation`: the name of the database. `last_event`, `last_job`: ids that it is known to have given durably;
    `ids_up_to`: job ids that may have been given."""

    installation: str
    last_event: int
    last_job: int
    ids_up_to: int


class HomeMark:
    """Of one home. Any thread; several processes may have one each."""

    def __init__(self, home: Path) -> None:
        self._path = home / NAME
        self._latest = home / LATEST
        self._lock_path = home / f"{NAME}.lock"
        self._mutex = threading.Lock()
        self._known: Remembered | None = None
        self._fd: int | None = None

    @property
    def known(self) -> Remembered | None:
        """What this process has read and noted; never ahead of the database."""
        return self._known

    def read(self) -> Remembered | None:
        """From both files; None when there is nothing that can be read. Raises OSError."""
        self._known = known = self._durable()
        if known is not None:
            self._known = known = self._with_latest(known)
        return known

    def is_in(self, folder: Path) -> bool:
        """Whether a mark of the same database stands in this folder."""
        try:
            stored = _stored(folder / NAME)
        except OSError:
            return False
        return stored is not None and self._known is not None and stored.installation == self._known.installation

    def take(self, installation: str, found: Standing) -> None:
        """This is the database from now on, whatever was remembered. Raises OSError."""
        with self._alone() as before:
            reserved = 0 if before is None or before.installation != installation else before.ids_up_to
            ids = max(reserved, found.last_job + IDS_AHEAD)
            self._write(Remembered(installation, found.committed_event, found.committed_job, ids))

    def keep(self, found: Standing) -> None:
        """Durable: this much was read of SQL. Costs a read when nothing has changed. Raises OSError."""
        known, last_event, last_job = self._known, found.committed_event, found.committed_job
        if known is None:
            return
        few = known.ids_up_to - found.last_job < _FEW_IDS
        stored = self._durable()
        if not few and stored is not None and (stored.last_event, stored.last_job) == (last_event, last_job):
            return
        with self._alone() as before:
            before = before or known
            if before.installation != known.installation:
                # Another process has taken another database on.
                return
            ids = max(before.ids_up_to, found.last_job + IDS_AHEAD) if few else before.ids_up_to
            event, job = max(before.last_event, last_event), max(before.last_job, last_job)
            self._write(Remembered(known.installation, event, job, ids))

    def reserve(self, last_job: int) -> None:
        """Before the commit that gives this id. A disk that does not take it keeps nobody from submitting."""
        if self._known is None or last_job <= self._known.ids_up_to:
            return
        try:
            with self._alone() as before:
                if before is not None and before.installation == self._known.installation:
                    self._write(replace(before, ids_up_to=max(before.ids_up_to, last_job + IDS_AHEAD)))
        except OSError as error:
            log.warning("the home does not remember that job ids up to %d are given: %s", last_job, error)

    def note(self, last_event: int | None, last_job: int | None) -> None:
        """After a commit, what it gave (None: nothing): a write into the page cache, which survives every kill."""
        with self._mutex:
            known = self._known
            if known is None or (last_event is None and last_job is None):
                return
            event, job = max(known.last_event, last_event or 0), max(known.last_job, last_job or 0)
            if (event, job) == (known.last_event, known.last_job):
                return
            self._known = replace(known, last_event=event, last_job=job)
            with contextlib.suppress(OSError):
                if self._fd is None:
                    self._fd = os.open(self._latest, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                os.pwrite(self._fd, f"{known.installation} {event:018d} {job:018d}\n".encode(), 0)

    def close(self) -> None:
        """May be called twice."""
        with self._mutex:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[Remembered | None]:
        """What is stored, which no other process changes meanwhile."""
        lock = lock_file(self._lock_path, wait=True)
        try:
            yield self._durable()
        finally:
            os.close(lock)

    def _durable(self) -> Remembered | None:
        return _stored(self._path)

    def _with_latest(self, known: Remembered) -> Remembered:
        try:
            found = _LATEST.fullmatch(self._latest.read_bytes())
        except FileNotFoundError:
            return known
        if found is None or found[1].decode() != known.installation:
            return known
        event, job = max(known.last_event, int(found[2])), max(known.last_job, int(found[3]))
        return replace(known, last_event=event, last_job=job)

    def _write(self, new: Remembered) -> None:
        draft = self._path.with_suffix(".draft")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps({"schema": 1, **asdict(new)}).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        failpoints.point("mark.drafted")
        draft.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        with self._mutex:
            known = self._known
            if known is not None and known.installation == new.installation:
                # What was noted meanwhile.
                event, job = max(known.last_event, new.last_event), max(known.last_job, new.last_job)
                new = replace(new, last_event=event, last_job=job)
            self._known = new


def _stored(path: Path) -> Remembered | None:
    try:
        read = json.loads(path.read_bytes())
        numbers = [int(read[name]) for name in ("last_event", "last_job", "ids_up_to")]
        return Remembered(str(read["installation"]), *numbers)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        log.warning("%s cannot be read: an older database in its place would not be noticed", path)
        return None

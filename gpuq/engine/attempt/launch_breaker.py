"""What keeps this machine from launching anything at all, a full disk for instance: no job's fault.

The job goes back to its place in line without using a retry, and nothing is claimed until the pause is over and a small
file can be written: so a long trouble costs one attempt a pause, not one a job.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from gpuq.domain.installation_keys import InstallationKey
from gpuq.engine.attempt import full_disk
from gpuq.engine.attempt.descriptors import AttemptRoom
from gpuq.engine.context import Context
from gpuq.errors import GpuqError
from gpuq.user_files import make_passage

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
# A launch writes less.
_PROBE_BYTES = 64 * 1024
_OF_THE_MACHINE = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOLCK,
        errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE,
    }
)  # fmt: skip


def is_machines_fault(error: OSError) -> bool:
    return error.errno in _OF_THE_MACHINE


class LaunchCircuitBreaker:
    """The agent's own; others read what `gpuq.engine.switches` finds in SQL, a text for people."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._pause_s = 0.0
        self._until: float | None = None
        self.room = AttemptRoom()
        self.outputs = full_disk.RecentOutputs()
        self._full: str | None = None
        self._crowded: str | None = None
        # One that an earlier agent met is not known to be there.
        self._told: str | None = ""

    def trip(self, why: str) -> None:
        """The machine could not launch: nothing is claimed for a pause that doubles each time. `why`: shown to
        people."""
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), MAX_PAUSE_S)
        self._until = self._ctx.clock.monotonic() + self._pause_s
        self._tell(why)

    def see_room(self, attempts: int, *, crowded: bool) -> None:
        """After a plan: whether more would have been started than this daemon can watch beside so many. That is said
        until there is some room again: a single end makes none, for the next job takes it."""
        if crowded:
            self._crowded = self.room.why()
            self._tell(self._crowded)
        elif self._crowded is not None and self.room.left(attempts) > self.room.most // 10:
            self._crowded = None
            self._tell(None)

    def is_open(self) -> bool:
        """Whether nothing may be claimed now."""
        if self._is_full():
            return True
        if self._until is None:
            return False
        if self._ctx.clock.monotonic() < self._until:
            return True
        try:
            _probe(self._ctx.home / "jobs")
        except OSError as error:
            self.trip(f"{error.strerror} in {self._ctx.home / 'jobs'}")
            return True
        self._until = None
        return False

    def _is_full(self) -> bool:
        """Whether the disk is; the reserve is kept, or given back, by the way."""
        room = None if self._ctx.disk is None else self._ctx.disk.keep()
        if room is None or not room.low:
            if self._full is not None:
                self._full = None
                self._tell(None)
            return False
        # Told once: the figures change with every look.
        self._full = self._full or full_disk.told(room, self._ctx.home, self.outputs.largest())
        self._tell(self._full)
        return True

    def reset(self) -> None:
        """Something was launched."""
        if self._until is None and self._full is None and self._crowded is None:
            self._pause_s = 0.0
            self._tell(None)

    def _tell(self, why: str | None) -> None:
        if why == self._told:
            return
        if why is not None:
            log.error("nothing can be launched on this machine: %s (tried again by itself)", why)
        elif self._told:
            log.info("jobs can be launched again")
        try:
            with self._ctx.records.write() as tx:
                if why is not None or tx.value(InstallationKey.LAUNCH_TROUBLE.of(self._ctx.node)) is not None:
                    tx.set_value(InstallationKey.LAUNCH_TROUBLE.of(self._ctx.node), why, self._ctx.clock.now())
        except GpuqError as error:
            # The database may be on the same disk. Told again with the next launch.
            log.debug("launch trouble not noted: %s", error.message)
            return
        self._told = why


def _probe(folder: Path) -> None:
    make_passage(str(folder))
    path = folder / f".probe.{os.getpid()}"
    try:
        with path.open("wb", buffering=0) as stream:
            stream.write(bytes(_PROBE_BYTES))
            os.fsync(stream.fileno())
            if stream.tell() < _PROBE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        path.unlink(missing_ok=True)

"""What keeps this machine from launching anything at all, a full disk for instance: no job's fault.

The job goes back to its place in line without using a retry, and nothing is claimed until the pause is over and a
launch of nothing went well: so a long trouble costs one attempt, not one a job, nor one a pause.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from gpuq.engine.attempt import full_disk
from gpuq.engine.attempt.descriptors import AttemptRoom
from gpuq.engine.attempt.failed_launches import FailedLaunches
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.engine.home_folder import HomeFolder
from gpuq.engine.start_obstacles import StartObstacles
from gpuq.ports.launcher import Rehearsal
from gpuq.user_files import OverQuota, make_passage

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
# For a supervisor to come and go, also on a machine that is busy.
REHEARSAL_S = 10.0
# A launch writes less.
_PROBE_BYTES = 64 * 1024


def is_machines_fault(error: Exception) -> bool:
    """Of a launch that failed on the daemon's side: folders, locks, sockets and processes there are gpuq's own, so
    nothing but this is proved to be the job's. What is (program, directory, identity) its supervisor says."""
    return not isinstance(error, OverQuota)


def told(error: Exception) -> str:
    """The sentence for people."""
    if not isinstance(error, OSError) or error.strerror is None:
        return repr(error)
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


class LaunchCircuitBreaker:
    """The agent's own. What it finds it notes among the `obstacles`, to which others add theirs."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.obstacles = StartObstacles(ctx)
        self._failed = FailedLaunches()
        self._pause_s = 0.0
        self._until: float | None = None
        self.room = AttemptRoom()
        self._rehearsal: Rehearsal | None = None
        self._rehearsed_by = 0.0
        self._home: HomeFolder | None = None
        self.outputs = full_disk.RecentOutputs()
        self._full: str | None = None

    def open(self) -> None:
        """When the agent has its lock, and so the home is there."""
        self._home = HomeFolder(self._ctx.agent_lock_path)

    def close(self) -> None:
        """Ends what is under way. A second call does nothing."""
        if self._rehearsal is not None:
            self._rehearsal.close()
            self._rehearsal = None

    def failed(self, tracked: TrackedAttempt, why: str) -> None:
        """This attempt could not be launched, and nothing proves that its job is why. `why`: shown to people."""
        tracked.failed_alone = self._failed.failed(tracked.job.id)
        if tracked.failed_alone:
            log.warning("job %d waits by itself: it cannot be launched, others can: %s", tracked.job.id, why)
        else:
            self.trip(why)

    def trip(self, why: str) -> None:
        """The machine could not launch: nothing is claimed for a pause that doubles each time. `why`: shown to
        people. During a pause nothing but the text changes: those that were claimed together fail together."""
        now = self._ctx.clock.monotonic()
        if self._until is None or now >= self._until:
            self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), MAX_PAUSE_S)
            self._until = now + self._pause_s
        self.obstacles.meet("launch", why)

    def see_room(self, attempts: int, *, crowded: bool) -> None:
        """After a plan: whether more would have been started than this daemon can watch beside so many. That is said
        until there is some room again: a single end makes none, for the next job takes it."""
        if crowded:
            self.obstacles.meet("descriptors", self.room.why())
        elif self.room.left(attempts) > self.room.most // 10:
            self.obstacles.clear("descriptors")
            self.obstacles.tell()

    def is_open(self) -> bool:
        """Whether nothing may be claimed now."""
        is_open = self._is_away() or self._is_full() or self._cannot_launch()
        self.obstacles.tell()
        return is_open

    def _cannot_launch(self) -> bool:
        if self._until is None:
            return False
        if self._ctx.clock.monotonic() < self._until:
            return True
        try:
            over = self._rehearse()
            why = self._end_rehearsal() if over else None
        except OSError as error:
            over, why = True, told(error)
        if why is not None:
            self.trip(why)
        elif over:
            self._until = None
            self.obstacles.clear("launch")
        return self._until is not None

    def _rehearse(self) -> bool:
        """Whether a rehearsal is over, or has taken too long. Raises OSError when none can begin."""
        now = self._ctx.clock.monotonic()
        if self._rehearsal is None:
            folder = self._ctx.home / "jobs"
            _probe(folder)
            self._rehearsal = self._ctx.launcher.rehearse(str(folder))
            self._rehearsed_by = now + REHEARSAL_S
        return self._rehearsal.over() or now >= self._rehearsed_by

    def _end_rehearsal(self) -> str | None:
        rehearsal, self._rehearsal = self._rehearsal, None
        return None if rehearsal is None else rehearsal.close()

    def _is_away(self) -> bool:
        why = None if self._home is None else self._home.why_away()
        if why is None:
            self.obstacles.clear("home")
        else:
            self.obstacles.note("home", why)
        return why is not None

    def _is_full(self) -> bool:
        """Whether the disk is; the reserve is kept, or given back, by the way."""
        room = None if self._ctx.disk is None else self._ctx.disk.keep()
        if room is None or not room.low:
            self._full = None
            self.obstacles.clear("disk")
            return False
        # Told once: the figures change with every look.
        self._full = self._full or full_disk.told(room, self._ctx.home, self.outputs.largest())
        self.obstacles.note("disk", self._full)
        return True

    def launched(self, job_id: int) -> None:
        """Its process runs."""
        self._failed.started(job_id)
        if self._until is None and self._full is None:
            self._pause_s = 0.0


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

"""The daemon's side: makes the folders of attempts, hands them to the fork server, and reads what became of them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Collection, Sequence
from typing import Any

from gpuq import linux, user_files
from gpuq.domain import failpoints
from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.proof_of_death import Evidence
from gpuq.ports.launcher import AttemptLimits, LaunchOrder, Oversight
from gpuq.supervise import (
    begin_mark,
    bundle,
    cgroup,
    cgroup_folders,
    ended,
    evidence,
    in_place,
    kernel,
    limits,
    own_folder,
    processes,
    progress,
    secret_variables,
    statements,
    stop,
    sweep,
)
from gpuq.supervise.oversight import ProcOversight
from gpuq.supervise.rehearsal import Rehearsal
from gpuq.supervise.reports import ReportPipes
from gpuq.supervise.server_process import ForkServer
from gpuq.supervise.spares import SpareFolders

# `alive` holds the lock for microseconds, in whatever process asks.
_LOCK_TRIES = 20
_LEFT_OVER_S = 1.0
_LOCK_PAUSE_S = 0.005


class ForkServerLauncher:
    """The `Launcher` of the ports. Safe to use from several threads.

    `messages_path` is where the fork server and the supervisors write what should never happen (appended to).
    `home`: the folder whose control groups they make, of the `kinds` that are had there; None: they make none.
    """

    def __init__(
        self, messages_path: str | None = None, home: str | None = None, kinds: Sequence[str] = cgroup_folders.KINDS
    ) -> None:
        self._groups = None if home is None else cgroup_folders.folder_name(home)
        self._jobs = None if home is None else os.path.join(os.path.abspath(home), "jobs")
        groups = None if self._groups is None else (self._groups, kinds)
        self.server = ForkServer(messages_path, groups, self._jobs)
        self._reports = ReportPipes()
        self.oversight: Oversight = ProcOversight(self.server, self._groups)
        self._spares = SpareFolders()

    def warm_up(self) -> None:
        """Starts the fork server now, so that the first job does not wait for it, and ends what dead supervisors of
        this home left in their control groups. Raises OSError."""
        self._end_left_over()
        if self._jobs is not None:
            user_files.make_passage(self._jobs)
        self.server.start()

    def _end_left_over(self) -> None:
        if self._groups is not None:
            # What is stuck is met again when its attempt is found dead, and keeps that one's GPUs.
            with contextlib.suppress(TimeoutError):
                cgroup.end_left_over(self._groups, timeout_s=_LEFT_OVER_S)

    def start(self, order: LaunchOrder) -> int:
        """See the port. Also raises OSError when this attempt was launched before: an attempt runs once."""
        lock_fd = log_fd = report_read = report_write = secrets_fd = -1
        try:
            records = bundle.records_of(order.run_dir)
            # The records come first: an own folder without them is one whose records were lost.
            if records == order.run_dir or (os.path.lexists(order.run_dir) and not os.path.isdir(records)):
                raise _launched_before(records)
            # It is there when a stop came before the launch.
            fresh = self._spares.take_records(records) or user_files.make_private(records)
            failpoints.point("launch.folder_made")
            lock_fd = _take_lock(records)
            failpoints.point("launch.lock_taken")
            if not fresh:
                _refuse_a_second_run(records)
            spec = {**own_folder.with_group(order.spec), limits.HEARS: True}
            _fill_records(records, spec)
            log_fd = own_folder.make(order.run_dir, spec.get("uid"), spec.get("gid"), order.script)
            report_read, report_write = (end.detach() for end in socket.socketpair())
            self._spares.note_launch(order.run_dir, spec)
            secrets_fd = secret_variables.hand_over(order.secrets) if order.secrets else -1
            failpoints.point("launch.before_send")
            fds = (lock_fd, log_fd, report_write)
            self.server.launch(records, (*fds, secrets_fd) if secrets_fd >= 0 else fds)
            failpoints.point("launch.sent")
        except BaseException:
            _close(report_read)
            raise
        finally:
            # From the moment of the hand-over on, only the supervisor may keep the lock and the report open.
            _close(lock_fd, log_fd, report_write, secrets_fd)
        return report_read

    def report(self, fd: int) -> Launched | None:
        return self._reports.hear(fd)

    def told_end(self, token: str) -> Result | None:
        return self._reports.told(token)

    def launched(self, run_dir: str, token: str) -> Launched | None:
        """What `report` said, read from the records; for adopting a supervisor that an earlier daemon started."""
        record = bundle.read_of_attempt(run_dir, bundle.STARTED, token)
        return None if record is None else statements.launched(record)

    def begun(self, run_dir: str) -> bool:
        return begin_mark.was_set(run_dir)

    def rehearse(self, folder: str) -> Rehearsal:
        return Rehearsal(folder, self.start, self.outcome)

    def alive(self, run_dir: str) -> bool:
        records = bundle.records_of(run_dir)
        try:
            fd = os.open(os.path.join(records, bundle.LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            # Shared, so that two who ask at the same moment do not take each other for a supervisor.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return _end_comes(records)

    def evidence(
        self,
        run_dir: str,
        token: str,
        launched: Launched | None,
        uid: int | None,
        family: Collection[tuple[int, int]] = (),
    ) -> Evidence:
        return evidence.gather(run_dir, token, launched, user_files.owner_of_job(uid), self._groups, family)

    def watch(self, running: Launched) -> int | None:
        """For an attempt that this launcher started: the end of its report pipe. For an adopted one: a pidfd, because
        a supervisor whose fork server is gone takes no other attempt."""
        reported, end = self._reports.watch(running)
        if reported:
            return end
        try:
            fd = os.pidfd_open(running.supervisor_pid)
        except OSError:
            return None
        now = linux.look(running.supervisor_pid)
        if now is None or now.start != running.supervisor_start or not now.living:
            os.close(fd)
            return None
        return fd

    def outcome(self, run_dir: str, token: str) -> Result | None:
        self._reports.sort_out()
        try:
            # Of whoever took it over, else of its supervisor.
            record = bundle.read_of_attempt(run_dir, bundle.TAKEOVER, token)
            record = record or bundle.load_of_attempt(run_dir, bundle.EXIT, token)
            if record is None and self._reports.told(token) is None:
                record = ended.find(run_dir, token)
            if record is not None:
                return statements.result(record)
        except bundle.BadRecord as bad:
            why = f"its exit record cannot be believed: {bad}"
            return self._reports.told(token) or Result(Outcome.LOST, error=why, swept=False)
        return self._reports.told(token)

    def take_spare(self, checkpoint: str, uid: int | None, gid: int | None) -> bool:
        return self._spares.take_checkpoint(checkpoint, uid, gid)

    def end_written(
        self, run_dir: str, token: str, launched: Launched | None, result: Result, gpus: Sequence[str]
    ) -> None:
        fd = -1 if launched is None else self._reports.take(launched)
        ended.settle(run_dir, token, result, gpus, fd, launched is not None, self._spares)
        _close(fd)

    def progress(self, run_dir: str, uid: int | None) -> dict[str, Any] | None:
        return progress.read(run_dir, uid)

    def request_stop(self, run_dir: str, *, reason: str, grace_s: float, signal: str | None = None) -> None:
        stop.request_stop(run_dir, reason, grace_s, signal)

    def limits(self, run_dir: str, token: str) -> AttemptLimits | None:
        known = limits.known(run_dir, token)
        return None if known is None else AttemptLimits(known[0].time_limit_s, known[0].kill_grace_s, heard=known[1])

    def change_limits(
        self, run_dir: str, token: str, *, time_limit_s: float | None, kill_grace_s: float | None
    ) -> None:
        limits.tell(run_dir, token, limits.Limits(time_limit_s, kill_grace_s))

    def told_to_cancel(self, run_dir: str) -> bool:
        return stop.is_cancelled(bundle.records_of(run_dir))

    def sweep(
        self,
        token: str,
        session: int | None,
        session_start: int | None = None,
        uid: int | None = None,
        seen: Collection[tuple[int, int]] = (),
    ) -> int:
        # Whoever proved this attempt dead proved its supervisor dead.
        grouped = 0 if self._groups is None else cgroup.end_left_over(self._groups)
        return grouped + sweep.sweep(token, session, session_start, owner=user_files.owner_of_job(uid), seen=seen)

    def close(self) -> None:
        """Lets the fork server serve what it was handed, and end. Running supervisors go on; what those
        of a fork server that was killed left in their control groups ends. May be called twice."""
        self.server.close()
        self._reports.close()
        self._end_left_over()


def _end_comes(records: str) -> bool:
    """Whether the supervisor was killed and its fork server, which reaps it afterwards, has yet to write its will."""
    if in_place.is_written(records, bundle.EXIT) or bundle.taken_over(records):
        return False
    record = bundle.read(records, bundle.STARTED)
    launched = None if record is None else statements.launched(record)
    if launched is None:
        return False
    dead = linux.look(launched.supervisor_pid)
    return (
        dead is not None
        and dead.start == launched.supervisor_start
        and not dead.living
        and processes.name_of(dead.parent) == kernel.NAME
    )


def _take_lock(records: str) -> int:
    path = os.path.join(records, bundle.LOCK)
    for left in range(_LOCK_TRIES, 0, -1):
        try:
            return linux.lock_file(path)
        except BlockingIOError:
            if left > 1:
                time.sleep(_LOCK_PAUSE_S)
    raise BlockingIOError(errno.EWOULDBLOCK, "this attempt has a live supervisor", records)


def _refuse_a_second_run(records: str) -> None:
    for name in (bundle.EXIT, bundle.STARTED):
        if os.path.lexists(os.path.join(records, name)):
            raise _launched_before(records)


def _launched_before(records: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "this attempt was launched before", records)


def _fill_records(records: str, spec: dict[str, Any]) -> None:
    """Everything but the lock."""
    in_place.fill(records, bundle.SPEC, spec)
    try:
        os.mkfifo(os.path.join(records, bundle.CONTROL), 0o600)
    except FileExistsError:
        if not stat.S_ISFIFO(os.lstat(os.path.join(records, bundle.CONTROL)).st_mode):
            raise


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)

"""The supervisor: one process per running attempt, forked by the fork server, which outlives the daemon.

It holds the attempt's lock for life, runs the job, applies the time limit and the stops, ends every descendant,
and writes the true end down. It needs nothing but the attempt's records: the job's own folder
may be gone, and its user's quota used up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable

from gpuq.domain import failpoints
from gpuq.supervise import (
    begin_mark,
    bundle,
    classify,
    in_place,
    kernel,
    limits,
    processes,
    results,
    secret_variables,
    spares,
)
from gpuq.supervise.cgroup import Cgroup, end_all_in
from gpuq.supervise.crash_record import CrashRecord, exit_code_of
from gpuq.supervise.descendants import Family
from gpuq.supervise.events import Events
from gpuq.supervise.hunt import hunt
from gpuq.supervise.ladder import KILL, NOTICE, STRAYS, TERMINATE, Ladder
from gpuq.supervise.last_word import record_end
from gpuq.supervise.output_limit import REASON, OutputLimit, written_bytes
from gpuq.supervise.spawn import MACHINE_FAULT, AttemptSpec, CannotRun, spawn
from gpuq.supervise.stop_orders import StopOrder, of_line, of_record
from gpuq.supervise.unconfirmed import UnconfirmedEnds

_RETRY_S = 0.05
_OWN_SIGTERM_S = 0.05
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT
# Looked up once by the fork server; its supervisors run in the same control group.
_OOM_COUNTER = classify.oom_counter()


def supervise(
    run_dir: str,
    lock_fd: int,
    log_fd: int,
    report_fd: int,
    server_fd: int,
    when_alone: Callable[[], None],
    will: CrashRecord,
    group: Cgroup | None = None,
    ends: UnconfirmedEnds | None = None,
    secrets_fd: int = -1,
) -> bool:
    """Runs the attempt whose records are in `run_dir` to its end. True when this process may supervise another one
    after it.

    Must be called in a session of its own and as a subreaper without children. `when_alone` is called when the reader
    of the pipe `server_fd` is gone. `will` is kept up to date while the job runs. `group` is the control group
    that this process is in, alone; it leaves it when it has to kill the rest. `ends` sees to it that the exit record
    becomes durable; without it that is done at once. Closes the descriptors of the attempt: that of its secrets, which
    may have some, when they are read, the lock when everything is over, and after it the report.
    """
    events: Events | None = None
    try:
        events = Events(run_dir)
        events.watch(server_fd, for_hangup_only=True)
        _supervise(run_dir, lock_fd, events, log_fd, report_fd, server_fd, when_alone, will, group, ends, secrets_fd)
        return not events.told_to_stop and not (group is not None and group.left)
    except Exception as error:
        if _must_be_told(error, run_dir, lock_fd, report_fd, will, group):
            raise
        return False
    finally:
        will.forget()
        if events is not None:
            events.close()
        os.close(log_fd)
        os.close(lock_fd)
        if ends is None or not ends.take_over(run_dir, report_fd):
            os.close(report_fd)


def _must_be_told(
    error: Exception, run_dir: str, lock_fd: int, report_fd: int, will: CrashRecord, group: Cgroup | None
) -> bool:
    """Ends the attempt with its supervisor's failure. Whether that is one of ours: not when a folder is gone before
    anything began, with its disk perhaps."""
    _end_every_child(group)
    token = bundle.token_in(run_dir) or bundle.text(will.read() or {}, "token") or ""
    begun = begin_mark.is_set(lock_fd)
    record_end(run_dir, _own_failure(token, error, begun), tell=_teller(report_fd))
    if begun or not isinstance(error, OSError):
        return True
    sys.stderr.write(f"gpuq supervise: the attempt of {run_dir} could not begin: {error}\n")
    sys.stderr.flush()
    return False


def _own_failure(token: str, error: Exception, begun: bool) -> dict[str, object]:
    """The exit record for a supervisor that cannot go on. Before the job's program may have existed, no job is to be
    charged for it."""
    why = f"the supervisor failed: {error!r}"
    return classify.record_of("lost", token=token, error=why) if begun else _machines_fault(token, why)


def _machines_fault(token: str, why: str) -> dict[str, object]:
    return {**classify.record_of("launch_error", token=token, error=why), "machine_fault": True}


def _supervise(
    run_dir: str,
    lock_fd: int,
    events: Events,
    log_fd: int,
    report_fd: int,
    server_fd: int,
    when_alone: Callable[[], None],
    will: CrashRecord,
    group: Cgroup | None,
    ends: UnconfirmedEnds | None,
    secrets_fd: int,
) -> None:
    secrets, tell, record = secret_variables.take(secrets_fd), _teller(report_fd), _spec_record(run_dir)
    try:
        spec = AttemptSpec(record, secrets)
    except ValueError as error:
        record_end(run_dir, _bad_spec(run_dir, error), tell=tell)
        return
    if _stopped_before(run_dir, spec.token, tell):
        return
    limits.apply(limits.read(run_dir, spec.token), spec)
    failpoints.point("supervisor.before_spawn")
    begin_mark.put(lock_fd)
    try:
        pid, exec_fd = spawn(spec, log_fd)
    except CannotRun as refusal:
        _leave_checkpoint(spec.checkpoint_dir)
        record_end(run_dir, classify.record_of("launch_error", token=spec.token, error=str(refusal)), tell=tell)
        return
    except OSError as failure:
        why = f"no process could be made for the job: {failure.strerror}"
        record_end(run_dir, _machines_fault(spec.token, why), tell=tell)
        return
    failpoints.point("supervisor.spawned")
    run = _Run(run_dir, spec, events, pid, exec_fd, report_fd, log_fd, will, group, ends)
    run.until_nothing_is_left(server_fd, when_alone)
    failpoints.point("supervisor.job_ended")
    run.record()
    failpoints.point("supervisor.end_recorded")


def _bad_spec(run_dir: str, error: ValueError) -> dict[str, object]:
    why = f"{bundle.SPEC}: {error}"
    return classify.record_of("launch_error", token=bundle.token_in(run_dir), error=why)


def _spec_record(run_dir: str) -> dict[str, object]:
    record = bundle.read(run_dir, bundle.SPEC)
    if record is None:
        raise FileNotFoundError(errno.ENOENT, "the spec of the attempt cannot be found", run_dir)
    return record


def _stopped_before(run_dir: str, token: str, tell: Callable[[bytes], None]) -> bool:
    """The control FIFO is open from here on, so a stop is either in the file now or will be announced there."""
    stop = bundle.read(run_dir, bundle.STOP)
    if stop is None:
        return False
    reason = bundle.text(stop, "reason") or "cancel"
    outcome, why = classify.of_reason(reason)
    why = f"{why}, before it was started"
    record_end(run_dir, classify.record_of(outcome, token=token, error=why, stop_reason=reason), tell=tell)
    return True


def _ladder_of(spec: AttemptSpec) -> Ladder:
    return Ladder(
        started=kernel.since_boot(),
        time_limit_s=spec.time_limit_s,
        kill_grace_s=spec.kill_grace_s,
        notice=spec.notice,
        notice_before_s=spec.notice_before_s,
    )


class _Run:
    """One job from its fork to the end of its last descendant. `pid` and `exec_fd` are those of `spawn`."""

    def __init__(
        self,
        run_dir: str,
        spec: AttemptSpec,
        events: Events,
        pid: int,
        exec_fd: int,
        report_fd: int,
        log_fd: int,
        will: CrashRecord,
        group: Cgroup | None,
        ends: UnconfirmedEnds | None = None,
    ) -> None:
        self.will = will
        self.ends = ends
        self.group = group
        self.run_dir = run_dir
        self.spec = spec
        self.events = events
        self.report_fd = report_fd
        self.log_fd = log_fd
        self.pid = pid
        self.exec_fd = exec_fd
        self.started_at = _now()
        self.pid_start = processes.start_of(self.pid)
        self.oom_before = classify.count_oom_kills(_OOM_COUNTER)
        self.ladder = _ladder_of(spec)
        self.output = OutputLimit(spec.max_output_bytes, kernel.since_boot())
        self.refusal: str | None = None
        self.machine_fault = False
        self.ending: classify.Ending | None = None
        self.noticed: int | None = None
        self.stop_reached = False
        self.family = Family(self.pid)
        if self.exec_fd >= 0:
            events.watch(self.exec_fd)
        else:
            self._report()

    def until_nothing_is_left(self, server_fd: int, when_alone: Callable[[], None]) -> None:
        while True:
            ready = self.events.wait(self.ladder.next_at(), self._look_again_s())
            if server_fd in ready:
                self.events.forget(server_fd)
                when_alone()
            if self.exec_fd in ready:
                self._hear_the_exec()
            empty = self._reap()
            if self.events.told_to_stop:
                self.ladder.request(kernel.since_boot(), "shutdown")
            if self.events.control in ready:
                for line in self.events.lines():
                    self._request_stop(of_line(line, self.spec.token))
                    self._change_limits(limits.of_line(line, self.spec.token))
                self._read_stop()
                self._change_limits(limits.read(self.run_dir, self.spec.token))
            if empty:
                return
            if self.ends is not None:
                self.ends.look()
            self._look_at_output(kernel.since_boot())
            for step in self.ladder.due(kernel.since_boot()):
                self._take(step)

    def record(self) -> None:
        if self.ending is None:
            raise RuntimeError("the job's process vanished")
        _leave_checkpoint(self.spec.checkpoint_dir)
        tell = _teller(self.report_fd)
        left = results.left_in(self.run_dir, self.spec.uid, self.spec.max_result_bytes)
        record = {**self._record(self.ending), **left}
        record_end(self.run_dir, record, self.log_fd, tell, durable=self.ends is None)
        if self.ends is not None:
            self.ends.note(self.run_dir)

    def _look_again_s(self) -> float | None:
        output_s = self.output.wait_s(kernel.since_boot())
        ends_s = None if self.ends is None else self.ends.wait_s()
        return min((wait_s for wait_s in (output_s, ends_s) if wait_s is not None), default=None)

    def _record(self, ending: classify.Ending) -> dict[str, object]:
        if self.refusal is not None and self.machine_fault:
            return _machines_fault(self.spec.token, self.refusal)
        if self.refusal is not None:
            return classify.record_of("launch_error", token=self.spec.token, error=self.refusal)
        return classify.exit_record(ending, token=self.spec.token, started_at=self.started_at)

    def _hear_the_exec(self) -> None:
        """The pipe of `spawn`: empty means that the program runs, and that is reported to the daemon. The end of
        the report pipe comes later, when the attempt is over."""
        self.events.forget(self.exec_fd)
        sentence = os.read(self.exec_fd, 4096)
        os.close(self.exec_fd)
        self.exec_fd = -1
        if sentence:
            self.machine_fault = sentence.startswith(MACHINE_FAULT)
            self.refusal = sentence.removeprefix(MACHINE_FAULT).decode("utf-8", "replace")
            return
        self._report()

    def _report(self) -> None:
        supervisor = os.getpid()
        record: dict[str, object] = {
            "supervisor_pid": supervisor,
            "supervisor_start": processes.start_of(supervisor),
            "pid": self.pid,
            "pid_start": self.pid_start,
            "started_at": self.started_at,
        }
        self._keep_will()
        # The record and the report only describe the running job. A full disk or a dead daemon must not stop it.
        with contextlib.suppress(OSError):
            in_place.fill(self.run_dir, bundle.STARTED, {"schema": bundle.SCHEMA, "token": self.spec.token, **record})
        failpoints.point("supervisor.started")
        with contextlib.suppress(OSError):
            os.write(self.report_fd, bundle.line(record))

    def _reap(self) -> bool:
        """Collects what has ended. True when no child is left, which proves that no descendant is: the orphans
        of a subreaper are its children."""
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, _LOOK)
            except ChildProcessError:
                return True
            if seen is None:
                return False
            if seen.si_pid == self.pid:
                # Before it is reaped: its status is in the page or in the zombie, whenever we are killed.
                failpoints.point("supervisor.main_ended")
                self._main_ended(exit_code_of(seen))
            os.waitpid(seen.si_pid, 0)

    def _keep_will(self) -> None:
        self.will.write(
            {
                "dir": self.run_dir,
                "token": self.spec.token,
                "pid": self.pid,
                "pid_start": self.pid_start,
                "started_at": self.started_at,
                "time_limit_s": self.spec.time_limit_s,
                "max_output_bytes": self.spec.max_output_bytes,
                **self._results_for_an_heir(),
                "noticed": self.noticed,
                "stop_reason": self.ladder.reason if self.stop_reached else None,
            }
        )

    def _results_for_an_heir(self) -> dict[str, object]:
        return {"uid": self.spec.uid, "max_result_bytes": self.spec.max_result_bytes}

    def _main_ended(self, code: int) -> None:
        if self.exec_fd >= 0:
            self._hear_the_exec()
        if code == -signal.SIGTERM and not self.stop_reached and not self.events.told_to_stop:
            # At a shutdown everyone gets SIGTERM, and the job may be faster than the supervisor's own.
            self.events.wait(None, _OWN_SIGTERM_S)
        reason = self.ladder.reason if self.stop_reached else None
        if self.events.told_to_stop and code != 0:
            reason = reason or "shutdown"
        self.ending = classify.Ending(
            exit_code=code if code >= 0 else None,
            signum=-code if code < 0 else None,
            stop_reason=reason,
            noticed=self.noticed,
            oom_kills=self._oom_kills() if code in (-signal.SIGKILL, classify.KILLED_CHILD) else 0,
            time_limit_s=self.spec.time_limit_s,
            max_output_bytes=self.spec.max_output_bytes,
        )
        self.will.write({"dir": self.run_dir, "end": self._record(self.ending), **self._results_for_an_heir()})
        self.ladder.main_ended(kernel.since_boot())

    def _oom_kills(self) -> int:
        return classify.count_oom_kills(_OOM_COUNTER) - self.oom_before

    def _read_stop(self) -> None:
        try:
            stop = bundle.read(self.run_dir, bundle.STOP)
        except OSError:
            # A job must not die because a disk does not answer; whoever stops it will ask again.
            return
        if stop is not None:
            self._request_stop(of_record(stop))

    def _look_at_output(self, now: float) -> None:
        if self.output.due(now):
            grace_s = self.output.grace_s(written_bytes(os.fstat(self.log_fd)), now)
            if grace_s is not None:
                self.ladder.request(now, REASON, min(grace_s, self.spec.kill_grace_s))

    def _request_stop(self, order: StopOrder | None) -> None:
        if order is not None:
            self.ladder.request(kernel.since_boot(), order.reason, order.grace_s, order.signum)

    def _change_limits(self, told: limits.Limits | None) -> None:
        """Said again and again, it changes nothing."""
        if told is None:
            return
        grace_s = self.spec.kill_grace_s if told.kill_grace_s is None else told.kill_grace_s
        same = (told.time_limit_s, grace_s) == (self.spec.time_limit_s, self.spec.kill_grace_s)
        if not same and self.ladder.change(kernel.since_boot(), told.time_limit_s, grace_s):
            limits.apply(told, self.spec)
            if self.exec_fd < 0:
                self._keep_will()

    def _take(self, step: str) -> None:
        if bundle.taken_over(self.run_dir):
            return
        if self.ladder.reason not in (None, STRAYS) and self.ending is None:
            self.stop_reached = True
        if step == NOTICE and self.ladder.reason is None and self.ending is None:
            self.noticed = self.ladder.notice
        if self.ending is None and self.refusal is None and self.exec_fd < 0:
            # Before the signal, which may be the end.
            self._keep_will()
        if step == NOTICE and self.ladder.notice is not None and self.ending is None:
            self.family.notify(self.ladder.notice)
        elif step == TERMINATE:
            self.family.terminate()
        elif step == KILL:
            end_all_in(self.group)
            self.family.kill(main_reaped=self.ending is not None, reap=self._reap)


def _leave_checkpoint(folder: str) -> None:
    """Most jobs leave none, and then its folder goes. Before the end is told: after it the job's next attempt may be
    started, which needs the folder again."""
    if folder:
        spares.put_checkpoint(folder)


def _end_every_child(group: Cgroup | None) -> None:
    """For the supervisor's own failure: nothing of the job may outlive the record that it is lost."""
    while True:
        end_all_in(group)
        hunt(lambda: None)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_RETRY_S)


def _teller(report_fd: int) -> Callable[[bytes], None]:
    """Who tells the reader of the report pipe, if there is one."""

    def tell(line: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(report_fd, line)

    return tell


def _now() -> float:
    return round(time.time(), 3)

"""Ending an attempt in place of its supervisor: the same ladder, walked from outside.

First the takeover is made durable (see takeover.py). The supervisor is killed last: with it the kernel and the fork
server kill whatever is left of the job, and as long as it is there, everything that descends from it can be told from
its place in the process table.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence

from gpuq.domain.job import Launched
from gpuq.linux import Process, look
from gpuq.supervise import bundle, kernel, processes, takeover
from gpuq.supervise.cgroup import Cgroup
from gpuq.supervise.descendants import Family
from gpuq.supervise.ladder import KILL, NOTICE, TERMINATE, Ladder
from gpuq.supervise.spawn import AttemptSpec

_LOOK_S = 0.25
_AGAIN_S = 0.02


class StandIn:
    """`supervisor`: alive, however little it does. `known`: what it reported, if it did. `groups`: its control groups.
    `reason`: why the attempt is stopped, None for one whose main process has ended by itself; `grace_s`: seconds that
    are left of its grace."""

    def __init__(
        self,
        records: str,
        token: str,
        supervisor: Process,
        known: Launched | None,
        groups: Sequence[Cgroup],
        reason: str | None,
        grace_s: float,
    ) -> None:
        self._records = records
        self._token = token
        self.supervisor = supervisor
        self._known = known
        self._groups = groups
        taken = bundle.read(records, bundle.TAKEOVER) or {}
        self._reason = reason or bundle.text(taken, "reason")
        self._ended_by_itself = self._end_of_main() is not None and supervisor.stopped and not taken
        self._fenced = bool(taken)
        self._end_told = False
        self._ladder = _ladder(records, self._reason, grace_s)

    def step(self, grace_s: float) -> float | None:
        """Does what is due now. `grace_s`: what is left of the grace, which may have become less. Returns after how
        many seconds there may be more to do; None when the supervisor is gone. Raises OSError when the takeover cannot
        be written: then nothing was done."""
        now = look(self.supervisor.pid)
        if now is None or now.start != self.supervisor.start or not now.living:
            return None
        if not self._fenced:
            self._fence()
        at = kernel.since_boot()
        if self._reason is not None:
            self._ladder.request(at, self._reason, grace_s)
        for due in self._ladder.due(at) if self._left() else [KILL]:
            if due == NOTICE and self._ladder.notice is not None and self._known is not None:
                Family(self._known.pid).notify(self._ladder.notice)
            elif due == TERMINATE:
                self._terminate()
            elif due == KILL:
                self._kill()
        following = self._ladder.next_at()
        return _LOOK_S if following is None else min(max(_AGAIN_S, following - at), _LOOK_S)

    def _fence(self) -> None:
        takeover.write(self._records, self._record(self._end_of_main()), self._reason)
        self._fenced = True

    def _record(self, code: int | None) -> dict[str, object]:
        return takeover.record(
            self._records,
            self._token,
            reason=self._reason,
            code=code,
            ended_by_itself=self._ended_by_itself,
            started_at=None if self._known is None else self._known.started_at,
        )

    def _left(self) -> list[Process]:
        """All of the job that lives."""
        table = processes.everything()
        found = {process.pid: process for process in processes.descendants([self.supervisor.pid], table)}
        for group in self._groups:
            with contextlib.suppress(OSError):
                found |= {pid: table[pid] for pid in group.members() if pid in table and table[pid].living}
        return [process for pid, process in found.items() if pid not in (self.supervisor.pid, os.getpid())]

    def _terminate(self) -> None:
        for process in self._left():
            processes.send(process, signal.SIGTERM)
            if process.stopped:
                processes.send(process, signal.SIGCONT)

    def _kill(self) -> None:
        """The job first, so that the end of its main process is seen; then all that is in the group, and the
        supervisor."""
        left = self._left()
        for process in left:
            processes.send(process, signal.SIGKILL)
        code = self._end_of_main()
        if code is None and self._known is not None and any(process.pid == self._known.pid for process in left):
            code = -int(signal.SIGKILL)
        if not self._end_told:
            self._end_told = True
            # Without room for it the first record still stands.
            with contextlib.suppress(OSError):
                takeover.write(self._records, self._record(code), self._reason)
        for group in self._groups:
            with contextlib.suppress(OSError):
                group.kill()
        processes.send(self.supervisor, signal.SIGKILL)

    def _end_of_main(self) -> int | None:
        """None while the job's main process lives, and when its end cannot be known."""
        known = self._known
        return None if known is None else processes.end_of_zombie(known.pid, known.pid_start)


def _ladder(records: str, reason: str | None, grace_s: float) -> Ladder:
    try:
        spec = AttemptSpec(bundle.read(records, bundle.SPEC) or {})
        notice, before_s = spec.notice, spec.notice_before_s
    except (OSError, ValueError):
        notice, before_s = None, 0.0
    # A time limit was announced before it was reached, or not at all.
    ladder = Ladder(
        started=kernel.since_boot(), time_limit_s=None, kill_grace_s=grace_s, notice=notice, notice_before_s=before_s
    )
    if reason is None:
        ladder.request(kernel.since_boot(), "shutdown", 0.0)
    return ladder

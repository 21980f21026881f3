"""Named points of the code at which a test can end the process, exactly there. For tests only.

A test names a folder in the environment variable GPUQ_FAULTS before it starts a process of gpuq. A file in that folder
with the name of a point arms it; its text is an action, `kill` for instance, or `kill@3` for the third time that a
process passes there:

    kill    SIGKILL to this process
    stop    SIGSTOP to this process; it goes on when somebody continues it
    raise   raises Injected

Whoever gets there first renames the file to `NAME.reached` and then acts. So every arming happens once, also when the
process is started again, and a test sees that the point was reached. A file `boot_id` is what the machine's boot id is
taken to be. Without the variable a point is a call of an empty function.
"""

from __future__ import annotations

import _thread
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "GPUQ_FAULTS"
BOOT_ID = "boot_id"

# Every point, and what is so at that moment.
POINTS: dict[str, str] = {
    "submit.before_commit": "job rows and events are written, the transaction is open",
    "submit.committed": "the submission is durable, the hot queue does not know of it",
    "submit.hinted": "the agent or the hot queue knows of it, and who asked may have been answered",
    "submit.claimed": "the job is starting since its submission, which may be answered, and nothing is launched",
    "lease.taken": "the job left the hot queue and its GPUs are leased, in SQL it is queued",
    "claim.before_commit": "the attempt row is written, the transaction is open",
    "claim.committed": "the job is starting, the attempt has no folders",
    "launch.folder_made": "the attempt's folder of records is there and empty",
    "launch.lock_taken": "the attempt's lock is held by the daemon, there is no spec",
    "launch.before_send": "both folders are complete, no supervisor has them",
    "launch.sent": "lock, log and report are on their way to a supervisor",
    "start.heard": "the supervisor's report was read, SQL says starting",
    "start.committed": "SQL says running",
    "supervisor.before_spawn": "the supervisor holds the lock, there is no process of the job",
    "supervisor.spawned": "the job's process exists, nothing tells so",
    "supervisor.started": "started.json is written, the daemon has no report",
    "supervisor.main_ended": "the job's main process has ended and is not reaped, nothing is written",
    "supervisor.job_ended": "the last process of the job has ended, there is no exit record",
    "supervisor.end_recorded": "the exit record is durable, the lock is still held",
    "end.heard": "the agent has read the exit record, SQL says running",
    "finish.before_commit": "attempt and job are written, the transaction is open",
    "finish.committed": "the end is durable, the leases are still held",
    "finish.released": "the leases are released, nothing was planned since",
    "rehydrate.begun": "the new epoch is durable, the hot queue has the old one",
    "rehydrate.rebuilt": "the hot queue is filled, the marker is missing",
    "rehydrate.opened": "the hot queue is open, what became queued meanwhile is not in it",
    "promote.committed": "the job is queued, the hot queue does not know of it",
    "cancel.committed": "the cancel is durable, the supervisor was not told",
    "preempt.committed": "the preemption is durable, the supervisor was not told",
    "update.committed": "the change is durable, the supervisor of a running job was not told",
    "retry.committed": "the job is queued again, the hot queue does not know of it",
    "mark.drafted": "the home's new mark is written and not in its place yet",
    "mark.named": "the database has a name, the home does not know it",
    "mark.taken_on": "a database of the past has its new name, the home has the old one",
    "reap.proved": "a dead attempt was found and swept, nothing is written",
}


class Injected(Exception):
    """What the action `raise` raises: a failure that no code expects."""


_folder = os.environ.get(VARIABLE, "")
_passes: dict[str, int] = {}


def _pass_by(name: str) -> None: ...


def _look(name: str) -> None:
    path = f"{_folder}/{name}"
    try:
        with open(path) as file:
            action, _, turn = file.read().strip().partition("@")
        _passes[name] = _passes.get(name, 0) + 1
        if _passes[name] < int(turn or 1):
            return
        os.rename(path, f"{path}.reached")  # noqa: PTH104 - pathlib would cost every supervisor its import
    except FileNotFoundError:
        # Not armed, or another process was first.
        return
    del _passes[name]
    _act(name, action)


def _act(name: str, action: str) -> None:
    if action == "raise":
        raise Injected(f"fault injected at {name}")
    # To this thread: another one might take the signal, and this one would go on until it hears of it.
    signal.pthread_kill(_thread.get_ident(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[action])


point: Callable[[str], None] = _look if _folder else _pass_by


def boot_id() -> str | None:
    """The boot id that a test has set; None outside tests."""
    if not _folder:
        return None
    try:
        with open(f"{_folder}/{BOOT_ID}") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None

"""The future of a call: the standard library's, settled from the job that runs the call."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from concurrent.futures import InvalidStateError as _Settled
from typing import TYPE_CHECKING, Generic, TypeVar

from gpuq.client.job import Job
from gpuq.errors import GpuqError, NotFound, Unavailable, WrongState
from gpuq.functions import payload
from gpuq.python_values import RemoteTraceback

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuq.client.client import Client

T = TypeVar("T")

_STARTED = frozenset({"starting", "running", "stopping"})


class JobFuture(Future[T], Generic[T]):
    """A `concurrent.futures.Future` of a function that runs as a job. `job`: as it was last seen; None while
    `max_workers` of the executor keeps it back.

    `cancel` is the standard library's: it takes a call out of line and does nothing to one that runs. A future that
    nobody waits for any more costs the job nothing; `gpuq.attach(future.job.id)` makes another one.
    """

    def __init__(self, client: Client, job: Job | None = None, drop: Callable[[JobFuture[T]], bool] | None = None):
        super().__init__()
        self._client = client
        self.job = job
        self._drop = drop

    def cancel(self) -> bool:
        """Takes the call out of line. False when it runs or has ended: `kill` stops one that runs."""
        if self.done():
            return self.cancelled()
        if self.job is None:
            taken_out = self._drop is not None and self._drop(self)
            return self._cancelled() if taken_out else self.cancel() if self.job is not None else False
        try:
            # Held first: only a job that waits can be, so that what starts in this moment goes on.
            self._client.hold(self.job.id)
        except WrongState:
            if self._client.job(self.job.id).state != "held":
                return False
        self.job = self._client.cancel(self.job.id, reason="future.cancel()")
        return self._cancelled()

    def kill(self, *, grace_s: float | None = None) -> None:
        """Stops the call, also one that runs: SIGTERM, and SIGKILL after `grace_s` seconds. The future raises
        JobCancelled when it is gone. Does nothing to one that has ended."""
        if self.job is None:
            self.cancel()
        elif not self.done():
            with contextlib.suppress(WrongState):
                self.job = self._client.cancel(self.job.id, grace_s=grace_s, reason="future.kill()")

    def progress(self) -> float | None:
        """How far it says it is, 0 to 1 (see gpuq.progress); None: it has not said so."""
        if self.job is None:
            return None
        if not self.done():
            self.job = self._client.job(self.job.id)
        return self.job.progress

    def log(self) -> str:
        """What it has printed so far."""
        return "" if self.job is None else self._client.logs(self.job.id)

    def _cancelled(self) -> bool:
        """Told to whoever waits; True."""
        super().cancel()
        with contextlib.suppress(_Settled, RuntimeError):
            self.set_running_or_notify_cancel()
        return self.cancelled()

    def see(self, job: Job) -> bool:
        """Takes in how the job fares; whether it is settled now. Called by the watcher alone."""
        self.job = job
        if self.done():
            return True
        if not job.is_final:
            if job.state in _STARTED and not self.running():
                self.set_running_or_notify_cancel()
            return False
        try:
            value = job.result()
        except Exception as error:
            if isinstance(error, Unavailable) and not isinstance(error.__cause__, RemoteTraceback):
                # Not what the function raised: the daemon is away, and is asked again.
                raise
            self._settle(None, error)
        else:
            self._settle(value, None)
        if job.state == "completed" and len(job.command) == COMMAND_WORDS and job.command[2:4] == COMMAND[2:4]:
            payload.remove(job.command[-1])
        return True

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        # Somebody may have cancelled it in this moment.
        with contextlib.suppress(_Settled):
            if not self.running() and not self.set_running_or_notify_cancel():
                return
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(value)  # type: ignore[arg-type]

    def give_up(self, error: GpuqError) -> None:
        """The job cannot be asked for any more."""
        self._settle(None, error)


# Of the job of a call: this Python, `-P` (no module of the folder where it runs stands for gpuq's), the file.
COMMAND = ("", "-P", "-m", "gpuq.functions.call")
COMMAND_WORDS = len(COMMAND) + 1


def gone(job_id: int) -> NotFound:
    """That a job is not there any more."""
    return NotFound(f"there is no job {job_id} any more", hint="GPUQ_KEEP_HISTORY says how long one is kept")

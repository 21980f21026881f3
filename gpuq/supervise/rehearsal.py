"""A launch of nothing: all that a launch needs of the machine, without a job that would pay for what is missing.

The attempt is told to stop before it is handed over, so a supervisor takes it, writes its exit record, and is gone.
"""

from __future__ import annotations

import glob
import os
import select
import shutil
from collections.abc import Callable

from gpuq.domain.ids import new_token
from gpuq.domain.outcome import Outcome, Result
from gpuq.ports.launcher import LaunchOrder
from gpuq.supervise import bundle, stop

_NAME = ".rehearsal"


def clear(folder: str) -> None:
    """Removes what a process left that was killed in the middle of one; whoever has the node has no other one now."""
    for left in glob.glob(f"{glob.escape(folder)}/{_NAME}.*"):
        shutil.rmtree(left, ignore_errors=True)


class Rehearsal:
    """See the port. `start` and `outcome` are those of the launcher. Raises OSError when it cannot even begin."""

    def __init__(
        self, folder: str, start: Callable[[LaunchOrder], int], outcome: Callable[[str, str], Result | None]
    ) -> None:
        clear(folder)
        self._token = new_token()
        self._folder = os.path.join(folder, f"{_NAME}.{self._token[:12]}")
        self._run_dir = os.path.join(self._folder, "1")
        self._outcome = outcome
        spec = {"schema": bundle.SCHEMA, "token": self._token, "argv": ["/bin/true"], "env": {}}
        log_path = os.path.join(self._run_dir, bundle.LOG)
        try:
            stop.request_stop(self._run_dir, "drain", 0.0)
            self._fd = start(LaunchOrder(0, 1, self._token, self._run_dir, log_path, spec))
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def over(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> str | None:
        over = self.over()
        os.close(self._fd)
        try:
            found = self._outcome(self._run_dir, self._token)
        except OSError as error:
            return f"the record of an end cannot be read: {error.strerror}"
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        if found is not None:
            # Anything but the end that it was told to have.
            return None if found.outcome in {Outcome.LOST, Outcome.PREEMPTED, Outcome.CANCELLED} else found.error
        return "a supervisor died before it had begun" if over else "no supervisor takes a launch"

"""`gpuq logs -f` of several jobs: a thread each that reads, one that writes whole lines."""

from __future__ import annotations

import queue
import threading

from gpuq.cli.exit_code import of_job
from gpuq.cli.messages import tell
from gpuq.errors import GpuqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from gpuq.client.calls import Calls

    Step = Callable[[], object]

    class Reading(Protocol):
        """Reads the output of one job after another; see `gpuq.cli.commands.logs`."""

        client: Calls

        def output(self, job_id: int, label: str = "", name: str = "") -> Iterator[Step]: ...


# Pieces of output that may wait to be written; who reads more waits.
WAITING_PIECES = 64


def follow_many(reading: Reading, named: dict[int, str]) -> int:
    """To the end of all of them; returns the largest exit code. `named`: what stands before each job's lines."""
    steps: queue.Queue[Step | GpuqError | int] = queue.Queue(WAITING_PIECES)
    widest = max(map(len, named.values()))
    for job_id, name in named.items():
        words = (reading, steps, job_id, name.ljust(widest), f"job {name}, ")
        threading.Thread(target=_read, args=words, name=f"logs-{job_id}", daemon=True).start()
    code, left = 0, len(named)
    while left:
        step = steps.get()
        if callable(step):
            step()
            continue
        left -= 1
        code = max(code, step if isinstance(step, int) else tell(step))
    return code


def _read(reading: Reading, steps: queue.Queue[Step | GpuqError | int], job_id: int, label: str, name: str) -> None:
    """Its last word is the job's exit code, or what kept it from being followed."""
    try:
        for step in reading.output(job_id, label, name):
            steps.put(step)
        steps.put(of_job(reading.client.job(job_id)))
    except GpuqError as error:
        steps.put(error)

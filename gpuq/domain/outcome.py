"""How one attempt ended, and what each ending means for the job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    EXIT_NONZERO = "exit_nonzero"
    SIGNAL = "signal"
    GPU_OOM = "gpu_oom"
    HOST_OOM = "host_oom"
    TIME_LIMIT = "time_limit"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    LAUNCH_ERROR = "launch_error"
    LOST = "lost"
    OUTPUT_LIMIT = "output_limit"


SENTENCES: dict[Outcome, str] = {
    Outcome.SUCCEEDED: "exit code 0",
    Outcome.EXIT_NONZERO: "exit code other than 0",
    Outcome.SIGNAL: "ended by a signal that gpuq did not send",
    Outcome.GPU_OOM: "ran out of GPU memory",
    Outcome.HOST_OOM: "ended by the kernel's out-of-memory killer",
    Outcome.TIME_LIMIT: "ran into its --time",
    Outcome.CANCELLED: "cancelled",
    Outcome.PREEMPTED: "made room for another job, or was requeued",
    Outcome.LAUNCH_ERROR: "could not be launched",
    Outcome.LOST: "daemon, supervisor or host died and took the job with it",
    Outcome.OUTPUT_LIMIT: "wrote more output than GPUQ_MAX_OUTPUT allows",
}

# Failures of the user's program (or of its command line): each uses one of `max_retries`.
USES_RETRY = frozenset(
    {
        Outcome.EXIT_NONZERO,
        Outcome.SIGNAL,
        Outcome.GPU_OOM,
        Outcome.HOST_OOM,
        Outcome.TIME_LIMIT,
        Outcome.LAUNCH_ERROR,
        Outcome.OUTPUT_LIMIT,
    }
)


@dataclass(frozen=True, slots=True)
class Result:
    """The seen end of an attempt. Times in epoch seconds; memory in MiB. `swept` false: its supervisor was killed, so
    what the job left running may still be there. `machine_fault`: it could not be launched here, and nothing proves
    that the job is why. `result_bytes`, `result_type` (a media type), `short_result`: what it left as its results;
    `result_error`: why one that it wrote is not kept, for people.
    """

    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    peak_gpu_mem_mb: int | None = None
    avg_gpu_util: float | None = None
    log_tail: str | None = None
    swept: bool = True
    machine_fault: bool = False
    result_bytes: int | None = None
    result_type: str | None = None
    short_result: str | None = None
    result_error: str | None = None

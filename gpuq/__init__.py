"""gpuq: a durable GPU job queue for a team that shares one machine.

    from gpuq import Client

    with Client() as client:
        job = client.submit(["python", "train.py"], gpus=2).wait()
        print(job.state, job.logs())

In a job, `progress`, `result`, `short_result`, `checkpoint_dir` and `current` speak of the job itself.

`Client`, the values that it answers and the errors that it raises are imported from here; all errors that there are
stand in `gpuq.errors`.
"""

from __future__ import annotations

# As in gpuq.errors: typing costs 8 ms of import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuq.client.calls import LogChunk
    from gpuq.client.client import Client
    from gpuq.client.job import Expected, Job, Queue
    from gpuq.client.rules import Limit, PlannedDrain
    from gpuq.client.submission import Changes, Options, Submission
    from gpuq.client.values import (
        Attempt,
        Check,
        DeadLetter,
        Event,
        Gpu,
        GpuJob,
        GpuProcess,
        Group,
        Pause,
        Preemption,
        Reason,
        Stats,
        Table,
        Why,
    )
    from gpuq.errors import (
        ConfigError,
        Constraint,
        DaemonUnreachable,
        Forbidden,
        GpuOutOfMemory,
        GpuqError,
        JobCancelled,
        JobFailed,
        JobLost,
        NotFound,
        QueueFull,
        Refused,
        RemoteError,
        TimeLimit,
        Unauthenticated,
        Unavailable,
        UsageError,
        WrongState,
    )
    from gpuq.functions.executor import Executor, attach
    from gpuq.functions.future import JobFuture
    from gpuq.functions.lease import Lease, lease
    from gpuq.in_job import Current, checkpoint_dir, current, progress, result, short_result

__version__ = "0.2.0.dev0"

__all__ = [
    "Attempt",
    "Changes",
    "Check",
    "Client",
    "ConfigError",
    "Constraint",
    "Current",
    "DaemonUnreachable",
    "DeadLetter",
    "Event",
    "Executor",
    "Expected",
    "Forbidden",
    "Gpu",
    "GpuJob",
    "GpuOutOfMemory",
    "GpuProcess",
    "GpuqError",
    "Group",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobFuture",
    "JobLost",
    "Lease",
    "Limit",
    "LogChunk",
    "NotFound",
    "Options",
    "Pause",
    "PlannedDrain",
    "Preemption",
    "Queue",
    "QueueFull",
    "Reason",
    "Refused",
    "RemoteError",
    "Stats",
    "Submission",
    "Table",
    "TimeLimit",
    "Unauthenticated",
    "Unavailable",
    "UsageError",
    "Why",
    "WrongState",
    "__version__",
    "attach",
    "checkpoint_dir",
    "current",
    "lease",
    "progress",
    "result",
    "short_result",
]

# Where each of them comes from when the program runs.
_HOMES = {
    "gpuq.client.calls": ("LogChunk",),
    "gpuq.client.job": ("Expected", "Job", "Queue"),
    "gpuq.client.rules": ("Limit", "PlannedDrain"),
    "gpuq.client.submission": ("Changes", "Options", "Submission"),
    "gpuq.client.client": ("Client",),
    "gpuq.client.values": (
        *("Attempt", "Check", "DeadLetter", "Event", "Gpu", "GpuJob", "GpuProcess", "Group"),
        *("Pause", "Preemption", "Reason", "Stats", "Table", "Why"),
    ),
    "gpuq.errors": (
        *("ConfigError", "Constraint", "DaemonUnreachable", "Forbidden", "GpuOutOfMemory", "GpuqError", "JobCancelled"),
        *("JobFailed", "JobLost", "NotFound", "QueueFull", "Refused", "RemoteError", "TimeLimit"),
        *("Unauthenticated", "Unavailable", "UsageError", "WrongState"),
    ),
    "gpuq.functions.executor": ("Executor", "attach"),
    "gpuq.functions.future": ("JobFuture",),
    "gpuq.functions.lease": ("Lease", "lease"),
    "gpuq.in_job": ("Current", "checkpoint_dir", "current", "progress", "result", "short_result"),
}

# Hidden from type checkers, to whom it would say that every name is here.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Lazy, because every supervisor and every command line imports this module.
        for module, names in _HOMES.items():
            if name in names:
                # Not importlib, which brings more with it than most of these modules.
                found = globals()[name] = getattr(__import__(module, fromlist=[name]), name)
                return found
        raise AttributeError(f"module 'gpuq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

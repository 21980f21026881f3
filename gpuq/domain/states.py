"""The job state machine, as data.

The SQL guards, the CHECK constraints, the tests and the picture in the README all read this table, so
a transition that is not here cannot be written anywhere.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands between its submission and its end."""

    BLOCKED = "blocked"
    HELD = "held"
    DELAYED = "delayed"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


SENTENCES: dict[JobState, str] = {
    JobState.BLOCKED: "waits for other jobs",
    JobState.HELD: "a person holds it",
    JobState.DELAYED: "waits for a time: --begin or retry backoff",
    JobState.QUEUED: "could run; waits for its turn and for GPUs",
    JobState.STARTING: "GPUs are leased, the process is being launched",
    JobState.RUNNING: "its processes are alive",
    JobState.STOPPING: "is being cancelled, preempted or timed out; processes are still alive",
    JobState.COMPLETED: "ended with exit code 0",
    JobState.FAILED: "retries are used up; it is in the dead-letter queue",
    JobState.CANCELLED: "somebody cancelled it",
}

WAITING = frozenset({JobState.BLOCKED, JobState.HELD, JobState.DELAYED, JobState.QUEUED})
ACTIVE = frozenset({JobState.STARTING, JobState.RUNNING, JobState.STOPPING})
FINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})

_S = JobState
TRANSITIONS: dict[JobState, dict[JobState, str]] = {
    _S.BLOCKED: {
        _S.QUEUED: "its dependencies ended as asked",
        _S.DELAYED: "its dependencies ended, its begin time is still to come",
        _S.HELD: "held",
        _S.CANCELLED: "cancelled, or a dependency can never be satisfied",
    },
    _S.HELD: {
        _S.QUEUED: "released",
        _S.DELAYED: "released before its begin time",
        _S.BLOCKED: "released with dependencies open",
        _S.CANCELLED: "cancelled",
    },
    _S.DELAYED: {
        _S.QUEUED: "its time has come",
        _S.HELD: "held",
        _S.CANCELLED: "cancelled",
    },
    _S.QUEUED: {
        _S.STARTING: "claimed: GPUs leased, attempt counted",
        _S.HELD: "held",
        _S.DELAYED: "given a begin time",
        _S.BLOCKED: "given a dependency",
        _S.CANCELLED: "cancelled",
    },
    _S.STARTING: {
        _S.RUNNING: "launched",
        _S.STOPPING: "cancelled while being launched",
        _S.QUEUED: "never launched: given back",
        _S.DELAYED: "launch failed: retry after backoff",
        _S.FAILED: "launch failed, retries used up",
        _S.COMPLETED: "ended before its start was noted",
        _S.CANCELLED: "cancelled before it ran",
    },
    _S.RUNNING: {
        _S.STOPPING: "told to stop",
        _S.COMPLETED: "ended with exit code 0",
        _S.DELAYED: "failed: retry after backoff",
        _S.QUEUED: "lost or preempted: back in line",
        _S.FAILED: "failed, retries used up",
        _S.CANCELLED: "ended by a cancel noted in its records",
    },
    _S.STOPPING: {
        _S.CANCELLED: "cancelled and gone",
        _S.QUEUED: "preempted: back in line",
        _S.DELAYED: "time limit or crash: retry after backoff",
        _S.FAILED: "time limit or crash, retries used up",
        _S.COMPLETED: "ended with exit code 0 before the stop reached it",
    },
    _S.COMPLETED: {},
    _S.FAILED: {_S.QUEUED: "retried", _S.BLOCKED: "retried with dependencies open"},
    _S.CANCELLED: {_S.QUEUED: "retried", _S.BLOCKED: "retried with dependencies open"},
}


def allowed(source: JobState, target: JobState) -> bool:
    return target in TRANSITIONS[source]


# Columns of `jobs` that are non-null only in these states; elsewhere a CHECK keeps them null.
FIELDS_OF_STATES: dict[str, frozenset[JobState]] = {
    "token": ACTIVE,
    "eligible_at": frozenset({_S.DELAYED}),
    "held_by": frozenset({_S.HELD}),
    "stop_reason": frozenset({_S.STOPPING}),
    "stop_deadline": frozenset({_S.STOPPING}),
    "started_at": ACTIVE | FINAL,
    "finished_at": FINAL,
    "outcome": FINAL,
    "exit_code": FINAL,
    "signal": FINAL,
    "error": FINAL,
}

# Of those, the ones that must be there while the job is in such a state.
REQUIRED_IN_STATES: dict[str, frozenset[JobState]] = {
    "token": ACTIVE,
    "eligible_at": frozenset({_S.DELAYED}),
    "held_by": frozenset({_S.HELD}),
    "stop_reason": frozenset({_S.STOPPING}),
    "finished_at": FINAL,
    "outcome": FINAL,
}

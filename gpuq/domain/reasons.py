"""Why a job is not running now, as data; the CLI, the API and the pages render the same text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Pydantic, which makes the schema of this, takes the standard library's only from Python 3.12 on.
from typing_extensions import TypedDict


class ReasonCode(StrEnum):
    """Why a job does not run, for programs: stable names that answers carry."""

    PRIORITY = "Priority"
    RESOURCES = "Resources"
    DEPENDENCY = "Dependency"
    DEPENDENCY_NEVER_SATISFIED = "DependencyNeverSatisfied"
    BEGIN_TIME = "BeginTime"
    RETRY_BACKOFF = "RetryBackoff"
    HELD_BY_USER = "HeldByUser"
    HELD_BY_ADMIN = "HeldByAdmin"
    USER_LIMIT = "UserLimit"
    EXTERNAL_PROCESS = "ExternalProcess"
    GPU_UNHEALTHY = "GpuUnhealthy"
    CONSTRAINT = "Constraint"
    QUEUE_PAUSED = "QueuePaused"
    NO_AGENT = "NoAgent"
    STARTING = "Starting"
    LAUNCH_TROUBLE = "LaunchTrouble"
    NO_ACCOUNT = "NoAccount"
    STUCK = "Stuck"
    MAINTENANCE = "Maintenance"
    SECRETS_UNREADABLE = "SecretsUnreadable"


SENTENCES: dict[ReasonCode, str] = {
    ReasonCode.PRIORITY: "jobs before it in line come first",
    ReasonCode.RESOURCES: "not enough GPUs are free",
    ReasonCode.DEPENDENCY: "waits for other jobs to end",
    ReasonCode.DEPENDENCY_NEVER_SATISFIED: "a job it waits for did not succeed",
    ReasonCode.BEGIN_TIME: "its --begin time is still to come",
    ReasonCode.RETRY_BACKOFF: "waits before its next retry",
    ReasonCode.HELD_BY_USER: "its owner holds it",
    ReasonCode.HELD_BY_ADMIN: "an administrator holds it",
    ReasonCode.USER_LIMIT: "a limit on this user, group or array is reached",
    ReasonCode.EXTERNAL_PROCESS: "a process outside the queue uses the GPU",
    ReasonCode.GPU_UNHEALTHY: "a GPU is unhealthy or drained",
    ReasonCode.CONSTRAINT: "can never run on this machine",
    ReasonCode.QUEUE_PAUSED: "the queue is paused",
    ReasonCode.NO_AGENT: "no agent runs; start one with `gpuq up`",
    ReasonCode.STARTING: "its turn has come; it is being started",
    ReasonCode.LAUNCH_TROUBLE: "nothing can be started here now: the disk is full, for instance, or Redis away",
    ReasonCode.STUCK: "it does not come to its end: its supervisor stands still, or what is left of it cannot be ended",
    ReasonCode.MAINTENANCE: "it would not end before a planned drain, or that has begun",
    ReasonCode.SECRETS_UNREADABLE: "its secrets were encrypted with a key that is not there now",
    ReasonCode.NO_ACCOUNT: "its user has no account on this machine now, or not the one that submitted it",
}


class ReasonView(TypedDict):
    """The JSON of a reason."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a job does not run: a code for programs and a sentence for people."""

    code: ReasonCode
    text: str

    def to_json(self) -> ReasonView:
        """The JSON of this reason."""
        return {"code": str(self.code), "text": self.text}

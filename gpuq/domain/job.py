"""The stored job and its attempts. Times are epoch seconds, memory MiB."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import TypedDict

from gpuq.domain.outcome import Outcome
from gpuq.domain.priority import Priority
from gpuq.domain.reasons import Reason, ReasonView
from gpuq.domain.states import JobState
from gpuq.domain.sweep import Parameters
from gpuq.domain.times import iso, iso_range


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `jobs`, without the full spec (which holds the environment and can be large)."""

    id: int
    name: str
    user: str
    uid: int | None
    group: str | None
    state: JobState
    priority: Priority
    score: float
    command: tuple[str, ...]
    cwd: str
    gpus: int
    gpu_mem_mb: int | None
    gpu_model: str | None
    gpu_ids: tuple[int, ...] | None
    time_limit_s: float | None
    max_retries: int
    retries_used: int
    lost_count: int
    attempt: int
    token: str | None
    key: str | None
    preemptible: bool
    array_id: int | None
    array_index: int | None
    array_limit: int | None
    after: tuple[int, ...]
    after_any: tuple[int, ...]
    submitted_at: float
    eligible_at: float | None
    held_by: str | None
    stop_reason: str | None
    stop_deadline: float | None
    started_at: float | None
    finished_at: float | None
    outcome: Outcome | None
    exit_code: int | None
    signal: int | None
    error: str | None
    node: str | None
    gpu_indices: tuple[int, ...] | None
    gpu_uuids: tuple[str, ...] | None
    pid: int | None
    log_path: str | None
    run_dir: str | None
    peak_gpu_mem_mb: int | None
    parameters: Parameters | None = None
    result_bytes: int | None = None
    result_type: str | None = None
    short_result: str | None = None


class AttemptView(TypedDict):
    """The JSON of an attempt. Times: ISO 8601 in UTC; memory in MiB; utilisation 0 to 1."""

    number: int
    outcome: Outcome | None
    exit_code: int | None
    signal: int | None
    node: str
    gpu_indices: list[int]
    gpu_uuids: list[str]
    pid: int | None
    started_at: str | None
    finished_at: str | None
    peak_gpu_mem_mb: int | None
    avg_gpu_util: float | None
    error: str | None
    log_path: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job. What comes after `claimed_at` is None until it is known, `outcome` while it lives. `pid` is the
    job's process; `supervisor_pid` the supervisor's, each meaningful only with its start time (clock ticks since boot,
    /proc/PID/stat field 22) and only under `boot_id`."""

    job_id: int
    number: int
    token: str
    node: str
    boot_id: str
    gpu_indices: tuple[int, ...]
    gpu_uuids: tuple[str, ...]
    gpu_mem_mb: int | None
    run_dir: str
    log_path: str
    claimed_at: float
    started_at: float | None = None
    finished_at: float | None = None
    supervisor_pid: int | None = None
    supervisor_start: int | None = None
    pid: int | None = None
    pid_start: int | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    peak_gpu_mem_mb: int | None = None
    avg_gpu_util: float | None = None

    def to_json(self) -> AttemptView:
        """The JSON of this attempt."""
        return {
            "number": self.number,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "node": self.node,
            "gpu_indices": list(self.gpu_indices),
            "gpu_uuids": list(self.gpu_uuids),
            "pid": self.pid,
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "peak_gpu_mem_mb": self.peak_gpu_mem_mb,
            "avg_gpu_util": self.avg_gpu_util,
            "error": self.error,
            "log_path": self.log_path,
        }


@dataclass(frozen=True, slots=True)
class Launched:
    """The supervisor's word that the job's process exists. Start times: clock ticks since boot."""

    supervisor_pid: int
    supervisor_start: int
    pid: int
    pid_start: int
    started_at: float


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What is not stored but worked out when somebody asks: place in line (from 1), reason, estimates; `…_range`: from
    when to when, in four of five cases."""

    position: int | None = None
    reason: Reason | None = None
    estimated_start: float | None = None
    estimated_end: float | None = None
    progress: float | None = None
    estimated_start_range: tuple[float, float] | None = None
    estimated_end_range: tuple[float, float] | None = None


class JobView(TypedDict):
    """The JSON of a job: the one list of its names, their order and their types, from which the answer to a submission
    and the OpenAPI document are made. Times: ISO 8601 in UTC; memory in MiB; progress 0 to 1."""

    id: int
    name: str
    user: str
    group: str | None
    state: JobState
    reason: ReasonView | None
    outcome: Outcome | None
    command: list[str]
    cwd: str
    priority: str
    gpus: int
    gpu_mem_mb: int | None
    gpu_model: str | None
    gpu_ids: list[int] | None
    time_limit_s: float | None
    max_retries: int
    retries_used: int
    attempt: int
    array_id: int | None
    array_index: int | None
    key: str | None
    after: list[int]
    after_any: list[int]
    preemptible: bool
    submitted_at: str | None
    eligible_at: str | None
    started_at: str | None
    finished_at: str | None
    stop_deadline: str | None
    position: int | None
    estimated_start: str | None
    estimated_end: str | None
    estimated_start_range: list[str | None] | None
    estimated_end_range: list[str | None] | None
    progress: float | None
    node: str | None
    gpu_indices: list[int] | None
    gpu_uuids: list[str] | None
    pid: int | None
    exit_code: int | None
    signal: int | None
    error: str | None
    peak_gpu_mem_mb: int | None
    log_path: str | None
    parameters: dict[str, str] | None
    short_result: str | None
    result_bytes: int | None
    result_type: str | None


# One entry for each name above, so it is as long as the list; the type checker refuses a missing or a foreign one.
def job_json(job: Job, outlook: JobStatus = JobStatus()) -> JobView:
    """The JSON of a job, with what is worked out of it in `outlook`."""
    return {
        "id": job.id,
        "name": job.name,
        "user": job.user,
        "group": job.group,
        "state": job.state,
        "reason": outlook.reason.to_json() if outlook.reason else None,
        "outcome": job.outcome,
        "command": list(job.command),
        "cwd": job.cwd,
        "priority": job.priority.label,
        "gpus": job.gpus,
        "gpu_mem_mb": job.gpu_mem_mb,
        "gpu_model": job.gpu_model,
        "gpu_ids": list(job.gpu_ids) if job.gpu_ids is not None else None,
        "time_limit_s": job.time_limit_s,
        "max_retries": job.max_retries,
        "retries_used": job.retries_used,
        "attempt": job.attempt,
        "array_id": job.array_id,
        "array_index": job.array_index,
        "key": job.key,
        "after": list(job.after),
        "after_any": list(job.after_any),
        "preemptible": job.preemptible,
        "submitted_at": iso(job.submitted_at),
        "eligible_at": iso(job.eligible_at),
        "started_at": iso(job.started_at),
        "finished_at": iso(job.finished_at),
        "stop_deadline": iso(job.stop_deadline),
        "position": outlook.position,
        "estimated_start": iso(outlook.estimated_start),
        "estimated_end": iso(outlook.estimated_end),
        "estimated_start_range": iso_range(outlook.estimated_start_range),
        "estimated_end_range": iso_range(outlook.estimated_end_range),
        "progress": outlook.progress,
        "node": job.node,
        "gpu_indices": list(job.gpu_indices) if job.gpu_indices is not None else None,
        "gpu_uuids": list(job.gpu_uuids) if job.gpu_uuids is not None else None,
        "pid": job.pid,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "error": job.error,
        "peak_gpu_mem_mb": job.peak_gpu_mem_mb,
        "log_path": job.log_path,
        "parameters": None if job.parameters is None else dict(job.parameters),
        # What an earlier end left stands in the row until the next one.
        "short_result": job.short_result if job.finished_at is not None else None,
        "result_bytes": job.result_bytes if job.finished_at is not None else None,
        "result_type": job.result_type if job.finished_at is not None else None,
    }

"""The job as a value, with the calls that concern it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, Self

from gpuq.client.rules import PlannedDrain
from gpuq.client.values import Attempt, Event, Pause, Read, Reason, Value, Why, many, moment, moments
from gpuq.client.watch import FINAL
from gpuq.errors import Forbidden, GpuOutOfMemory, JobCancelled, JobFailed, JobLost, NotFound, TimeLimit, UsageError


class JobClient(Protocol):
    """What a job asks of the client that it came from."""

    def job(self, job_id: int) -> Job:
        """The job as it is now."""

    def wait(self, *jobs: int, timeout_s: float | None = None) -> list[Job]:
        """The jobs once all are final. Raises TimeoutError after `timeout_s` seconds."""

    def cancel(
        self, job_id: int, *, force: bool = False, grace_s: float | None = None, reason: str | None = None
    ) -> Job:
        """Asks for the end of a job and returns the job as it is then. `grace_s`: seconds before SIGKILL."""

    def logs(self, job_id: int, *, attempt: int | None = None, last_bytes: int | None = None) -> str:
        """The output of an attempt, the current one by default; only its end with `last_bytes`."""

    def result(self, job_id: int) -> bytes:
        """What the job left as its result."""

    def user(self) -> str:
        """Whom the daemon takes this program for."""

    def why(self, job_id: int) -> Why:
        """Why the job does not run."""


@dataclass(frozen=True, kw_only=True)
class Expected(Value):
    """How long a job is expected to run, in seconds, what that rests on, and on how many earlier runs; in four of five
    cases it is between `low_s` and `high_s`."""

    seconds: float
    source: str = ""
    samples: int = 0
    low_s: float | None = None
    high_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Job(Value):
    """A job as the queue knew it when it was asked; it does not change, `refresh` gets a new one.

    `state`: blocked, held, delayed, queued, starting, running, stopping, completed, failed or cancelled (the last three
    are final). `reason` says why it is not running; `outcome`, `exit_code`, `signal` and `error` how it ended;
    `position` (from 1), `estimated_start` and `estimated_end` what the forecast says, and the ranges from when to when
    that is in four of five cases. `attempt` is the number of the
    newest attempt, 0 before the first. `time_limit_s` in seconds, memory in MiB, `progress` 0 to 1. `attempts`,
    `events`, `expected` and `script_bytes` (of its batch script) are there when the job was asked for by its id, and
    empty in lists.
    """

    id: int
    name: str = ""
    user: str = ""
    group: str | None = None
    state: str = ""
    reason: Reason | None = None
    outcome: str | None = None
    command: tuple[str, ...] = ()
    cwd: str = ""
    priority: str = "normal"
    gpus: int = 0
    gpu_mem_mb: int | None = None
    gpu_model: str | None = None
    gpu_ids: tuple[int, ...] | None = None
    cpus: int | None = None
    mem_mb: int | None = None
    nodes: int = 1
    time_limit_s: float | None = None
    max_retries: int = 0
    retries_used: int = 0
    attempt: int = 0
    array_id: int | None = None
    array_index: int | None = None
    parameters: Mapping[str, Any] | None = field(default=None, hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    key: str | None = None
    after: tuple[int, ...] = ()
    after_any: tuple[int, ...] = ()
    preemptible: bool = False
    submitted_at: datetime | None = None
    eligible_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    stop_deadline: datetime | None = None
    position: int | None = None
    estimated_start: datetime | None = None
    estimated_end: datetime | None = None
    estimated_start_range: tuple[datetime, datetime] | None = None
    estimated_end_range: tuple[datetime, datetime] | None = None
    expected: Expected | None = None
    progress: float | None = None
    node: str | None = None
    gpu_indices: tuple[int, ...] | None = None
    gpu_uuids: tuple[str, ...] | None = None
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    peak_gpu_mem_mb: int | None = None
    log_path: str | None = None
    pool: str | None = None
    callback: str | None = None
    short_result: str | None = None
    result_bytes: int | None = None
    result_type: str | None = None
    script_bytes: int | None = None
    attempts: tuple[Attempt, ...] = ()
    events: tuple[Event, ...] = ()

    _client: JobClient | None = field(default=None, repr=False, compare=False)

    _read: ClassVar[Mapping[str, Read]] = {
        "reason": Reason.from_json,
        "expected": Expected.from_json,
        "attempts": many(Attempt),
        "events": many(Event),
        **dict.fromkeys(("estimated_start_range", "estimated_end_range"), moments),
        **dict.fromkeys(("command", "gpu_ids", "after", "after_any", "gpu_indices", "gpu_uuids"), tuple),
        **dict.fromkeys(
            (
                *("submitted_at", "eligible_at", "started_at", "finished_at", "stop_deadline"),
                *("estimated_start", "estimated_end"),
            ),
            moment,
        ),
    }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], client: JobClient | None = None) -> Self:
        """The job of one decoded JSON object; `client` is asked by the methods below, which without one raise
        UsageError. Raises GpuqError for what is no job."""
        return cls._made(data, _client=client)

    def __getstate__(self) -> dict[str, Any]:
        # Connections cannot be pickled; the job itself can.
        return {**self.__dict__, "_client": None}

    @property
    def is_final(self) -> bool:
        """Whether it has ended: completed, failed or cancelled. Only a retry changes that."""
        return self.state in FINAL

    def refresh(self) -> Job:
        """The job as it is now, with its attempts and events."""
        return self._calls("refresh").job(self.id)

    def wait(self, timeout_s: float | None = None) -> Job:
        """The job when it is final. Raises TimeoutError after `timeout_s` seconds (None: waits for ever), and
        DaemonUnreachable when no daemon runs that could end it."""
        [ended] = self._calls("wait").wait(self.id, timeout_s=timeout_s)
        return ended

    def cancel(self, *, force: bool = False, grace_s: float | None = None, reason: str | None = None) -> Job:
        """Ends it: a waiting job at once, a running one with SIGTERM and, after `grace_s` seconds, SIGKILL; `force`:
        SIGKILL now. Returns the job as it is then, which may still be `stopping`. Raises Forbidden, WrongState."""
        return self._calls("cancel").cancel(self.id, force=force, grace_s=grace_s, reason=reason)

    def logs(self, *, attempt: int | None = None, last_bytes: int | None = None) -> str:
        """What it has written so far, of its newest attempt unless another is named; `last_bytes`: only the end, in
        bytes. Raises Forbidden for another user's output."""
        return self._calls("logs").logs(self.id, attempt=attempt, last_bytes=last_bytes)

    def result(self, timeout_s: float | None = None) -> Any:
        """Its result once it has ended, waiting as `wait` does: what a function returned, else the bytes that the
        program left.

        Raises what a function raised; JobFailed (TimeLimit, GpuOutOfMemory, JobCancelled, JobLost) when it has not
        succeeded, NotFound when it left nothing, Forbidden for another user's, TimeoutError.
        """
        client = self._calls("result")
        return result_of(client, self if self.is_final else self.wait(timeout_s))

    def why(self) -> Why:
        """Why it is not running, and when it is expected to."""
        return self._calls("why").why(self.id)

    def _calls(self, verb: str) -> JobClient:
        if self._client is None:
            raise UsageError(
                f"job {self.id} came from no client, so `{verb}` has nobody to ask",
                hint="use the jobs that a Client returns, or Job.from_json(data, client)",
            )
        return self._client


# As gpuq.domain.results has it.
_PYTHON_TYPE = "application/vnd.gpuq.python"
_FAILURES: Mapping[str | None, type[JobFailed]] = {
    "time_limit": TimeLimit, "gpu_oom": GpuOutOfMemory, "cancelled": JobCancelled, "lost": JobLost,
}  # fmt: skip


def result_of(client: JobClient, job: Job) -> Any:
    """The result of a job that has ended, see `Job.result`."""
    if job.result_type == _PYTHON_TYPE and job.result_bytes is not None:
        if client.user() != job.user:
            raise Forbidden(
                f"the result of job {job.id} is a Python value of {job.user}, whose code would run here",
                hint=f"`gpuq result {job.id} -o FILE` gives the bytes",
            )
        from gpuq.python_values import unpack

        data = client.result(job.id)
        try:
            return unpack(data)
        except Exception as error:
            error.add_note(f"in job {job.id}; `gpuq logs {job.id}` has its output")
            raise
    if job.state != "completed":
        raise failure(job)
    if job.result_bytes is None:
        raise _no_result(client.job(job.id))
    return client.result(job.id)


def _no_result(job: Job) -> NotFound:
    """What is said of one that was too large, or of none at all."""
    told = [event.detail or "" for event in job.events if event.to_state == job.state]
    why = told[-1].partition("; ")[2] if told else ""
    return NotFound(
        f"job {job.id} succeeded and left no result" + (f": {why}" if why else ""),
        hint=f"what it wrote is beside its output: {job.log_path}" if why else "see gpuq.result, and $GPUQ_RESULT_FILE",
    )


def failure(job: Job) -> JobFailed:
    """The error that a job without success is."""
    kind = _FAILURES.get(job.outcome, JobFailed)
    why = "was cancelled" if job.state == "cancelled" else f"failed: {job.error or job.outcome}"
    found = kind(f"job {job.id} ({job.name}) {why}", hint=f"`gpuq logs {job.id}` has its output")
    found.job_id, found.outcome = job.id, job.outcome
    code = job.exit_code if job.exit_code is not None else None if job.signal is None else 128 + job.signal
    if code and kind is JobFailed:
        # Of the class it is what gpuq itself would end with.
        found.exit_code = code  # type: ignore[misc]
    return found


@dataclass(frozen=True, kw_only=True)
class Queue(Value):
    """The line: running jobs, then waiting ones in order. `running`, `queued` and `waiting` count them all, `total`
    those that match, also where `jobs` is only a page of them. `paused` is None while jobs start, `drain` while none is
    planned."""

    running: int = 0
    queued: int = 0
    waiting: int = 0
    total: int = 0
    paused: Pause | None = None
    drain: PlannedDrain | None = None
    jobs: tuple[Job, ...] = ()

    _read: ClassVar[Mapping[str, Read]] = {"paused": Pause.from_json, "drain": PlannedDrain.from_json}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], client: JobClient | None = None) -> Self:
        """As for a job: `client` is asked by the methods of the jobs."""
        jobs = tuple(Job.from_json(job, client) for job in data.get("jobs", ()))
        return cls._made({**data, "jobs": jobs})

"""The job as a value, with the calls that concern it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, Self

from gpuq.client.rules import PlannedDrain
from gpuq.client.values import Attempt, Event, Pause, Read, Reason, Value, Why, many, moment
from gpuq.client.watch import FINAL
from gpuq.errors import UsageError


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

    def why(self, job_id: int) -> Why:
        """Why the job does not run."""


@dataclass(frozen=True, kw_only=True)
class Expected(Value):
    """How long a job is expected to run, in seconds, what that rests on, and on how many earlier runs."""

    seconds: float
    source: str = ""
    samples: int = 0


@dataclass(frozen=True, kw_only=True)
class Job(Value):
    """A job as the queue knew it when it was asked; it does not change, `refresh` gets a new one.

    `state`: blocked, held, delayed, queued, starting, running, stopping, completed, failed or cancelled (the last three
    are final). `reason` says why it is not running; `outcome`, `exit_code`, `signal` and `error` how it ended;
    `position` (from 1), `estimated_start` and `estimated_end` what the forecast says. `attempt` is the number of the
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

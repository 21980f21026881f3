"""What the queue answers, as frozen values made from the API's JSON.

Field names are those of the JSON. Times are aware `datetime`s in UTC, durations seconds, memory MiB, lists tuples. A
field that an older server does not send has its default; one that only a newer server sends is kept in `extra`. States,
outcomes and codes are plain text, because a newer server may know more of them than this release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Self

from gpuq.errors import GpuqError

Read = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Value:
    """What all values share. `extra`: fields of the JSON that this release does not know, as they came."""

    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    # How a field is made from its JSON, where it is not taken as it stands.
    _read: ClassVar[Mapping[str, Read]] = {}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The value of one decoded JSON object. Raises GpuqError for what no gpuq server sends: a time that is none,
        or an object without the field that names it."""
        return cls._made(data)

    @classmethod
    def _made(cls, data: Mapping[str, Any], **more: Any) -> Self:
        # To mypy a class whose instances have a hash of their own is not hashable itself.
        kind: Any = cls
        known, required = _names(kind)
        found: dict[str, Any] = {}
        for name, value in data.items():
            # null is what a field without a value has anyway.
            if name in known and value is not None:
                found[name] = _field(cls, name, value)
        missing = [name for name in required if name not in found]
        if missing:
            raise GpuqError(f"this is no {cls.__name__.lower()} of a gpuq server: {missing[0]!r} is missing")
        extra = {name: value for name, value in data.items() if name not in known}
        return cls(**found, extra=extra, **more)


@cache
def _names(kind: type[Value]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The fields that come from JSON, and those of them without a default."""
    own = [each for each in fields(kind) if each.name != "extra" and not each.name.startswith("_")]
    required = [each.name for each in own if each.default is MISSING and each.default_factory is MISSING]
    return frozenset(each.name for each in own), tuple(required)


def _field(kind: type[Value], name: str, value: Any) -> Any:
    read = kind._read.get(name)
    if read is None:
        return value
    try:
        return read(value)
    except (AttributeError, TypeError, ValueError):
        raise GpuqError(f"{name!r} of a {kind.__name__.lower()} is not what a gpuq server sends: {value!r}") from None


def many(kind: type[Value]) -> Read:
    """Reads a list of objects of one kind."""
    return lambda items: tuple(kind.from_json(item) for item in items)


moment: Read = datetime.fromisoformat


def moments(texts: Any) -> tuple[datetime, ...]:
    """Reads a list of times."""
    return tuple(map(datetime.fromisoformat, texts))


@dataclass(frozen=True, kw_only=True)
class Reason(Value):
    """Why a job is not running now, or a GPU not free. `code` is stable (`Resources`, `Priority`, …), `text` is for
    people."""

    code: str
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt(Value):
    """One run of a job, numbered from 1.

    `outcome` is None while it lives. `avg_gpu_util` is 0 to 1, `peak_gpu_mem_mb` MiB of the GPU that used most.
    `log_path` is a file on the machine that ran it.
    """

    number: int
    outcome: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    node: str | None = None
    gpu_indices: tuple[int, ...] = ()
    gpu_uuids: tuple[str, ...] = ()
    pid: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    peak_gpu_mem_mb: int | None = None
    avg_gpu_util: float | None = None
    error: str | None = None
    log_path: str | None = None

    _read: ClassVar[Mapping[str, Read]] = {
        "gpu_indices": tuple, "gpu_uuids": tuple, "started_at": moment, "finished_at": moment,
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Event(Value):
    """One line of a job's history: who (`actor`) moved it, when, from which state to which, and why (`detail`).
    `from_state` is None for the first, `attempt` where no attempt is concerned."""

    id: int | None = None
    at: datetime
    job_id: int
    attempt: int | None = None
    from_state: str | None = None
    to_state: str = ""
    actor: str = ""
    detail: str | None = None

    _read: ClassVar[Mapping[str, Read]] = {"at": moment}


@dataclass(frozen=True, kw_only=True)
class GpuJob(Value):
    """A job that holds a GPU, since when, and its share in MiB; `gpu_mem_mb` is None for one that has it alone."""

    id: int
    name: str = ""
    user: str = ""
    gpu_mem_mb: int | None = None
    peak_gpu_mem_mb: int | None = None
    since: datetime | None = None

    _read: ClassVar[Mapping[str, Read]] = {"since": moment}


@dataclass(frozen=True, kw_only=True)
class GpuProcess(Value):
    """A process outside the queue that uses a GPU. `mem_mb` in MiB, None where the driver does not say."""

    pid: int
    user: str | None = None
    command: str | None = None
    mem_mb: int | None = None


@dataclass(frozen=True, kw_only=True)
class Gpu(Value):
    """One GPU. `state`: free, leased, shared, external, unhealthy or drained; `reason` says why it is not given.

    Memory in MiB, `utilisation` 0 to 1, `temperature_c` in degrees Celsius, `power_w` in watts; None where the driver
    gave no reading. `job` is the id of the job that holds it alone.
    """

    index: int
    uuid: str = ""
    model: str = ""
    memory_mb: int = 0
    used_mb: int | None = None
    utilisation: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    jobs: tuple[GpuJob, ...] = ()
    job: int | None = None
    state: str = ""
    reason: Reason | None = None
    processes: tuple[GpuProcess, ...] = ()

    _read: ClassVar[Mapping[str, Read]] = {
        "jobs": many(GpuJob), "reason": Reason.from_json, "processes": many(GpuProcess),
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Preemption(Value):
    """Job `job_id` will be stopped and put back in line, about `at`, to make room for job `beneficiary`."""

    job_id: int
    beneficiary: int = 0
    at: datetime | None = None

    _read: ClassVar[Mapping[str, Read]] = {"at": moment}


@dataclass(frozen=True, kw_only=True)
class Why(Value):
    """Why job `id` is not running, most important reason first, and when it is expected to; the ranges: from when to
    when, in four of five cases. `preemptions`: what will be stopped for it, or it for others. `position` in line is
    from 1; `outcome` and `error` are those of a job that has ended."""

    id: int
    state: str = ""
    reason: Reason | None = None
    reasons: tuple[Reason, ...] = ()
    position: int | None = None
    estimated_start: datetime | None = None
    estimated_end: datetime | None = None
    estimated_start_range: tuple[datetime, datetime] | None = None
    estimated_end_range: tuple[datetime, datetime] | None = None
    preemptions: tuple[Preemption, ...] = ()
    outcome: str | None = None
    error: str | None = None

    _read: ClassVar[Mapping[str, Read]] = {
        "reason": Reason.from_json, "reasons": many(Reason), "estimated_start": moment, "estimated_end": moment,
        "estimated_start_range": moments, "estimated_end_range": moments, "preemptions": many(Preemption),
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Check(Value):
    """Whether a job could be queued, when it would start (None: beyond the forecast), and what is against it."""

    ok: bool
    estimated_start: datetime | None = None
    reason: Reason | None = None

    _read: ClassVar[Mapping[str, Read]] = {"estimated_start": moment, "reason": Reason.from_json}


@dataclass(frozen=True, kw_only=True)
class Pause(Value):
    """Who paused the queue, when, and why."""

    by: str
    reason: str | None = None
    at: datetime | None = None

    _read: ClassVar[Mapping[str, Read]] = {"at": moment}


@dataclass(frozen=True, kw_only=True)
class DeadLetter(Value):
    """A job whose retries are used up: how it ended, after how many attempts, and the last lines of its output (None
    where the caller may not read them)."""

    job_id: int
    name: str = ""
    user: str = ""
    failed_at: datetime | None = None
    outcome: str | None = None
    error: str | None = None
    attempts: int = 0
    log_tail: str | None = None

    _read: ClassVar[Mapping[str, Read]] = {"failed_at": moment}


@dataclass(frozen=True, kw_only=True)
class Group(Value):
    """A group's running and waiting jobs, and how many may run at once (None: no limit), by whose word."""

    group: str
    running: int = 0
    waiting: int = 0
    limit: int | None = None
    limited_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stats(Value):
    """Figures of the queue: `jobs` counts by state; `running`, `waiting` and `finished` sum them up. `gpus` are those
    of the node; `paused` is None while jobs start."""

    jobs: Mapping[str, int] = field(default_factory=dict, hash=False)
    running: int = 0
    waiting: int = 0
    finished: int = 0
    dead_letters: int = 0
    gpus: int = 0
    paused: Pause | None = None
    node: str = ""

    _read: ClassVar[Mapping[str, Read]] = {"paused": Pause.from_json}


@dataclass(frozen=True, kw_only=True)
class Table(Value):
    """The answer to a report or an SQL statement: names of the columns, and a row of values for each line."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()

    _read: ClassVar[Mapping[str, Read]] = {"columns": tuple, "rows": lambda rows: tuple(map(tuple, rows))}

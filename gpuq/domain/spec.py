"""What a user asks for: the JSON of a submission (the body of `POST /jobs`, a line of `--from-file`)."""

from __future__ import annotations

import signal
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gpuq.domain import batch_script
from gpuq.domain import sweep as sweeps
from gpuq.domain.priority import MAX_TIME_LIMIT_S, Priority
from gpuq.domain.validation_messages import complaint
from gpuq.errors import UsageError

SCHEMA = 1

# What a program can catch.
SIGNALS = frozenset(member.name.removeprefix("SIG") for member in signal.Signals) - {"KILL", "STOP"}

# What is meant by a pattern, for people.
_FORMS = {
    "name": "a name has 1 to 200 characters on one line",
    "group": "a group's name has 1 to 200 characters on one line",
    **dict.fromkeys(("cwd", "gpu_model", "array", "key", "script"), "it contains a NUL byte"),
    "signal": "write USR1@60: the signal, and how many seconds before",
}

_NAME = r"^[^\x00-\x1f\x7f]{1,200}$"

# Neither a path nor a database takes a NUL byte.
_NO_NUL = r"^[^\x00]*$"

# The largest whole number that every reader of JSON has exactly; databases have larger ones.
MAX_WHOLE = 2**53 - 1

# Of a process, as `ulimit` and setrlimit(2) have them: RLIMIT_CORE and so on.
LIMITS = ("as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack")

# As they stand: nothing that is only like a number or a truth value is made one.
Whole = Annotated[int, Field(strict=True)]
JobId = Annotated[Whole, Field(ge=0, le=MAX_WHOLE)]
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Line = Annotated[str, Field(pattern=_NO_NUL)]


def _priority(value: object) -> Priority:
    if isinstance(value, Priority):
        return value
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        try:
            return Priority.parse(value)
        except UsageError as error:
            raise ValueError(error.message) from None
    raise ValueError("priority is a name or a number 0 to 3")


def check_environment(env: dict[str, str]) -> dict[str, str]:
    """Raises ValueError for what no process can be given."""
    for key, value in env.items():
        if not key or "=" in key or "\0" in key or "\0" in value:
            raise ValueError(f"env: {key!r} is not a valid variable")
    return env


def _check_secrets(secrets: dict[str, str | None]) -> dict[str, str | None]:
    """As `check_environment`, without naming what may be a secret in the wrong place."""
    for name, value in secrets.items():
        if not name or "=" in name or "\0" in name or "\0" in (value or ""):
            raise ValueError("a variable has a name without = and NUL, and a value without NUL")
    return secrets


def _check_limits(limits: dict[str, int]) -> dict[str, int]:
    """Raises ValueError for one that there is not."""
    for name in limits:
        if name not in LIMITS:
            raise ValueError(f"{name[:40]!r} is no limit; known: {', '.join(LIMITS)}")
    return limits


def _sweep(value: object) -> object:
    """Names → lists of texts."""
    if value is None or not isinstance(value, dict):
        return value
    try:
        return {str(name): sweeps.parse_values(str(name), given) for name, given in value.items()}
    except UsageError as error:
        raise ValueError(error.message.removeprefix("sweep: ")) from None


GroupName = Annotated[str, Field(pattern=_NAME)]
# By name; None where the value is not at hand, as in what is stored. Never shown: neither in a repr nor in a complaint.
Secrets = Annotated[dict[str, str | None], AfterValidator(_check_secrets), Field(repr=False)]
LimitsField = Annotated[dict[str, Annotated[Whole, Field(ge=-1, le=2**63 - 1)]], AfterValidator(_check_limits)]
Umask = Annotated[Whole, Field(ge=0, le=0o777)]
Nice = Annotated[Whole, Field(ge=0, le=19)]
PriorityField = Annotated[Priority, BeforeValidator(_priority)]


class JobSpec(BaseModel):
    """One submission. An unknown field is refused by name. Durations in seconds, memory in MiB.

    `begin` is epoch seconds, or ISO 8601 text that the server turns into them.
    `array` is `0-15`, `0-15:2` or `0-15:2%4` (range, step, how many may run at once).
    `signal` is `USR1@60`: that signal, 60 s before the time limit or a preemption.
    `script` is the text of a batch script; `command` is then what it is called, and its arguments.
    `requeue`: at its time limit, or with exit code 75, it goes back in line.
    `keep_waiting`: it stays blocked when a job of `after` fails or is cancelled, instead of being cancelled with it.
    `secrets` are variables as those of `env` (which come first), and are kept apart, encrypted.
    `umask`, `limits` (soft limits of resources, -1 for none) and `nice` are those that the job starts with.
    `sweep` gives names values, each as `1e-3,1e-4`, `0..4` or a list: one job for each combination of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    name: Annotated[str, Field(pattern=_NAME)] | None = None
    cwd: Line | None = None
    env: dict[str, str] = {}
    secrets: Secrets = {}
    gpus: Annotated[Whole, Field(ge=0, le=1024)] = 1
    gpu_mem_mb: Annotated[Whole, Field(gt=0, le=MAX_WHOLE)] | None = None
    gpu_model: Line | None = None
    gpu_ids: list[Annotated[Whole, Field(ge=0, le=MAX_WHOLE)]] | None = None
    priority: PriorityField = Priority.NORMAL
    group: GroupName | None = None
    time_limit_s: Annotated[Number, Field(gt=0, le=MAX_TIME_LIMIT_S)] | None = None
    max_retries: Annotated[Whole, Field(ge=0, le=1000)] | None = None
    after: list[JobId] = []
    after_any: list[JobId] = []
    begin: Number | str | None = None
    array: Line | None = None
    hold: Flag = False
    key: Annotated[Line, Field(min_length=1, max_length=200)] | None = None
    preemptible: Flag = False
    requeue: Flag = False
    keep_waiting: Flag = False
    signal: Annotated[str, Field(pattern=r"^[A-Z0-9+]+(@\d+)?$")] | None = None
    kill_grace_s: Annotated[Number, Field(ge=0, le=86400)] | None = None
    script: Line | None = None
    umask: Umask | None = None
    limits: LimitsField = {}
    nice: Nice | None = None
    sweep: Annotated[dict[str, list[str]], BeforeValidator(_sweep), Field(min_length=1)] | None = None

    @property
    def makes_many(self) -> bool:
        """Whether it stands for several jobs: an array, or a sweep."""
        return self.array is not None or self.sweep is not None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.command[0]:
            raise ValueError("command: the program's name is empty")
        if "\0" in "".join(self.command):
            raise ValueError("command: an argument contains a NUL byte")
        if self.signal is not None and self.signal.partition("@")[0].removeprefix("SIG") not in SIGNALS:
            raise ValueError("signal: unknown, write USR1@60; known: " + ", ".join(sorted(SIGNALS)))
        check_environment(self.env)
        if self.script is not None and (why := batch_script.complaint(self.script)) is not None:
            raise ValueError(f"script: {why}")
        if self.gpu_mem_mb is not None and self.gpus == 0:
            raise ValueError("gpu_mem_mb: a job without GPUs cannot ask for GPU memory")
        return self

    @classmethod
    def parse(cls, data: object) -> JobSpec:
        """From decoded JSON; raises UsageError that names the field."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise usage_error(error) from None

    @classmethod
    def from_stored(cls, payload: dict[str, Any]) -> JobSpec:
        """From the `spec` column, also of an older or newer release: missing fields get defaults,
        unknown ones are left alone in the stored text and ignored here, and NUL bytes, which an older one took, are
        left out."""
        known = {
            name: value.replace("\0", "") if isinstance(value, str) else value
            for name, value in payload.items()
            if name in _FIELDS
        }
        return cls.model_validate(known)


class Batch(BaseModel):
    """Several submissions and the environment that lies under that of each, and the umask, limits and niceness of those
    that name none. They are sent once: with every job, a large submission would be mostly environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: list[JobSpec]
    env: Annotated[dict[str, str], AfterValidator(check_environment)] = {}
    secrets: Secrets = {}
    umask: Umask | None = None
    limits: LimitsField = {}
    nice: Nice | None = None

    def specs(self) -> list[JobSpec]:
        """The jobs, each with the batch's variables under its own."""
        if not (self.env or self.secrets or self.limits) and self.umask is self.nice is None:
            return self.jobs
        return [spec.model_copy(update=self._under(spec)) for spec in self.jobs]

    def _under(self, spec: JobSpec) -> dict[str, Any]:
        # Jobs without variables of their own share one dictionary.
        shared: dict[str, Any] = {
            "env": {**self.env, **spec.env} if spec.env else self.env,
            "secrets": {**self.secrets, **spec.secrets} if spec.secrets else self.secrets,
        }
        if spec.umask is None:
            shared["umask"] = self.umask
        if spec.nice is None:
            shared["nice"] = self.nice
        if not spec.limits:
            shared["limits"] = self.limits
        return shared


# `model_fields` itself is made anew whenever it is asked for.
_FIELDS = frozenset(JobSpec.model_fields)


def usage_error(error: ValidationError) -> UsageError:
    """pydantic's first complaint as one line for a person."""
    first = error.errors(include_url=False)[0]
    path = first["loc"]
    if path[-2:-1] == ("begin",):
        # Which of its two types was tried says nothing to a person.
        path = path[:-1]
    place = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        return UsageError(f"unknown field {place!r}", hint="known: " + ", ".join(JobSpec.model_fields))
    message = complaint(first)
    hint = _FORMS.get(str(path[-1])) if path and first["type"] == "string_pattern_mismatch" else None
    return UsageError(f"{place}: {message}" if place else message, hint=hint)

"""What a job is asked for with, as types and as the JSON that is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Required, TypedDict

from gpuq.client.job import Job
from gpuq.errors import UsageError


class Changes(TypedDict, total=False):
    """The fields that can be changed while a job waits, some while it runs. What is not named stays; None takes a limit
    or wish away."""

    name: str | None
    group: str | None
    priority: str | int
    gpus: int
    gpu_mem_mb: int | None
    gpu_model: str | None
    gpu_ids: Sequence[int] | None
    time_limit_s: float | None
    max_retries: int | None
    preemptible: bool
    signal: str | None
    kill_grace_s: float | None


class Update(Changes, total=False):
    """What can be changed of a job. `time_add_s`: so many seconds more than its time limit, or less."""

    time_add_s: float


class Options(Changes, total=False):
    """Every field of a submission but the command and the array."""

    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    secrets: Mapping[str, str] | None
    umask: int | None
    limits: Mapping[str, int] | None
    nice: int | None
    after: Sequence[int | Job]
    after_any: Sequence[int | Job]
    begin: datetime | float | str | None
    hold: bool
    key: str | None
    script: str | None
    requeue: bool
    keep_waiting: bool


class Submission(Options, total=False):
    """One submission, as `Client.submit_many` and `Client.check` take it; only `command` is required. `Client.submit`
    describes the fields."""

    command: Required[Sequence[str]]
    array: str | None
    sweep: Mapping[str, str | Sequence[str | float]] | None


# What the server takes a field for that is not sent. An older server never hears of a newer field unless it is used.
DEFAULTS: Mapping[str, Any] = {
    "name": None, "cwd": None, "env": None, "gpus": 1, "gpu_mem_mb": None, "gpu_model": None, "gpu_ids": None,
    "priority": "normal", "group": None, "time_limit_s": None, "max_retries": None, "after": (), "after_any": (),
    "begin": None, "array": None, "hold": False, "key": None, "preemptible": False, "signal": None,
    "kill_grace_s": None, "script": None, "sweep": None, "requeue": False,
    "keep_waiting": False,
    "secrets": None, "umask": None, "limits": None, "nice": None,
}  # fmt: skip


def submission_json(spec: Submission) -> dict[str, Any]:
    """The JSON of one submission, without fields that have their default. Raises UsageError for a command that is one
    text, which would otherwise be taken for a list of letters."""
    if isinstance(spec["command"], str):
        raise UsageError(
            "command: a list of words is wanted, not one text",
            hint='write ["python", "train.py"], or ["sh", "-c", "…"] for a line of shell',
        )
    given = {
        name: value
        for name, value in spec.items()
        if name not in DEFAULTS or (tuple(value) if isinstance(value, list) else value) != DEFAULTS[name]
    }
    return {name: _plain(name, value) for name, value in given.items()}


def _plain(name: str, value: Any) -> Any:
    if name in {"after", "after_any"}:
        return [job.id if isinstance(job, Job) else job for job in value]
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value


def moment_text(at: datetime | float | str | None) -> str | None:
    """A time as the server's queries take it: epoch seconds, or the text as it stands."""
    if isinstance(at, datetime):
        at = at.timestamp()
    return at if at is None or isinstance(at, str) else repr(at)

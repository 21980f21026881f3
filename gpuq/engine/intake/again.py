"""A job once more: the submission of an earlier one, with changes on top, as a submission of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.spec import JobSpec
from gpuq.engine.access import require_own
from gpuq.engine.context import IntakeContext
from gpuq.errors import UsageError

# What was about that job's own time: its key would give the old job back, and what it waited for is over.
LEFT_OUT = ("key", "hold", "begin", "after", "after_any")


def again(ctx: IntakeContext, job_id: int, caller: Caller, changes: Mapping[str, Any]) -> JobSpec:
    """The submission of `job_id` with the fields of `changes` in the place of its own; variables are added to its own.

    The id of an array stands for all of it, and that of any other element for the one. Raises NotFound, UsageError, and
    Forbidden for everybody but the owner: the environment is that user's.
    """
    with ctx.records.read() as tx:
        job = tx.job(job_id)
        require_own(job, caller)
        old = tx.spec(job_id)[0].model_dump(exclude=set(LEFT_OUT))
    index = str(job.array_index)
    if job.array_id is not None and (job.array_id != job.id or changes.get("array") == index):
        old["array"] = index
        if job.parameters is not None:
            old["sweep"] = {name: [value] for name, value in job.parameters}
    if "sweep" in changes:
        old["array"] = None
    env = changes.get("env")
    if env is not None and not isinstance(env, dict):
        raise UsageError("env: an object of names and values is wanted")
    if "command" in changes:
        # A script goes with its own command.
        old["script"] = None
    return JobSpec.parse({**old, **changes, "env": {**old["env"], **_place(job, changes), **(env or {})}})


def _place(job: Job, changes: Mapping[str, Any]) -> dict[str, str]:
    """What the environment says of the directory, if that is another one."""
    cwd = changes.get("cwd", job.cwd)
    return {"PWD": cwd} if cwd != job.cwd and isinstance(cwd, str) else {}

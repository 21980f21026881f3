"""A job once more: the submission of an earlier one, with changes on top, as a submission of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job
from gpuq.domain.spec import JobSpec
from gpuq.engine.access import require_own
from gpuq.engine.context import IntakeContext
from gpuq.errors import Refused, UsageError
from gpuq.ports.secrets import Sealed

# What was about that job's own time: its key would give the old job back, and what it waited for is over.
LEFT_OUT = ("key", "hold", "begin", "after", "after_any")


def again(ctx: IntakeContext, job_id: int, caller: Caller, changes: Mapping[str, Any]) -> JobSpec:
    """The submission of `job_id` with the fields of `changes` in the place of its own; variables are added to its own.

    The id of an array stands for all of it, and that of any other element for the one. Two changes are no fields of a
    submission: `offered_secrets`, values for those secrets that the job had, else they are those that are still stored;
    and `env_drop`, patterns of variables that it is not to have any more.

    Raises NotFound, UsageError, Refused for secrets that nobody has any more, SecretsUnavailable, and Forbidden for
    everybody but the owner: the environment is that user's.
    """
    changes = dict(changes)
    offered, dropped = _texts(changes, "offered_secrets"), _patterns(changes)
    with ctx.records.read() as tx:
        job = tx.job(job_id)
        require_own(job, caller)
        old = tx.spec(job_id)[0].model_dump(exclude=set(LEFT_OUT))
        sealed = tx.sealed(job_id) if old["secrets"] else None
    for field in ("env", "secrets"):
        old[field] = {name: value for name, value in old[field].items() if not _matches(name, dropped)}
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
    given = _texts(changes, "secrets")
    wanted = [name for name in old["secrets"] if name not in given and name not in (env or {})]
    secrets = {**_values(ctx, job_id, wanted, offered, sealed), **given}
    variables = {**old["env"], **_place(job, changes), **(env or {})}
    return JobSpec.parse({**old, **changes, "env": variables, "secrets": secrets})


def _values(
    ctx: IntakeContext, job_id: int, names: Sequence[str], offered: Mapping[str, str], sealed: Sealed | None
) -> dict[str, str]:
    if all(name in offered for name in names):
        return {name: offered[name] for name in names}
    found = {**({} if sealed is None else ctx.secrets.open(sealed)), **offered}
    missing = [name for name in names if name not in found]
    if missing:
        raise Refused(
            f"job {job_id} had secrets that were deleted with its end and are not set here: {', '.join(missing)}",
            hint=f"set them and ask again, or leave them out: --env-drop {missing[0]}",
        )
    return {name: found[name] for name in names}


def _texts(changes: dict[str, Any], field: str) -> dict[str, str]:
    """Taken out of the changes. Raises UsageError."""
    found = changes.pop(field, None) or {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError(f"{field}: an object of names and values is wanted")
    return found


def _patterns(changes: dict[str, Any]) -> list[str]:
    found = changes.pop("env_drop", None) or []
    if not isinstance(found, list) or len(found) > 100 or not all(isinstance(one, str) for one in found):
        raise UsageError("env_drop: a list of at most 100 names or patterns is wanted")
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _place(job: Job, changes: Mapping[str, Any]) -> dict[str, str]:
    """What the environment says of the directory, if that is another one."""
    cwd = changes.get("cwd", job.cwd)
    return {"PWD": cwd} if cwd != job.cwd and isinstance(cwd, str) else {}

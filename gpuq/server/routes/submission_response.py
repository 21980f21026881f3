"""The answer to a submission: jobs in the moment after they were stored, as JSON text made from what was written."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from gpuq.domain.times import iso
from gpuq.ports.records import NewJob

# In the order of `job_json`; this is filled in for every job.
_BLANK: dict[str, Any] = {
    name: {"retries_used": 0, "attempt": 0}.get(name)
    for name in (
        *("id", "name", "user", "group", "state", "reason", "outcome", "command", "cwd", "priority"),
        *("gpus", "gpu_mem_mb", "gpu_model", "gpu_ids", "time_limit_s", "max_retries", "retries_used", "attempt"),
        *("array_id", "array_index", "key", "after", "after_any", "preemptible", "submitted_at", "eligible_at"),
        *("started_at", "finished_at", "stop_deadline", "position", "estimated_start", "estimated_end", "progress"),
        *("node", "gpu_indices", "gpu_uuids", "pid", "exit_code", "signal", "error", "peak_gpu_mem_mb", "log_path"),
    )
}
# Told as they were asked for.
_AS_ASKED = (
    *("group", "command", "gpus", "gpu_mem_mb", "gpu_model", "gpu_ids", "time_limit_s", "key"),
    *("after", "after_any", "preemptible"),
)


def stored_json(job_id: int, new: NewJob, array_id: int | None, submitted_at: str | None) -> dict[str, Any]:
    """The JSON of a job in the moment after it was stored, from what was written."""
    spec = new.spec
    return {
        **_BLANK,
        **{name: getattr(spec, name) for name in _AS_ASKED},
        "id": job_id,
        "name": new.name,
        "user": new.user,
        "state": new.state,
        "cwd": new.cwd,
        "priority": spec.priority.label,
        "max_retries": new.max_retries,
        "array_id": array_id,
        "array_index": new.array_index,
        "submitted_at": submitted_at,
        "eligible_at": None if new.eligible_at is None else iso(new.eligible_at),
    }


class SubmissionEncoder:
    """The JSON of jobs that were just stored, as text. Most jobs of a submission differ in their id, name and command
    alone: what stands between and behind these is made once for all that share it."""

    def __init__(self, submitted_at: str | None) -> None:
        self._submitted_at = submitted_at
        self._known: dict[tuple[object, ...], tuple[bytes, bytes]] = {}

    def fill_in(self, job_id: int, new: NewJob, array_id: int | None) -> bytes:
        spec = new.spec
        kind = (
            *(new.user, new.cwd, new.state, new.max_retries, new.eligible_at, array_id, new.array_index),
            *(spec.group, spec.priority, spec.gpus, spec.gpu_mem_mb, spec.gpu_model, spec.time_limit_s, spec.key),
            *(spec.preemptible, tuple(spec.gpu_ids or ()), tuple(spec.after), tuple(spec.after_any)),
        )
        form = self._known.get(kind)
        if form is None:
            form = self._known[kind] = _form(stored_json(job_id, new, array_id, self._submitted_at))
        between, behind = form
        return b'{"id":%d,"name":%b,%b,"command":%b,%b' % (
            job_id,
            to_json(new.name),
            between,
            to_json(spec.command),
            behind,
        )


def _form(job: dict[str, Any]) -> tuple[bytes, bytes]:
    """What stands between the name and the command, and what comes after it with the closing brace."""
    names = list(job)
    at = names.index("command")
    assert names[:2] == ["id", "name"]
    between = {name: job[name] for name in names[2:at]}
    behind = {name: job[name] for name in names[at + 1 :]}
    return to_json(between)[1:-1], to_json(behind)[1:]

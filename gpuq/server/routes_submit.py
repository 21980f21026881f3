"""POST /jobs: the hot path. Parsed by pydantic straight from the bytes, stored on a thread of its own, answered
as bytes; no response model and no second look at the rows that were just written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from gpuq.domain.caller import Caller
from gpuq.domain.job import job_json
from gpuq.domain.spec import JobSpec, usage_error
from gpuq.domain.times import iso
from gpuq.engine import outlook, submit
from gpuq.engine.context import Context
from gpuq.errors import Constraint, GpuqError, UsageError
from gpuq.ports.records import JobFilter, NewJob
from gpuq.server.failures import malformed, response_of

router = APIRouter(tags=["jobs"])

_SPECS = TypeAdapter(list[JobSpec])
_MAX_REQUEST_KEY = 200

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"$ref": "#/components/schemas/JobSpec"},
                        {"type": "array", "items": {"$ref": "#/components/schemas/JobSpec"}},
                    ]
                }
            }
        },
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_REQUEST_KEY},
            "description": "The same key from the same user again returns the jobs of the first request.",
        },
        {
            "name": "outlook",
            "in": "query",
            "schema": {"type": "boolean", "default": False},
            "description": "Also work out position, reason and estimated start of the new jobs.",
        },
    ],
}


class BadSubmission(Exception):
    """`index` is the place in the list, from 0; None for a single submission."""

    def __init__(self, error: GpuqError, index: int | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.index = index


def parse(body: bytes) -> tuple[list[JobSpec], bool]:
    """The specs, and whether the body was a list. Raises BadSubmission, and ValueError for what is not JSON."""
    many = body.lstrip(b" \t\r\n")[:1] == b"["
    try:
        return (_SPECS.validate_json(body), True) if many else ([JobSpec.model_validate_json(body)], False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ValueError(first["msg"].removeprefix("Invalid JSON: ")) from None
        index = first["loc"][0] if many and first["loc"] else None
        complaint = usage_error(error)
        if isinstance(index, int):
            complaint = _in_item(complaint, index)
        raise BadSubmission(complaint, index if isinstance(index, int) else None) from None


def _in_item(complaint: UsageError, index: int) -> UsageError:
    """Names the item as people count."""
    text = complaint.message.replace(f"{index}.", "", 1).removeprefix(f"{index}: ")
    return UsageError(f"item {index + 1} of the list: {text}", hint=complaint.hint)


def stored_json(job_id: int, new: NewJob, array_id: int | None) -> dict[str, Any]:
    """The JSON of a job in the moment after it was stored, from what was written."""
    spec = new.spec
    return {
        "id": job_id,
        "name": new.name,
        "user": new.user,
        "group": spec.group,
        "state": new.state,
        "reason": None,
        "outcome": None,
        "command": spec.command,
        "cwd": new.cwd,
        "priority": spec.priority.label,
        "gpus": spec.gpus,
        "gpu_mem_mb": spec.gpu_mem_mb,
        "gpu_model": spec.gpu_model,
        "gpu_ids": spec.gpu_ids,
        "time_limit_s": spec.time_limit_s,
        "max_retries": new.max_retries,
        "retries_used": 0,
        "attempt": 0,
        "array_id": array_id,
        "array_index": new.array_index,
        "key": spec.key,
        "after": spec.after,
        "after_any": spec.after_any,
        "preemptible": spec.preemptible,
        "submitted_at": iso(new.submitted_at),
        "eligible_at": iso(new.eligible_at),
        "started_at": None,
        "finished_at": None,
        "stop_deadline": None,
        "position": None,
        "estimated_start": None,
        "estimated_end": None,
        "progress": None,
        "node": None,
        "gpu_indices": None,
        "gpu_uuids": None,
        "pid": None,
        "exit_code": None,
        "signal": None,
        "error": None,
        "log_path": None,
    }


def _answers(ctx: Context, done: submit.Submitted) -> list[dict[str, Any]]:
    known = [job_id for job_id in done.ids if job_id not in done.stored]
    found: dict[int, dict[str, Any]] = {}
    if known:
        with ctx.records.read() as reader:
            found = {job.id: job_json(job) for job in reader.jobs(JobFilter(ids=tuple(dict.fromkeys(known))))}
    array_id: int | None = None
    for job_id, new in done.stored.items():
        if new.array_first:
            array_id = job_id
        found[job_id] = stored_json(job_id, new, array_id if new.array_index is not None else None)
    return [found[job_id] for job_id in done.ids]


def _described(ctx: Context, ids: Sequence[int]) -> list[dict[str, Any]]:
    with ctx.records.read() as reader:
        jobs = {job.id: job for job in reader.jobs(JobFilter(ids=tuple(dict.fromkeys(ids))))}
    return [job_json(job, seen) for job, seen in outlook.describe(ctx, [jobs[job_id] for job_id in ids])]


def accept(ctx: Context, body: bytes, caller: Caller, request_key: str | None, *, described: bool) -> Response:
    """On a worker thread. One array spec answers a list, as several specs do."""
    try:
        specs, many = parse(body)
        done = submit.submit_ids(ctx, specs, caller, request_key=request_key)
    except BadSubmission as bad:
        return response_of(bad.error, index=bad.index)
    except ValueError as error:
        return malformed(str(error))
    except Constraint as error:
        return response_of(error)
    jobs = _described(ctx, done.ids) if described else _answers(ctx, done)
    payload: Any = jobs if many or specs[0].array is not None else jobs[0]
    return Response(json.dumps(payload, ensure_ascii=False).encode(), 201, media_type="application/json")


def lane(ctx: Context) -> ThreadPoolExecutor:
    """Where submissions are stored. One thread on SQLite, which has one writer: two would only wait for each
    other, and SQLite waits by sleeping."""
    threads = 1 if ctx.settings.database_url.startswith("sqlite") else 4
    return ThreadPoolExecutor(threads, thread_name_prefix="submit")


@router.post(
    "/jobs",
    status_code=201,
    openapi_extra=_BODY,
    summary="Queue a job, or a list of jobs in one transaction; answered when they are durable",
)
async def submit_jobs(request: Request) -> Response:
    request_key = request.headers.get("idempotency-key")
    if request_key is not None and not 0 < len(request_key) <= _MAX_REQUEST_KEY:
        raise UsageError(f"Idempotency-Key: 1 to {_MAX_REQUEST_KEY} characters")
    described = request.query_params.get("outlook", "").lower() in {"1", "true", "yes"}
    body = await request.body()
    state = request.app.state
    return await asyncio.get_running_loop().run_in_executor(
        state.lane, lambda: accept(state.ctx, body, request.state.caller, request_key, described=described)
    )

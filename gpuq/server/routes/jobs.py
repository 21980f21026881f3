"""Single jobs: looking at them, and everything that may be done to them."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Any, cast

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job, JobStatus, JobView, job_json
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import FINAL
from gpuq.engine.access import require_reader
from gpuq.engine.actions import cancel, change, hold, requeue, retry
from gpuq.engine.attempt import logs
from gpuq.engine.context import Context
from gpuq.engine.intake import submit
from gpuq.engine.queries.job_queries import JobQueries, WhyView
from gpuq.engine.queries.results import shown_to
from gpuq.errors import GpuqError, NotFound, QueueFull
from gpuq.ports.records import JobFilter
from gpuq.server.http.dependencies import Ctx, Queries, Who
from gpuq.server.routes import long_lists, params
from gpuq.server.routes.long_lists import FileResponse
from gpuq.server.routes.params import Ids, JobId, Limit, Number, States, Text
from gpuq.server.routes.views import Answer, CheckView, ExpectedView, JobDetailView

router = APIRouter(tags=["jobs"])

MAX_LOG_BYTES = 16 * 1024 * 1024


def listed(queries: JobQueries, jobs: list[Job]) -> list[JobView]:
    """Described where there is something to say that is not stored: final jobs are as they are."""
    open_jobs = [job for job in jobs if job.finished_at is None]
    seen: dict[int, JobStatus] = {}
    if open_jobs:
        seen = {job.id: view for job, view in queries.describe(open_jobs)}
    return [job_json(job, seen.get(job.id, JobStatus())) for job in jobs]


def listing(ctx: Context, queries: JobQueries, where: JobFilter, caller: Caller) -> list[JobView] | FileResponse:
    """What the filter finds, however much it is; of other users' jobs nothing that they wrote."""
    with ctx.records.read() as reader:
        pages = long_lists.pages_of(reader, where)
        first = next(pages, [])
        if len(first) < long_lists.PAGE or where.limit == long_lists.PAGE:
            return listed(queries, shown_to(ctx, caller, first))
        answer = long_lists.answer(listed(queries, shown_to(ctx, caller, page)) for page in chain([first], pages))
    ctx.records.spare_memory()
    return answer


def _one(queries: JobQueries, job: Job) -> JobView:
    return listed(queries, [job])[0]


@router.get("/jobs", summary="Jobs by id, in every state", response_model=Answer[list[JobView]])
def list_jobs(
    ctx: Ctx,
    queries: Queries,
    caller: Who,
    state: States = None,
    user: Text = None,
    group: Text = None,
    name: Text = None,
    ids: Ids = None,
    array_id: Number = None,
    after_id: Annotated[int | None, Query(ge=0, le=params.MAX_ID, description="only larger ids, for paging")] = None,
    newest_first: Annotated[bool, Query(description="by id, descending")] = False,
    limit: Limit = 1000,
) -> Any:
    where = JobFilter(
        states=params.states(state),
        user=user,
        group=group,
        name=name,
        ids=params.ids(ids),
        array_id=array_id,
        after_id=after_id,
        limit=limit,
        newest_first=newest_first,
    )
    return listing(ctx, queries, where, caller)


@router.post("/jobs/check", summary="Whether a job could be queued, and when it would start; queues nothing")
def check_job(ctx: Ctx, queries: Queries, caller: Who, spec: JobSpec) -> Answer[CheckView]:
    try:
        start = submit.check(ctx, spec, caller, queries.estimate)
    except GpuqError as error:
        if error.http_status >= 500 and not isinstance(error, QueueFull):
            raise
        return {"ok": False, "estimated_start": None, "reason": {"code": error.code, "text": error.message}}
    return {"ok": True, "estimated_start": start, "reason": None}


@router.get("/jobs/{job_id}", summary="One job, with its attempts and events")
def show_job(ctx: Ctx, queries: Queries, caller: Who, job_id: JobId) -> Answer[JobDetailView]:
    with ctx.records.read() as reader:
        [job] = shown_to(ctx, caller, [reader.job(job_id)])
        attempts = [attempt.to_json() for attempt in reader.attempts(job_id)]
        events = [event.to_json() for event in reader.events(job_id=job_id)]
        script = reader.spec(job_id)[0].script
    size = None if script is None else len(script.encode("utf-8", "surrogatepass"))
    told = {"expected": _expected(ctx, job), "script_bytes": size, "attempts": attempts, "events": events}
    return cast(JobDetailView, {**_one(queries, job), **told})


def _expected(ctx: Context, job: Job) -> ExpectedView | None:
    """How long it is expected to run, what that rests on, and on how many runs; None for a job that has ended."""
    if job.state in FINAL:
        return None
    elapsed = max(0.0, ctx.clock.now() - job.started_at) if job.started_at is not None else 0.0
    found = ctx.run_times.expect(job.user, job.command, job.gpus, job.time_limit_s, elapsed, use_median=True)
    low, high = found.span or (found.seconds, found.seconds)
    return {
        "seconds": round(found.seconds, 3),
        "source": found.source,
        "samples": found.samples,
        "low_s": round(low, 3),
        "high_s": round(high, 3),
    }


@router.delete("/jobs/{job_id}", summary="Cancel: a waiting job at once, a running one within its grace")
def cancel_job(
    ctx: Ctx,
    queries: Queries,
    caller: Who,
    job_id: JobId,
    force: Annotated[bool, Query(description="SIGKILL now")] = False,
    grace_s: Annotated[
        float | None, Query(ge=0, le=86400, allow_inf_nan=False, description="seconds between SIGTERM and SIGKILL")
    ] = None,
    reason: Annotated[str | None, Query(max_length=1000, pattern="^[^\\x00]*$")] = None,
) -> Answer[JobView]:
    return _one(queries, cancel.cancel(ctx, job_id, caller, force=force, grace_s=grace_s, reason=reason))


@router.patch("/jobs/{job_id}", summary="Change a waiting job, or the limits of a running one")
def change_job(
    ctx: Ctx,
    queries: Queries,
    caller: Who,
    job_id: JobId,
    changes: Annotated[
        dict[str, Any],
        Body(description="fields of a submission", examples=[{"priority": "high", "time_limit_s": 3600}]),
    ],
) -> Answer[JobView]:
    return _one(queries, change.update(ctx, job_id, caller, changes, queries.first_delayed))


@router.post("/jobs/{job_id}/hold", summary="Take a waiting job out of line")
def hold_job(ctx: Ctx, queries: Queries, caller: Who, job_id: JobId) -> Answer[JobView]:
    return _one(queries, hold.hold(ctx, job_id, caller))


@router.post("/jobs/{job_id}/release", summary="Put a held job back at its own place")
def release_job(ctx: Ctx, queries: Queries, caller: Who, job_id: JobId) -> Answer[JobView]:
    return _one(queries, hold.release(ctx, job_id, caller))


@router.post("/jobs/{job_id}/retry", summary="Queue a failed or cancelled job again")
def retry_job(ctx: Ctx, queries: Queries, caller: Who, job_id: JobId) -> Answer[JobView]:
    return _one(queries, retry.retry(ctx, job_id, caller))


@router.post("/jobs/{job_id}/requeue", summary="Stop a running job and put it back in line; no retry is used")
def requeue_job(ctx: Ctx, queries: Queries, caller: Who, job_id: JobId) -> Answer[JobView]:
    return _one(queries, requeue.requeue(ctx, job_id, caller))


@router.post(
    "/jobs/{job_id}/top", summary="Move a waiting job before the others of its owner; by an administrator, of everybody"
)
def top_job(ctx: Ctx, queries: Queries, caller: Who, job_id: JobId) -> Answer[JobView]:
    return _one(queries, change.top(ctx, job_id, caller))


@router.get(
    "/jobs/{job_id}/script",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "The text as it was submitted, in UTF-8."}},
    summary="The batch script that a job was submitted with",
)
def read_script(ctx: Ctx, caller: Who, job_id: JobId) -> Response:
    with ctx.records.read() as reader:
        require_reader(ctx.accounts, reader.job(job_id), caller, "script")
        script = reader.spec(job_id)[0].script
    if script is None:
        raise NotFound(f"job {job_id} has no script: it was submitted as a command", hint="`gpuq show` names it")
    return Response(script, media_type="text/plain", headers={"X-Content-Type-Options": "nosniff"})


@router.get("/jobs/{job_id}/why", summary="Why a job is not running, and when it is expected to")
def why(queries: Queries, job_id: JobId) -> Answer[WhyView]:
    return queries.why(job_id)


@router.get(
    "/jobs/{job_id}/log",
    response_class=Response,
    responses={
        200: {
            "content": {"application/octet-stream": {}},
            "description": "Bytes as the job wrote them. X-Next-Offset: where to go on. X-Size: bytes there are now. "
            "X-Attempt: whose output this is, 0 before the first. X-Final: 1 when nothing will be added.",
        }
    },
    summary="A piece of a job's output",
)
def read_log(
    ctx: Ctx,
    caller: Who,
    job_id: JobId,
    offset: Annotated[int, Query(ge=-params.MAX_ID, le=params.MAX_ID, description="negative: from the end")] = 0,
    limit: Annotated[int, Query(ge=0, le=MAX_LOG_BYTES, description="bytes")] = 1024 * 1024,
    attempt: Annotated[int | None, Query(ge=1, le=params.MAX_ID, description="the newest unless given")] = None,
) -> Response:
    with ctx.records.read() as reader:
        require_reader(ctx.accounts, reader.job(job_id), caller)
    chunk = logs.read(ctx, job_id, attempt=attempt, offset=offset, limit=limit)
    headers = {
        "X-Next-Offset": str(chunk.next_offset),
        "X-Size": str(chunk.size),
        "X-Attempt": str(chunk.attempt or 0),
        "X-Final": "1" if chunk.final else "0",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(chunk.data, media_type="application/octet-stream", headers=headers)

"""The queue as a whole, its history, the GPUs, and the dead letters."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from gpuq.domain.job import JobView, job_json
from gpuq.domain.spec import GroupName
from gpuq.domain.states import FINAL, JobState
from gpuq.engine.actions import dead_letters, drain, groups, pause
from gpuq.engine.context import Context
from gpuq.engine.queries import drain_report, gpu_report, group_report, lanes, who
from gpuq.engine.queries.gpu_report import GpuView
from gpuq.engine.queries.lanes import LanesView
from gpuq.engine.queries.who import WhoView
from gpuq.engine.switches import paused
from gpuq.errors import UsageError
from gpuq.ports.records import JobFilter
from gpuq.server.http.dependencies import Ctx, Queries, Who
from gpuq.server.routes import long_lists, params
from gpuq.server.routes.jobs import listed, listing
from gpuq.server.routes.long_lists import PAGE
from gpuq.server.routes.params import FinalStates, JobId, Limit, Moment, States, Text
from gpuq.server.routes.views import (
    Answer,
    DeadLetterView,
    GroupLimitView,
    GroupView,
    PauseView,
    QueueAnswer,
    QueuePauseView,
    RemovedView,
)

router = APIRouter(tags=["queue"])

GpuIndex = Annotated[int, Path(ge=0, le=4096, description="as `gpuq gpus` numbers them")]


class Remark(BaseModel):
    """The optional body of requests that may say why."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=1000, pattern="^[^\\x00]*$")] | None = None


class GroupLimit(BaseModel):
    """`limit` 0: no limit."""

    model_config = ConfigDict(extra="forbid")

    group: GroupName
    limit: Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


OptionalRemark = Annotated[Remark | None, Body()]


def _reason(remark: Remark | None) -> str | None:
    return remark.reason if remark else None


@router.get(
    "/queue",
    summary="Running jobs, then waiting ones in the order in which they stand in line",
    response_model=Answer[QueueAnswer],
)
def show_queue(
    ctx: Ctx,
    queries: Queries,
    limit: Annotated[int | None, Query(ge=0, le=params.MAX_ROWS, description="all unless given")] = None,
    offset: Annotated[int, Query(ge=0, le=params.MAX_ID, description="jobs passed over; none with after_id")] = 0,
    user: Text = None,
    group: Text = None,
    name: Text = None,
    state: States = None,
    after_id: Annotated[
        int | None, Query(ge=0, le=params.MAX_ID, description="what comes after it, for paging")
    ] = None,
    arrays: Annotated[
        Literal["all", "one"],
        Query(description="one: of the waiting elements of an array only the first, and `arrays` counts them"),
    ] = "all",
) -> Any:
    where = JobFilter(states=_open(params.states(state)), user=user, group=group, name=name)
    with ctx.records.read() as tx:
        around: dict[str, Any] = {**asdict(queries.queue(tx, where=where)), "paused": paused(tx)}
        around["drain"] = drain_report.report(ctx, tx)
        if state is not None or group is not None or name is not None:
            # So that a client knows that this release reads those, and the one before did not.
            around["arrays"] = {}
        if arrays == "one" and after_id is None and not offset:
            seen, counts = queries.lumped(tx, limit=PAGE if limit is None else min(limit, PAGE), where=where)
            counted = {str(array): view for array, view in counts.items()}
            return {**around, "arrays": counted, "jobs": [job_json(job, status) for job, status in seen]}
        pages = (
            [job_json(job, seen) for job, seen in page]
            for page in queries.queue_pages(tx, limit=limit, offset=offset, after_id=after_id, where=where)
        )
        first = next(pages, [])
        if len(first) < PAGE or limit == PAGE:
            return {**around, "jobs": first}
        answer = long_lists.answer(chain([first], pages), around)
    ctx.records.spare_memory()
    return answer


def _open(states: frozenset[JobState] | None) -> frozenset[JobState] | None:
    if states is not None and states & FINAL:
        raise UsageError("state: the queue holds no finished jobs", hint="`GET /history` has those")
    return states


@router.post("/queue/pause", summary="Start no new jobs until resume")
def pause_queue(ctx: Ctx, caller: Who, remark: OptionalRemark = None) -> Answer[QueuePauseView]:
    return {"paused": cast(PauseView, pause.pause(ctx, caller, _reason(remark)))}


@router.post("/queue/resume", summary="Start jobs again")
def resume_queue(ctx: Ctx, caller: Who) -> Answer[QueuePauseView]:
    pause.resume(ctx, caller)
    return {"paused": None}


@router.get("/history", summary="Finished jobs, the last that ended first", response_model=Answer[list[JobView]])
def history(
    ctx: Ctx,
    queries: Queries,
    caller: Who,
    state: FinalStates = None,
    user: Text = None,
    group: Text = None,
    name: Text = None,
    since: Moment = None,
    until: Moment = None,
    after_id: Annotated[
        int | None, Query(ge=0, le=params.MAX_ID, description="what ended before it, for paging")
    ] = None,
    limit: Limit = 1000,
) -> Any:
    wanted = params.states(state)
    if wanted is not None and not wanted <= FINAL:
        raise UsageError("state: history holds finished jobs", hint="known: " + ", ".join(sorted(FINAL)))
    where = JobFilter(
        states=FINAL if wanted is None else wanted,
        user=user,
        group=group,
        name=name,
        finished_since=params.moment("since", since),
        finished_until=params.moment("until", until),
        after_id=after_id,
        limit=limit,
        last_ended_first=True,
    )
    return listing(ctx, queries, where, caller)


@router.get("/gpus", summary="Every GPU with its state and its holder")
def gpus(ctx: Ctx) -> Answer[list[GpuView]]:
    return gpu_report.report(ctx)


@router.post("/gpus/{index}/drain", summary="Take a GPU out of the queue; what runs on it goes on")
def drain_gpu(ctx: Ctx, caller: Who, index: GpuIndex, remark: OptionalRemark = None) -> Answer[GpuView]:
    drain.drain(ctx, index, caller, _reason(remark))
    return _gpu(ctx, index)


@router.post("/gpus/{index}/undrain", summary="Put a drained GPU back")
def undrain_gpu(ctx: Ctx, caller: Who, index: GpuIndex) -> Answer[GpuView]:
    drain.undrain(ctx, index, caller)
    return _gpu(ctx, index)


def _gpu(ctx: Context, index: int) -> GpuView:
    return next(row for row in gpu_report.report(ctx) if row["index"] == index)


@router.get("/who", summary="Per user what runs, waits, is held and stands idle, and the GPU-hours of a week")
def show_who(ctx: Ctx) -> Answer[list[WhoView]]:
    return who.who(ctx)


@router.get("/lanes", summary="Which job had, has and is expected to have which GPU, over time")
def show_lanes(
    ctx: Ctx,
    queries: Queries,
    past_s: Annotated[float, Query(ge=0, le=31 * 86400, allow_inf_nan=False, description="seconds before now")] = 21600,
    ahead_s: Annotated[float, Query(ge=0, le=31 * 86400, allow_inf_nan=False, description="seconds from now")] = 43200,
) -> Answer[LanesView]:
    return lanes.lanes(ctx, queries, past_s=past_s, ahead_s=ahead_s)


@router.get("/groups", summary="Groups with their jobs and limits")
def list_groups(ctx: Ctx) -> Answer[list[GroupView]]:
    return cast(list[GroupView], group_report.report(ctx))


@router.post("/groups", summary="How many jobs of a group may run at once")
def limit_group(ctx: Ctx, caller: Who, wanted: GroupLimit) -> Answer[GroupLimitView]:
    groups.limit_group(ctx, wanted.group, wanted.limit, caller)
    return {"group": wanted.group, "limit": wanted.limit or None}


@router.get("/dlq", summary="The dead-letter queue: jobs whose retries are used up")
def list_dead_letters(ctx: Ctx, caller: Who) -> Answer[list[DeadLetterView]]:
    return cast(list[DeadLetterView], dead_letters.list_letters(ctx, caller))


@router.get("/dlq/{job_id}", summary="One dead letter")
def show_dead_letter(ctx: Ctx, caller: Who, job_id: JobId) -> Answer[DeadLetterView]:
    return cast(DeadLetterView, dead_letters.show_letter(ctx, job_id, caller))


@router.post("/dlq/{job_id}/retry", summary="Queue a dead job again, retries reset")
def retry_dead_letter(ctx: Ctx, queries: Queries, caller: Who, job_id: JobId) -> Answer[JobView]:
    return listed(queries, [dead_letters.retry(ctx, job_id, caller)])[0]


@router.delete("/dlq/{job_id}", summary="Remove a dead letter; the job's history stays")
def remove_dead_letter(ctx: Ctx, caller: Who, job_id: JobId) -> Answer[RemovedView]:
    dead_letters.remove(ctx, job_id, caller)
    return {"removed": job_id}

"""The verbs for many jobs in one request: no place in line and no estimate is worked out for any of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from gpuq.domain.spec import JobId
from gpuq.engine.actions.bulk import ActionResult, BulkAction, run_many
from gpuq.engine.actions.cancel import cancel_many
from gpuq.engine.actions.change import TOP, update_many
from gpuq.engine.actions.hold import HOLD, RELEASE
from gpuq.engine.actions.requeue import requeueing
from gpuq.engine.actions.retry import RETRY
from gpuq.errors import GpuqError
from gpuq.ports.records import JobFilter
from gpuq.server.http.dependencies import Ctx, Queries, Who
from gpuq.server.routes import params
from gpuq.server.routes.params import Ids, Limit, States, Text
from gpuq.server.routes.views import Answer, BulkItemView, ErrorView

router = APIRouter(tags=["jobs"])

MAX_IDS = 10_000


class Named(BaseModel):
    """Jobs by id."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[
        list[JobId],
        Field(min_length=1, max_length=MAX_IDS),
    ]


class Cancelled(Named):
    """Jobs by id, and how they are to end; as the parameters of `DELETE /jobs/{id}`."""

    force: Annotated[bool, Field(strict=True)] = False
    grace_s: Annotated[float, Field(strict=True, ge=0, le=86400, allow_inf_nan=False)] | None = None
    reason: Annotated[str, Field(max_length=1000, pattern="^[^\\x00]*$")] | None = None


class Changed(Named):
    """Jobs by id, and fields of a submission with their new values."""

    changes: Annotated[dict[str, Any], Field(min_length=1, examples=[{"priority": "high"}])]


# Refusals of one answer that are told in full: thousands would be the same few again and again.
TOLD = 100


def _answer(results: Iterable[ActionResult]) -> list[BulkItemView]:
    told = 0
    items: list[BulkItemView] = []
    for done in results:
        if done.error is None:
            items.append({"id": done.job_id, "state": done.state})
            continue
        told += 1
        items.append({"id": done.job_id, "error": _error(done.error, in_full=told <= TOLD)})
    return items


def _error(error: GpuqError, *, in_full: bool) -> ErrorView:
    if in_full:
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return {"code": error.code, "message": f"only the first {TOLD} refusals say why", "hint": None}


_ANSWER = (
    "An item for each id, in the order given: `{id, state}`, or `{id, error}` where nothing was done; after "
    f"{TOLD} errors with their code alone."
)


@router.get(
    "/jobs/ids",
    summary="Which jobs there are: `[id, array id, index in it]` of each, by id",
    description="Filters as of `GET /jobs`; `array_ids`: the elements of these arrays, `until_id`: no larger id.",
)
def list_ids(
    ctx: Ctx,
    state: States = None,
    user: Text = None,
    group: Text = None,
    name: Text = None,
    ids: Ids = None,
    array_ids: Ids = None,
    after_id: Annotated[int | None, Query(ge=0, le=params.MAX_ID)] = None,
    until_id: Annotated[int | None, Query(ge=0, le=params.MAX_ID)] = None,
    limit: Limit = params.MAX_ROWS,
) -> Answer[Sequence[Sequence[int | None]]]:
    where = JobFilter(
        states=params.states(state),
        user=user,
        group=group,
        name=name,
        ids=params.ids(ids),
        array_ids=params.ids(array_ids),
        after_id=after_id,
        until_id=until_id,
        limit=limit,
    )
    with ctx.records.read() as reader:
        return reader.names(where)


@router.post(
    "/jobs/cancel", summary="Cancel many jobs: none of them is started meanwhile", response_description=_ANSWER
)
def cancel_jobs(ctx: Ctx, caller: Who, named: Cancelled) -> Answer[list[BulkItemView]]:
    done = cancel_many(ctx, named.ids, caller, force=named.force, grace_s=named.grace_s, reason=named.reason)
    return _answer(done)


@router.post("/jobs/update", summary="Change many jobs", response_description=_ANSWER)
def update_jobs(ctx: Ctx, queries: Queries, caller: Who, named: Changed) -> Answer[list[BulkItemView]]:
    return _answer(update_many(ctx, named.ids, caller, named.changes, queries.first_delayed))


def _route(name: str, verb: BulkAction, summary: str) -> None:
    @router.post(f"/jobs/{name}", name=f"{name}_jobs", summary=summary, response_description=_ANSWER)
    def endpoint(ctx: Ctx, caller: Who, named: Named) -> Answer[list[BulkItemView]]:
        return _answer(run_many(ctx, named.ids, caller, verb))


_route("hold", HOLD, "Hold many jobs")
_route("release", RELEASE, "Release many jobs")
_route("requeue", requeueing(), "Put many running jobs back in line")
_route("retry", RETRY, "Retry many jobs")
_route("top", TOP, "Move many jobs, one after another, as `/jobs/{id}/top` does")

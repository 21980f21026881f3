"""The verbs for many jobs in one request: no place in line and no estimate is worked out for any of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gpuq.domain.spec import JobId
from gpuq.engine.actions.bulk import ActionResult, BulkAction, run_many
from gpuq.engine.actions.change import TOP
from gpuq.engine.actions.hold import HOLD, RELEASE
from gpuq.engine.actions.retry import RETRY
from gpuq.server.http.dependencies import Ctx, Who
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


def _result_json(done: ActionResult) -> BulkItemView:
    if done.error is None:
        return {"id": done.job_id, "state": done.state}
    error: ErrorView = {"code": done.error.code, "message": done.error.message, "hint": done.error.hint}
    return {"id": done.job_id, "error": error}


_ANSWER = "An item for each id, in the order given: `{id, state}`, or `{id, error}` where nothing was done."


def _route(name: str, verb: BulkAction, summary: str) -> None:
    @router.post(f"/jobs/{name}", name=f"{name}_jobs", summary=summary, response_description=_ANSWER)
    def endpoint(ctx: Ctx, caller: Who, named: Named) -> Answer[list[BulkItemView]]:
        return [_result_json(done) for done in run_many(ctx, named.ids, caller, verb)]


_route("hold", HOLD, "Hold many jobs")
_route("release", RELEASE, "Release many jobs")
_route("retry", RETRY, "Retry many jobs")
_route("top", TOP, "Move many jobs, one after another, as `/jobs/{id}/top` does")

"""Limits of users and groups: what counts, what is used of it, and the changing of them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gpuq.domain.limits import MAX_WINDOW_S, MIN_WINDOW_S, UNLIMITED
from gpuq.domain.priority import MAX_TIME_LIMIT_S
from gpuq.domain.spec import GroupName
from gpuq.engine.actions.limits import set_limits
from gpuq.engine.queries import limit_report
from gpuq.engine.queries.limit_report import LimitView
from gpuq.errors import UsageError
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.routes.params import Text
from gpuq.server.routes.views import Answer

router = APIRouter(tags=["limits"])

Lifted = Literal["unlimited"]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


class WantedLimits(BaseModel):
    """What is left out stays, null removes it, and `unlimited` lifts what would count otherwise. `name`: of the user or
    group; none with `default`, which is for every user without a limit of his own. `gpu_hours` within the last
    `window_s` seconds; `time_s`: the longest time limit of a job."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["user", "group", "default"]
    name: GroupName | None = None
    gpus: Count | Lifted | None = None
    running: Count | Lifted | None = None
    waiting: Count | Lifted | None = None
    gpu_hours: Annotated[float, Field(strict=True, ge=0, le=1e9)] | Lifted | None = None
    window_s: Annotated[float, Field(strict=True, ge=MIN_WINDOW_S, le=MAX_WINDOW_S)] | None = None
    time_s: Annotated[float, Field(strict=True, ge=1, le=MAX_TIME_LIMIT_S)] | Lifted | None = None


@router.get("/limits", summary="Limits of users and groups, with what is used of them now")
def list_limits(ctx: Ctx, caller: Who, user: Text = None, group: Text = None) -> Answer[list[LimitView]]:
    if user is not None and group is not None:
        raise UsageError("limits are of a user or of a group", hint="leave one of them out")
    return limit_report.report(ctx, {caller.user}, user=user, group=group)


@router.post("/limits", summary="Change limits of a user, a group, or of every user")
def change_limits(ctx: Ctx, caller: Who, wanted: WantedLimits) -> Answer[list[LimitView]]:
    if (wanted.kind == "default") != (wanted.name is None):
        raise UsageError(f"name: a limit of kind {wanted.kind} has {'none' if wanted.name else 'one'}")
    given = wanted.model_dump(include=wanted.model_fields_set - {"kind", "name"})
    values = {what: UNLIMITED if value == "unlimited" else value for what, value in given.items()}
    set_limits(ctx, wanted.kind, wanted.name or "", values, caller)
    if wanted.kind == "default":
        return [row for row in limit_report.report(ctx, ()) if row["kind"] == "default"]
    return limit_report.report(ctx, (), **{wanted.kind: wanted.name})

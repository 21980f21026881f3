"""Limits of users and groups: what counts, what is used of it, and the changing of them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from gpuq.domain.limits import MAX_WINDOW_S, MIN_WINDOW_S, UNLIMITED
from gpuq.domain.priority import MAX_TIME_LIMIT_S
from gpuq.domain.spec import GroupName
from gpuq.engine.actions.limits import set_limits
from gpuq.engine.queries import limit_report
from gpuq.engine.queries.limit_report import LimitView
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.routes.params import Text
from gpuq.server.routes.views import Answer

router = APIRouter(tags=["limits"])

Lifted = Literal["unlimited"]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


class GpuHours(BaseModel):
    """GPU-hours within the last `window_s` seconds."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    hours: Annotated[float, Field(strict=True, ge=0, le=1e9)]
    window_s: Annotated[float, Field(strict=True, ge=MIN_WINDOW_S, le=MAX_WINDOW_S)]


class _Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    gpus: Count | Lifted | None = None
    running: Count | Lifted | None = None
    waiting: Count | Lifted | None = None
    gpu_hours: GpuHours | Lifted | None = None
    time_s: Annotated[float, Field(strict=True, ge=1, le=MAX_TIME_LIMIT_S)] | Lifted | None = None

    def wanted(self) -> dict[str, float | None]:
        """By name of `gpuq.domain.limits.Limits`; what was left out is not there."""
        values: dict[str, float | None] = {}
        for what in self.model_fields_set - {"kind", "name"}:
            given = getattr(self, what)
            if isinstance(given, GpuHours):
                values |= {"gpu_hours": given.hours, "window_s": given.window_s}
            else:
                values[what] = UNLIMITED if given == "unlimited" else given
        return values


class LimitsOfOne(_Limits):
    """Of a user or a group. What is left out stays, null removes it, and `unlimited` lifts what would count otherwise.
    `time_s`: the longest time limit of a job."""

    kind: Literal["user", "group"]
    name: GroupName


class LimitsOfAll(_Limits):
    """Of every user that has no limit of his own."""

    kind: Literal["default"]


@router.get("/limits", summary="Limits of users and groups, with what is used of them now")
def list_limits(ctx: Ctx, caller: Who, user: Text = None, group: Text = None) -> Answer[list[LimitView]]:
    return limit_report.report(ctx, {caller.user}, user=user, group=group)


@router.post("/limits", summary="Change limits of a user, a group, or of every user")
def change_limits(
    ctx: Ctx, caller: Who, wanted: Annotated[LimitsOfOne | LimitsOfAll, Body(discriminator="kind")]
) -> Answer[list[LimitView]]:
    if isinstance(wanted, LimitsOfAll):
        set_limits(ctx, "default", "", wanted.wanted(), caller)
        return [row for row in limit_report.report(ctx, ()) if row["kind"] == "default"]
    set_limits(ctx, wanted.kind, wanted.name, wanted.wanted(), caller)
    whose = {"user": wanted.name} if wanted.kind == "user" else {"group": wanted.name}
    return limit_report.report(ctx, (), **whose)

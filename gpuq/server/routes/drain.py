"""A planned drain of the machine or some of its GPUs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gpuq.engine.actions.drain_window import cancel_drain, plan_drain
from gpuq.engine.context import Context
from gpuq.engine.queries import drain_report
from gpuq.engine.queries.drain_report import DrainView
from gpuq.errors import UsageError
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.routes.params import moment
from gpuq.server.routes.views import Answer

router = APIRouter(tags=["queue"])

Time = Annotated[str, Field(min_length=1, max_length=100)] | Annotated[float, Field(strict=True, ge=0)]


class PlannedDrainView(TypedDict):
    """`drain` null: none is planned."""

    drain: DrainView | None


class WantedDrain(BaseModel):
    """`at` and `until`: ISO 8601 (UTC unless it says otherwise) or epoch seconds; no `until`: until it is cancelled.
    `gpus`: by index; none: the whole machine."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    at: Time
    until: Time | None = None
    gpus: Annotated[list[Annotated[int, Field(strict=True, ge=0, le=4096)]], Field(min_length=1, max_length=4096)] | (
        None
    ) = None
    reason: Annotated[str, Field(max_length=1000, pattern="^[^\\x00]*$")] | None = None


@router.get("/drain", summary="The planned drain, if there is one")
def show_drain(ctx: Ctx) -> Answer[PlannedDrainView]:
    return _planned(ctx)


@router.post("/drain", summary="Plan a drain, in place of the one that was planned before")
def plan(ctx: Ctx, caller: Who, wanted: WantedDrain) -> Answer[PlannedDrainView]:
    at = moment("at", str(wanted.at))
    if at is None:
        raise UsageError("at: is missing")
    until = None if wanted.until is None else moment("until", str(wanted.until))
    plan_drain(ctx, caller, at, until=until, gpus=wanted.gpus, reason=wanted.reason)
    return _planned(ctx)


@router.delete("/drain", summary="Cancel the planned drain, also one that has begun")
def cancel(ctx: Ctx, caller: Who) -> Answer[PlannedDrainView]:
    cancel_drain(ctx, caller)
    return {"drain": None}


def _planned(ctx: Context) -> PlannedDrainView:
    with ctx.records.read() as tx:
        return {"drain": drain_report.report(ctx, tx)}

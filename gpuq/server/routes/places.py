"""What a client on another machine asks before it submits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from gpuq.engine.queries import places
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.routes.views import Answer, PlaceView

router = APIRouter(tags=["jobs"])


_NO_NUL = r"^[^\x00]*$"


class Place(BaseModel):
    """Where a job would run, and what."""

    model_config = ConfigDict(extra="forbid")

    cwd: Annotated[str, Field(max_length=4096, pattern=r"^/[^\x00]*$")]
    program: Annotated[str, Field(min_length=1, max_length=4096, pattern=_NO_NUL)]
    path: Annotated[str, Field(max_length=65_536, pattern=_NO_NUL)] | None = None


@router.post("/jobs/place", summary="Whether a directory and a program are there for one's job; queues nothing")
def check_place(ctx: Ctx, caller: Who, place: Place) -> Answer[PlaceView]:
    """Looked at as the user that the job would run as. `complaint` is null when all is well, or when it cannot be told
    now; `path` is the job's PATH."""
    return {"complaint": places.complaint(ctx, caller, place.cwd, place.program, place.path)}

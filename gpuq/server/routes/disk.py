"""What jobs have on the disk: how long there is room for more, and its removal."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gpuq.domain.spec import GroupName, JobId
from gpuq.domain.states import FINAL, JobState
from gpuq.engine.actions import clean
from gpuq.engine.queries import disk_report
from gpuq.ports.job_files import Choice
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.routes.views import Answer, TableView

router = APIRouter(tags=["administration"])

MAX_IDS = 10_000
YEARS_S = 100 * 365 * 86400.0
# The largest that every reader of JSON takes for what it is.
MAX_AFTER = 2**53 - 1
# Checked in the engine, which says what to write; the document has it for those who read that.
_FINAL_ONLY = Field(json_schema_extra={"items": {"type": "string", "enum": [str(state) for state in sorted(FINAL)]}})


class Cleaning(BaseModel):
    """Finished jobs, all given conditions together; those of the caller, or of everybody for an administrator.
    `older_than_s`: they ended so long ago. `checkpoints`: remove these too. `dry_run`: remove nothing, say how much it
    is. `after_id`: go on after this job."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[JobId], Field(min_length=1, max_length=MAX_IDS)] | None = None
    older_than_s: Annotated[float, Field(ge=0, le=YEARS_S)] | None = None
    user: Annotated[str, Field(max_length=200, pattern="^[^\\x00]*$")] | None = None
    group: GroupName | None = None
    states: Annotated[list[JobState], Field(min_length=1, max_length=len(JobState)), _FINAL_ONLY] | None = None
    checkpoints: Annotated[bool, Field(strict=True)] = False
    dry_run: Annotated[bool, Field(strict=True)] = False
    after_id: Annotated[int, Field(strict=True, ge=0, le=MAX_AFTER)] = 0


class NotCleanedView(TypedDict):
    """A job of which something could not be removed, and why."""

    id: int
    message: str


class CleanedView(TypedDict):
    """Of this step, or with `dry_run` of all that is meant; bytes of blocks on the disk. `output_bytes`: output and
    records. `not_measured`: jobs whose size is not known yet. `dead_letters`: those that were left out, for they keep
    their output. `next_after_id`: ask again with this `after_id`; null: that was all."""

    dry_run: bool
    jobs: int
    output_bytes: int
    checkpoint_bytes: int
    not_measured: int
    dead_letters: int
    failed: list[NotCleanedView]
    next_after_id: int | None


class DiskShareView(TypedDict):
    """What the jobs of a user take."""

    user: str
    bytes: int


class DiskView(TypedDict):
    """Bytes of the disk that the home is on. `full_in_s`: seconds, at the rate of the last day; null while it does not
    fill, or is not known. `largest`: the users whose jobs take most."""

    free_bytes: int
    total_bytes: int
    full_in_s: float | None
    largest: list[DiskShareView]


@router.get("/disk", summary="How much room is left on the disk, for how long, and who has the rest")
def disk(ctx: Ctx) -> Answer[DiskView]:
    seen = disk_report.outlook(ctx)
    return {
        "free_bytes": seen.free,
        "total_bytes": seen.total,
        "full_in_s": None if seen.full_in_s is None else round(seen.full_in_s),
        "largest": [{"user": user, "bytes": size} for user, size in seen.largest],
    }


@router.get("/report/disk", summary="What takes the disk as a table, in MiB")
def report_disk(
    ctx: Ctx,
    by: Annotated[
        str, Query(description="user, group or job", json_schema_extra={"enum": list(disk_report.GROUPINGS)})
    ] = "user",
) -> Answer[TableView]:
    columns, rows = disk_report.disk_report(ctx, by)
    return {"columns": columns, "rows": [list(row) for row in rows]}


@router.post("/clean", summary="Remove what finished jobs left on the disk, a part at a time")
def clean_jobs(ctx: Ctx, caller: Who, wanted: Cleaning) -> Answer[CleanedView]:
    choice = Choice(
        before=None if wanted.older_than_s is None else ctx.clock.now() - wanted.older_than_s,
        user=wanted.user,
        group=wanted.group,
        states=None if wanted.states is None else frozenset(wanted.states),
        ids=None if wanted.ids is None else tuple(dict.fromkeys(wanted.ids)),
        checkpoints=wanted.checkpoints,
    )
    if wanted.dry_run:
        total = clean.preview(ctx, caller, choice)
        return {
            "dry_run": True,
            "jobs": total.jobs,
            "output_bytes": total.output + total.records,
            "checkpoint_bytes": total.checkpoints if wanted.checkpoints else 0,
            "not_measured": total.not_measured,
            "dead_letters": total.dead_letters,
            "failed": [],
            "next_after_id": None,
        }
    step = clean.remove(ctx, caller, choice, wanted.after_id)
    return {
        "dry_run": False,
        "jobs": len(step.freed.jobs),
        "output_bytes": step.freed.output,
        "checkpoint_bytes": step.freed.checkpoints,
        "not_measured": 0,
        "dead_letters": 0,
        "failed": [{"id": job_id, "message": why} for job_id, why in step.freed.failed.items()],
        "next_after_id": step.next_after_id,
    }

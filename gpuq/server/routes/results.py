"""Results: bytes that a user's program wrote, given out so that no browser runs them in our name."""

from __future__ import annotations

import mimetypes
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from gpuq.engine.access import require_reader
from gpuq.engine.context import Context
from gpuq.engine.queries import results
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.routes.params import JobId
from gpuq.server.routes.questions import FileResponse

router = APIRouter(tags=["jobs"])

UNKNOWN = "application/octet-stream"
# Of everything else a browser may make a page, with scripts: it is saved and not shown.
_SHOWN = frozenset({"text/plain", "text/csv", "application/json", "application/pdf"})
_SHOWN_KINDS = ("image/", "audio/", "video/")
_NEVER_SHOWN = frozenset({"image/svg+xml"})
# Not those of the machine, so that a name means the same everywhere.
_TYPES = mimetypes.MimeTypes()
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {UNKNOWN: {}},
        "description": "Bytes as the job wrote them, with the media type that it said, if it did.",
    }
}
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}, "description": "The text, in UTF-8."}}
Extension = Annotated[str, Path(pattern="^[A-Za-z0-9]{1,16}$", description="as in `plot.png`: the type to serve it as")]


@router.get("/jobs/{job_id}/result", response_class=Response, responses=_BYTES, summary="What a job left as its result")
def read_result(ctx: Ctx, caller: Who, job_id: JobId) -> Response:
    return _result(ctx, caller, job_id, None)


@router.get(
    "/jobs/{job_id}/result.{extension}",
    response_class=Response,
    responses=_BYTES,
    summary="The same, served as the type that this extension stands for",
)
def read_result_as(ctx: Ctx, caller: Who, job_id: JobId, extension: Extension) -> Response:
    return _result(ctx, caller, job_id, extension)


@router.get(
    "/jobs/{job_id}/short_result", response_class=Response, responses=_TEXT, summary="The short result of a job"
)
def read_short_result(ctx: Ctx, caller: Who, job_id: JobId) -> Response:
    with ctx.records.read() as reader:
        job = reader.job(job_id)
    require_reader(ctx.accounts, job, caller, "result")
    return Response(results.short_result(job), media_type="text/plain", headers=_headers("text/plain"))


def _result(ctx: Context, caller: Who, job_id: int, extension: str | None) -> Response:
    with ctx.records.read() as reader:
        job = reader.job(job_id)
    require_reader(ctx.accounts, job, caller, "result")
    file = results.open_result(ctx, job)
    if extension is None:
        served = job.result_type or UNKNOWN
    else:
        served = _TYPES.guess_type(f"x.{extension.lower()}")[0] or UNKNOWN
    answer = FileResponse(file, file.close)
    for name, value in {"Content-Type": served, **_headers(served)}.items():
        answer.headers[name] = value
    return answer


def _headers(served: str) -> dict[str, str]:
    kind = served.partition(";")[0].strip().lower()
    shown = kind in _SHOWN or (kind.startswith(_SHOWN_KINDS) and kind not in _NEVER_SHOWN)
    return {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Content-Disposition": "inline" if shown else "attachment",
    }

"""Jobs that have ended, the last first; the filters are in the address, and a table of the same for spreadsheets."""

from __future__ import annotations

import csv
import io
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from gpuq.domain.job import JobView, job_json
from gpuq.domain.states import FINAL
from gpuq.ports.records import JobFilter
from gpuq.server.pages.now import after, filters, state_of
from gpuq.server.pages.render import HEADERS, page
from gpuq.server.routes.params import moment

MOST = 100
MOST_ROWS = 100_000
_COLUMNS = (
    "id", "name", "user", "group", "state", "outcome", "gpus", "priority", "submitted_at", "started_at", "finished_at",
    "exit_code", "signal", "error",
)  # fmt: skip


def _where(request: Request, limit: int) -> tuple[dict[str, str], JobFilter]:
    given = filters(request)
    times: dict[str, float | None] = {}
    for name in ("since", "until"):
        text = request.query_params.get(name, "").strip()
        times[name] = None
        if text:
            given[name] = text[:40]
            times[name] = moment(name, text)
    states = state_of(given, FINAL)
    where = JobFilter(
        states=FINAL if states is None else states,
        user=given.get("user"),
        group=given.get("group"),
        name=given.get("name"),
        finished_since=times["since"],
        finished_until=times["until"],
        after_id=after(request),
        limit=limit,
        last_ended_first=True,
    )
    return given, where


def show(request: Request) -> Response:
    """`GET /ui/history`."""
    given, where = _where(request, MOST + 1)
    with request.app.state.ctx.records.read() as tx:
        jobs: list[JobView] = [job_json(job) for job in tx.jobs(where)]
    more = None
    if len(jobs) > MOST:
        more = f"/ui/history?{urlencode({**given, 'after_id': jobs[MOST - 1]['id']})}"
    return page(
        request,
        "history.html",
        "History",
        jobs=jobs[:MOST],
        given=given,
        states=sorted(map(str, FINAL)),
        more=more,
        csv=f"/ui/history.csv?{urlencode(given)}",
    )


def table(request: Request) -> Response:
    """`GET /ui/history.csv`: at most the last hundred thousand."""
    _, where = _where(request, MOST_ROWS)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    ctx = request.app.state.ctx
    with ctx.records.read() as tx:
        for job in tx.jobs(where):
            view: Any = job_json(job)
            writer.writerow([_cell(view[name]) for name in _COLUMNS])
    ctx.records.spare_memory()
    headers = {**HEADERS, "Content-Disposition": 'attachment; filename="history.csv"'}
    body = text.getvalue().encode("utf-8", "replace")
    return Response(body, media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: Any) -> Any:
    """A spreadsheet takes text that begins like this for a formula, and runs it."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} and not isinstance(value, int | float) else text

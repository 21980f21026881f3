"""The reports as bars and tables, over a window that is in the address."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gpuq.engine.queries import reports, who
from gpuq.errors import UsageError
from gpuq.server.pages.render import page
from gpuq.server.routes.questions import PLACES

WINDOWS = {"1d": 86400.0, "7d": 7 * 86400.0, "30d": 30 * 86400.0, "90d": 90 * 86400.0, "all": None}
# The column of each report that the bars show.
_BARS = {"usage": "gpu_hours", "waits": "p50_s", "failures": "jobs", "utilization": "utilization"}


def show(request: Request) -> Response:
    """`GET /ui/reports`."""
    query = request.query_params
    kind, by, window = query.get("kind", "usage"), query.get("by", "user"), query.get("window", "7d")
    if window not in WINDOWS:
        raise UsageError(f"no window {window[:40]!r}", hint="there are: " + ", ".join(WINDOWS))
    ctx = request.app.state.ctx
    length = WINDOWS[window]
    since = None if length is None else ctx.clock.now() - length
    with PLACES.asking(request.state.caller.user):
        columns, rows = reports.report(ctx, kind, by, since)
    return page(
        request,
        "reports.html",
        "Reports",
        who=who.who(ctx),
        kind=kind,
        by=by,
        window=window,
        kinds=reports.KINDS,
        groupings=reports.GROUPINGS,
        windows=list(WINDOWS),
        columns=columns,
        rows=rows,
        bars=bars(columns, rows, _BARS.get(kind, "")),
    )


def bars(columns: list[str], rows: list[tuple[Any, ...]], wanted: str) -> dict[str, Any] | None:
    """The column that is drawn, with (label, value, width of 0 to 600) for each of the first rows; None where there is
    nothing to draw."""
    numbers = [i for i, name in enumerate(columns) if i and _numeric(rows, i)]
    at = columns.index(wanted) if wanted in columns else next(iter(numbers), None)
    if at is None or not rows:
        return None
    found = [(str(row[0]), float(row[at] or 0)) for row in rows[:40]]
    most = max(value for _, value in found) or 1.0
    return {"column": columns[at], "rows": [(label, value, round(600 * value / most, 1)) for label, value in found]}


def _numeric(rows: list[tuple[Any, ...]], at: int) -> bool:
    return any(isinstance(row[at], int | float) for row in rows)

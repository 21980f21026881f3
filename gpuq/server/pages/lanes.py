"""Every GPU as a lane of time: what ran, runs, and is expected to run."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, TypedDict

from starlette.requests import Request
from starlette.responses import Response

from gpuq.engine.queries.lanes import BarView, LanesView, lanes
from gpuq.errors import UsageError
from gpuq.server.pages.render import page
from gpuq.server.pages.text import cut, moment

# Hours before and after now.
WINDOWS = {"6h": (3, 6), "24h": (6, 24), "3d": (24, 72)}
# Of the drawing: where the lanes begin, how long they are, and how high one is.
LEFT, WIDTH, HEIGHT = 70.0, 920.0, 34.0


class Mark(TypedDict):
    """A line of the scale."""

    x: float
    at: str


def show(request: Request) -> Response:
    """`GET /ui/lanes`."""
    window = request.query_params.get("window", "6h")
    if window not in WINDOWS:
        raise UsageError(f"no window {window[:40]!r}", hint="there are: " + ", ".join(WINDOWS))
    past, ahead = WINDOWS[window]
    state = request.app.state
    found = lanes(state.ctx, state.queries, past_s=past * 3600, ahead_s=ahead * 3600)
    # A second more would change the drawing for nobody to see, and be sent to everybody.
    return page(request, "lanes.html", "Lanes", window=window, windows=list(WINDOWS), **drawing(found))


def _at(text: str) -> datetime:
    found = moment(text)
    assert found is not None
    return found


def drawing(found: LanesView) -> dict[str, Any]:
    """Places of the bars, of "now" and of the scale, in the units of the drawing."""
    since, until = _at(found["since"]), _at(found["until"])
    span = (until - since).total_seconds()

    def x(at: datetime) -> float:
        return round(LEFT + WIDTH * min(max((at - since).total_seconds() / span, 0.0), 1.0), 1)

    lane = {gpu: place for place, gpu in enumerate(found["gpus"])}
    bars = [_bar(bar, lane[bar["gpu"]], x, until) for bar in found["bars"] if bar["gpu"] in lane]
    hours = max(1, round(span / 3600 / 9))
    first = since.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    marks = []
    while first < until:
        marks.append(Mark(x=x(first), at=f"{first:%H:%M}"))
        first += timedelta(hours=hours)
    return {
        "gpus": found["gpus"],
        "bars": bars,
        "marks": marks,
        "now": x(_at(found["now"])),
        "height": HEIGHT,
        "total": HEIGHT * len(lane) + 26,
        "rows": sorted(found["bars"], key=lambda bar: (bar["gpu"], bar["start"])),
    }


def _bar(bar: BarView, lane: int, x: Any, until: datetime) -> dict[str, Any]:
    start = x(_at(bar["start"]))
    end = x(until if bar["end"] is None else _at(bar["end"]))
    width = max(round(end - start, 1), 1.5)
    return {
        "job_id": bar["job_id"],
        "kind": bar["kind"],
        "bad": bar["kind"] == "past" and bar["outcome"] != "succeeded",
        "x": start,
        "y": lane * HEIGHT + 4,
        "width": width,
        # As many letters as there is room for.
        "label": cut(f"{bar['name']} · {bar['user']}", max(int(width / 7.5), 1)) if width > 28 else "",
        "title": f"job {bar['job_id']} {bar['name']} of {bar['user']}: {bar['outcome'] or bar['kind']}",
    }

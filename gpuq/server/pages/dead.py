"""The dead-letter queue, by cause: what failed in the same way stands together, and is tried again together."""

from __future__ import annotations

import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gpuq.engine.actions import dead_letters
from gpuq.errors import GpuqError, NotFound, UsageError
from gpuq.server.pages.forms import pairs
from gpuq.server.pages.render import HEADERS, page
from gpuq.server.pages.text import cut

# Letters that are read, and jobs that one click may touch.
MOST = 1000
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+")


def _last_line(letter: dict[str, Any]) -> str:
    lines = [line.strip() for line in (letter["log_tail"] or "").splitlines() if line.strip()]
    return cut(lines[-1], 160) if lines else ""


def by_cause(letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of the same outcome, error and last line, numbers left out; the largest first."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for letter in letters:
        line = _last_line(letter)
        key = (str(letter["outcome"]), _NUMBERS.sub("N", letter["error"] or ""), _NUMBERS.sub("N", line))
        group = groups.setdefault(
            key, {"outcome": letter["outcome"], "error": letter["error"], "line": line, "letters": []}
        )
        group["letters"].append(letter)
    return sorted(groups.values(), key=lambda group: -len(group["letters"]))


def show(request: Request) -> Response:
    """`GET /ui/dead`."""
    letters = dead_letters.list_letters(request.app.state.ctx, request.state.caller, limit=MOST)
    return page(request, "dead.html", "Dead letters", groups=by_cause(letters), count=len(letters), most=MOST)


async def act(request: Request) -> Response:
    """`POST /ui/dead`: `verb` (retry, drop) for every `job`; asked about first, with their number."""
    return await run_in_threadpool(_act, request, await pairs(request))


def _act(request: Request, given: list[tuple[str, str]]) -> Response:
    verb = next((value for name, value in given if name == "verb"), "")
    does = {"retry": dead_letters.retry, "drop": dead_letters.remove}.get(verb)
    if does is None:
        raise NotFound(f"nothing is called {verb[:40]!r} here")
    ids = list(dict.fromkeys(int(v) for name, v in given if name == "job" and v.isascii() and v.isdigit()))[:MOST]
    if not ids:
        raise UsageError("no job was chosen", hint="tick at least one")
    if ("sure", "yes") not in given:
        what = "Queue {} again?" if verb == "retry" else "Remove the dead letters of {}? Their history stays."
        jobs = "1 job" if len(ids) == 1 else f"{len(ids)} jobs"
        return page(
            request,
            "sure.html",
            "Are you sure?",
            question=what.format(f"{jobs} ({', '.join(map(str, ids[:10]))}{', …' if len(ids) > 10 else ''})"),
            action="/ui/dead",
            back="/ui/dead",
            button=verb.capitalize(),
            hidden={"verb": [verb], "job": list(map(str, ids))},
        )
    refused = []
    for job_id in ids:
        try:
            does(request.app.state.ctx, job_id, request.state.caller)
        except GpuqError as error:
            refused.append(f"job {job_id}: {error.message}")
    if refused:
        return page(request, "refused.html", "Some were refused", done=len(ids) - len(refused), refused=refused[:100])
    return RedirectResponse("/ui/dead", 303, headers=HEADERS)

"""The first page: every GPU with its holder, what runs, and the line with reasons and expected starts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from gpuq.domain.job import job_json
from gpuq.domain.states import ACTIVE, FINAL, JobState
from gpuq.engine.queries import gpu_report
from gpuq.engine.switches import paused
from gpuq.errors import UsageError
from gpuq.ports.records import JobFilter
from gpuq.server.pages.render import page

# Jobs that one page of the line shows.
MOST = 50
_FILTERS = ("user", "group", "name", "state")


def filters(request: Request) -> dict[str, str]:
    """Those of the address that say something."""
    given = ((name, request.query_params.get(name, "").strip()) for name in _FILTERS)
    return {name: value[:200] for name, value in given if value}


def state_of(given: dict[str, str], among: frozenset[JobState]) -> frozenset[JobState] | None:
    """Raises UsageError."""
    if "state" not in given:
        return None
    known = {str(state): state for state in among}
    if given["state"] not in known:
        raise UsageError(f"no state {given['state']!r} here", hint="known: " + ", ".join(sorted(known)))
    return frozenset({known[given["state"]]})


def after(request: Request) -> int | None:
    """The job behind which this page of a list goes on."""
    text = request.query_params.get("after_id", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def show(request: Request) -> Response:
    """`GET /`."""
    ctx, queries = request.app.state.ctx, request.app.state.queries
    given, behind = filters(request), after(request)
    where = JobFilter(
        states=state_of(given, frozenset(JobState) - FINAL),
        user=given.get("user"),
        group=given.get("group"),
        name=given.get("name"),
    )
    with ctx.records.read() as tx:
        counts = asdict(queries.queue(tx, where=where))
        pause = paused(tx)
        if behind is None:
            found, arrays = queries.lumped(tx, limit=MOST + 1, where=where)
        else:
            found = next(iter(queries.queue_pages(tx, limit=MOST + 1, after_id=behind, where=where)), [])
            arrays = {}
    jobs = [job_json(job, seen) for job, seen in found]
    more = None if len(jobs) <= MOST else f"/?{urlencode({**given, 'after_id': jobs[MOST - 1]['id']})}"
    return page(
        request,
        "now.html",
        "Now",
        gpus=gpu_report.report(ctx),
        counts=counts,
        pause=pause,
        agent=queries.agent.is_alive(),
        running=[job for job in jobs[:MOST] if job["state"] in ACTIVE],
        waiting=[job for job in jobs[:MOST] if job["state"] not in ACTIVE],
        arrays=arrays,
        given=given,
        more=more,
    )


def gpu_ids(job: Any) -> str:
    """`0,1` of a job's GPUs."""
    return ",".join(map(str, job["gpu_indices"] or ()))

"""One job: why it waits or how it ended, what it runs, its attempts, its output, and what may be done to it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job, JobStatus, job_json
from gpuq.domain.priority import Priority
from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.engine.access import may_read, require_owner
from gpuq.engine.actions import cancel, change, hold, requeue, retry
from gpuq.engine.context import Context
from gpuq.errors import NotFound, UsageError
from gpuq.server.pages import output
from gpuq.server.pages.forms import fields
from gpuq.server.pages.render import HEADERS, page

# Events of a job that are shown; one of many retries has thousands.
EVENTS = 200

# What is asked about once more before it is done, and how.
_SURE = {
    "cancel": "Cancel {name}? What it has computed since its last checkpoint is lost.",
    "kill": "Kill {name} at once? It gets no time to write a checkpoint.",
    "requeue": "Stop {name} and put it back in line? No retry is used.",
}


def verbs_of(job: Job) -> list[str]:
    """What can be done to a job in its state; whether the caller may is another question."""
    if job.state in FINAL:
        return ["retry"] if job.state is not JobState.COMPLETED else []
    if job.state in ACTIVE:
        return ["cancel", "kill", "requeue"] if job.state is not JobState.STOPPING else ["kill"]
    return ["release" if job.state is JobState.HELD else "hold", "top", "cancel"]


def show(request: Request) -> Response:
    """`GET /ui/jobs/{id}`."""
    ctx: Context = request.app.state.ctx
    caller: Caller = request.state.caller
    job_id: int = request.path_params["job_id"]
    with ctx.records.read() as tx:
        job = tx.job(job_id)
        attempts = [attempt.to_json() for attempt in tx.attempts(job_id)]
        events = [event.to_json() for event in tx.events(job_id=job_id)]
    [(_, seen)] = request.app.state.queries.describe([job]) if job.state not in FINAL else [(job, JobStatus())]
    readable = may_read(ctx.accounts, job.user, job.uid, caller)
    return page(
        request,
        "job.html",
        f"Job {job_id}",
        job=job_json(job, seen),
        command=shlex.join(job.command),
        why=request.app.state.queries.why(job_id) if job.state not in FINAL else None,
        attempts=attempts,
        events=events[-EVENTS:],
        passed_over=max(0, len(events) - EVENTS),
        verbs=verbs_of(job),
        priorities=[priority.label for priority in Priority] if job.state in WAITING else [],
        log=output.tail(ctx, job) if readable else None,
        final=job.state in FINAL,
    )


async def act(request: Request) -> Response:
    """`POST /ui/jobs/{id}/{verb}`: does it and shows the job; what cannot be undone is asked about first."""
    given = await fields(request)
    return await run_in_threadpool(_act, request, given)


def _act(request: Request, given: dict[str, str]) -> Response:
    ctx, caller = request.app.state.ctx, request.state.caller
    job_id, verb = request.path_params["job_id"], request.path_params["verb"]
    does = _VERBS.get(verb)
    if does is None:
        raise NotFound(f"nothing is called {verb!r} here")
    if verb in _SURE and given.get("sure") != "yes":
        return _ask(request, job_id, verb)
    does(ctx, job_id, caller, given)
    return RedirectResponse(f"/ui/jobs/{job_id}", 303, headers=HEADERS)


def _ask(request: Request, job_id: int, verb: str) -> Response:
    with request.app.state.ctx.records.read() as tx:
        job = tx.job(job_id)
    require_owner(job, request.state.caller, verb)
    name = f"job {job_id} ({job.name}, of {job.user}, {job.state})"
    return page(
        request,
        "sure.html",
        "Are you sure?",
        question=_SURE[verb].format(name=name),
        action=request.url.path,
        back=f"/ui/jobs/{job_id}",
        button=verb.capitalize(),
        hidden={},
    )


def _set_priority(ctx: Context, job_id: int, caller: Caller, given: dict[str, str]) -> None:
    if "priority" not in given:
        raise UsageError("no priority was chosen")
    change.update(ctx, job_id, caller, {"priority": given["priority"]})


_VERBS: dict[str, Callable[[Context, int, Caller, dict[str, str]], Any]] = {
    "cancel": lambda ctx, job_id, caller, given: cancel.cancel(ctx, job_id, caller),
    "kill": lambda ctx, job_id, caller, given: cancel.cancel(ctx, job_id, caller, force=True),
    "hold": lambda ctx, job_id, caller, given: hold.hold(ctx, job_id, caller),
    "release": lambda ctx, job_id, caller, given: hold.release(ctx, job_id, caller),
    "top": lambda ctx, job_id, caller, given: change.top(ctx, job_id, caller),
    "retry": lambda ctx, job_id, caller, given: retry.retry(ctx, job_id, caller),
    "requeue": lambda ctx, job_id, caller, given: requeue.requeue(ctx, job_id, caller),
    "priority": _set_priority,
}

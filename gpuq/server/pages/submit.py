"""Submitting a job by a form, from nothing or from an earlier job, with a look at when it would start."""

from __future__ import annotations

import shlex
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gpuq.domain.priority import Priority
from gpuq.domain.quantities import parse_duration, parse_memory_mb
from gpuq.domain.spec import JobSpec
from gpuq.engine.intake import again, submit
from gpuq.errors import GpuqError, QueueFull, UsageError
from gpuq.server.pages.forms import fields
from gpuq.server.pages.render import HEADERS, page

_EMPTY = {
    "command": "", "cwd": "", "name": "", "group": "", "gpus": "1", "gpu_mem": "", "time": "", "priority": "normal",
    "retries": "", "array": "", "after": "", "env": "", "like": "",
}  # fmt: skip


def show(request: Request) -> Response:
    """`GET /ui/submit`, with `like=ID` filled in from that job."""
    like = request.query_params.get("like", "")
    given = dict(_EMPTY)
    if like.isascii() and like.isdigit() and len(like) < 19:
        given |= _of(request, int(like))
    return _form(request, given)


def _of(request: Request, job_id: int) -> dict[str, str]:
    with request.app.state.ctx.records.read() as tx:
        job = tx.job(job_id)
        spec = tx.spec(job_id)[0]
    mine = job.user == request.state.caller.user
    return {
        "command": shlex.join(spec.command),
        "cwd": spec.cwd or "",
        "name": spec.name or "",
        "group": spec.group or "",
        "gpus": str(spec.gpus),
        "gpu_mem": "" if spec.gpu_mem_mb is None else f"{spec.gpu_mem_mb}M",
        "time": "" if spec.time_limit_s is None else f"{spec.time_limit_s:g}",
        "priority": spec.priority.label,
        "retries": "" if spec.max_retries is None else str(spec.max_retries),
        # The environment of the earlier one comes along only for its owner, and is not shown.
        "like": str(job_id) if mine else "",
    }


def _form(request: Request, given: dict[str, str], *, error: GpuqError | None = None, told: Any = None) -> Response:
    return page(
        request,
        "submit.html",
        "Submit",
        status=200 if error is None else error.http_status,
        given=given,
        error=error,
        told=told,
        priorities=[priority.label for priority in Priority],
    )


async def act(request: Request) -> Response:
    """`POST /ui/submit`: queues it and shows the job, or (`check`) says when it would start."""
    given = {name: value.strip() for name, value in {**_EMPTY, **await fields(request)}.items()}
    return await run_in_threadpool(_act, request, given)


def _act(request: Request, given: dict[str, str]) -> Response:
    ctx, caller = request.app.state.ctx, request.state.caller
    try:
        spec = _spec(request, given)
        if "check" in given:
            start = submit.check(ctx, spec, caller, request.app.state.queries.estimate)
            return _form(request, given, told={"start": start})
        job = submit.submit(ctx, [spec], caller)[0]
    except GpuqError as error:
        if error.http_status >= 500 and not isinstance(error, QueueFull):
            raise
        return _form(request, given, error=error)
    return RedirectResponse(f"/ui/jobs/{job.id}", 303, headers=HEADERS)


def _spec(request: Request, given: dict[str, str]) -> JobSpec:
    """Raises UsageError, in the words of the form."""
    wanted: dict[str, Any] = {"priority": given["priority"], "gpus": _whole("GPUs", given["gpus"] or "1")}
    try:
        wanted["command"] = shlex.split(given["command"])
    except ValueError as error:
        raise UsageError(f"the command cannot be read: {error}", hint="close every quotation mark") from error
    for name in ("cwd", "name", "group", "array"):
        if given[name]:
            wanted[name] = given[name]
    if given["gpu_mem"]:
        wanted["gpu_mem_mb"] = parse_memory_mb(given["gpu_mem"])
    if given["time"]:
        wanted["time_limit_s"] = parse_duration(given["time"])
    if given["retries"]:
        wanted["max_retries"] = _whole("retries", given["retries"])
    if given["after"]:
        wanted["after"] = [_whole("after", one) for one in given["after"].replace(",", " ").split()]
    env = _environment(given["env"])
    if given["like"]:
        return again.again(request.app.state.ctx, _whole("like", given["like"]), request.state.caller, wanted | env)
    if not wanted["command"]:
        raise UsageError("what shall be run?", hint="write the command as in a shell: python train.py --lr 1e-3")
    return JobSpec.parse(wanted | env)


def _environment(text: str) -> dict[str, Any]:
    env = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        if not equals:
            raise UsageError(f"environment: {line[:40]!r} is not NAME=VALUE", hint="one a line: NAME=VALUE")
        env[name] = value
    return {"env": env} if env else {}


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise UsageError(f"{name}: {text[:40]!r} is no number")
    return int(text)

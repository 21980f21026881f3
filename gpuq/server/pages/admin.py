"""For whoever looks after the box: pausing, draining, what maintenance did, who is logged in."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gpuq.domain.times import iso
from gpuq.engine.actions import drain, logins, pause
from gpuq.engine.queries import gpu_report, health
from gpuq.engine.switches import paused
from gpuq.errors import NotFound, UsageError
from gpuq.server.pages.forms import fields
from gpuq.server.pages.render import HEADERS, page


def show(request: Request) -> Response:
    """`GET /ui/admin`: everybody sees it, and his own logins; what an administrator may do is offered to him alone."""
    ctx, caller = request.app.state.ctx, request.state.caller
    with ctx.records.read() as tx:
        pause_now = paused(tx)
    sessions = [
        {
            "id": one.id,
            "user": one.user,
            "agent": one.agent,
            "seen": iso(one.seen_at),
            "until": iso(one.expires_at),
            "way": "a token" if one.token_id is not None else "gpuq web",
        }
        for one in logins.sessions_of(ctx, caller)
    ]
    return page(
        request,
        "admin.html",
        "Admin",
        ready=health.readyz(ctx, request.app.state.queries.agent),
        pause=pause_now,
        gpus=gpu_report.report(ctx),
        sessions=sessions,
    )


async def act(request: Request) -> Response:
    """`POST /ui/admin/{verb}`."""
    return await run_in_threadpool(_act, request, await fields(request))


def _act(request: Request, given: dict[str, str]) -> Response:
    ctx, caller = request.app.state.ctx, request.state.caller
    reason = given.get("reason", "").strip()[:1000] or None
    match request.path_params["verb"]:
        case "pause":
            pause.pause(ctx, caller, reason)
        case "resume":
            pause.resume(ctx, caller)
        case "drain":
            drain.drain(ctx, _number(given, "gpu"), caller, reason)
        case "undrain":
            drain.undrain(ctx, _number(given, "gpu"), caller)
        case "end-session":
            logins.end(ctx, _number(given, "session"), caller)
        case verb:
            raise NotFound(f"nothing is called {verb[:40]!r} here")
    return RedirectResponse("/ui/admin", 303, headers=HEADERS)


def _number(given: dict[str, str], name: str) -> int:
    text = given.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise UsageError(f"{name}: {text[:40]!r} is no number")
    return int(text)

"""Logins on the page: a link for whoever asks, and the sessions that are open."""

from __future__ import annotations

from fastapi import APIRouter, Request
from typing_extensions import TypedDict

from gpuq.domain.times import iso
from gpuq.engine.actions import logins
from gpuq.errors import Refused
from gpuq.ports.admin import WebSession
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.routes import params
from gpuq.server.routes.views import Answer

router = APIRouter(tags=["administration"])


class LoginLinkView(TypedDict):
    """A way into the page, good once. `path` goes behind one of `addresses`, where the page is served over TCP; it
    carries the secret behind a `#`, which no log and no other page gets to see."""

    path: str
    addresses: list[str]
    socket: str
    expires_in_s: float


class SessionView(TypedDict):
    """A browser that is logged in."""

    id: int
    user: str
    scope: str
    agent: str | None
    created_at: str | None
    seen_at: str | None
    expires_at: str | None


class EndedView(TypedDict):
    """A session that was ended."""

    id: int
    ended: bool


@router.post("/login-links", status_code=201, summary="A link to the page, good once and for a minute")
def new_link(request: Request, ctx: Ctx, caller: Who) -> Answer[LoginLinkView]:
    if request.app.state.streams is None:
        raise Refused("no daemon runs here, so nobody serves the page", hint="start it with `gpuq up -d`")
    return {
        "path": f"/ui/login#{logins.new_link(ctx, caller)}",
        "addresses": list(request.app.state.addresses),
        "socket": str(ctx.settings.socket_path),
        "expires_in_s": logins.LINK_S,
    }


@router.get("/sessions", summary="Browsers that are logged in on the page")
def list_sessions(ctx: Ctx, caller: Who) -> Answer[list[SessionView]]:
    return [view_of(session) for session in logins.sessions_of(ctx, caller)]


@router.delete("/sessions/{session_id}", summary="Log a browser out")
def end_session(ctx: Ctx, caller: Who, session_id: params.JobId) -> Answer[EndedView]:
    logins.end(ctx, session_id, caller)
    return {"id": session_id, "ended": True}


def view_of(session: WebSession) -> SessionView:
    """Ready for JSON."""
    return {
        "id": session.id,
        "user": session.user,
        "scope": session.scope,
        "agent": session.agent,
        "created_at": iso(session.created_at),
        "seen_at": iso(session.seen_at),
        "expires_at": iso(session.expires_at),
    }

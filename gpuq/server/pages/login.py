"""Who looks at a page: a cookie that stands for a login, got by a link of `gpuq web` or for a token.

The cookie is good for these addresses only, not for the API, and the peer of the Unix socket counts for nothing here: a
forwarded port hands everybody's browser to it.
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gpuq.domain.caller import Caller
from gpuq.engine.actions import logins
from gpuq.engine.context import Context
from gpuq.errors import Forbidden, GpuqError, Unauthenticated
from gpuq.server.http.auth import live_token, session_caller
from gpuq.server.pages.forms import fields
from gpuq.server.pages.render import HEADERS, page

PATH = "/ui/login"
MAX_SECRET = 200


def cookie_name(request: Request) -> str:
    """One a port: browsers send a cookie to every port of a host."""
    return f"gpuq-{request.url.port or (443 if _secure(request) else 80)}"


def _secure(request: Request) -> bool:
    """Whether the browser speaks https, to a proxy in front of us perhaps: it says so itself."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")


async def caller_of(ctx: Context, request: Request) -> Caller | None:
    """Whose login this browser has; None: none that counts. Raises Forbidden for an account that is gone."""
    secret = request.cookies.get(cookie_name(request), "") or request.cookies.get("gpuq-443", "")
    if not 0 < len(secret) <= MAX_SECRET:
        return None
    return await run_in_threadpool(_caller, ctx, secret)


def _caller(ctx: Context, secret: str) -> Caller | None:
    session = ctx.web_sessions.find(secret, ctx.clock.now(), logins.IDLE_S)
    return None if session is None else session_caller(ctx, session)


async def show(request: Request) -> Response:
    """The form."""
    return page(request, "login.html", "Log in", error=None, back=_back(request.query_params.get("back")))


async def enter(request: Request) -> Response:
    """Takes the secret of a link, or a token."""
    given = await fields(request)
    ctx: Context = request.app.state.ctx
    back = _back(given.get("back"))
    try:
        secret = await run_in_threadpool(_session, ctx, given, request.headers.get("user-agent"))
    except GpuqError as error:
        if not isinstance(error, Unauthenticated | Forbidden):
            raise
        return page(request, "login.html", "Log in", status=error.http_status, error=error, back=back)
    answer = RedirectResponse(back, 303, headers=HEADERS)
    answer.set_cookie(
        cookie_name(request),
        secret,
        max_age=int(logins.SESSION_S),
        path="/",
        httponly=True,
        samesite="strict",
        secure=_secure(request),
    )
    return answer


def _session(ctx: Context, given: dict[str, str], agent: str | None) -> str:
    if code := given.get("code", "").strip():
        return logins.by_link(ctx, code[:MAX_SECRET], agent)
    return logins.by_token(ctx, live_token(ctx, given.get("token", "").strip()[:MAX_SECRET]), agent)


async def leave(request: Request) -> Response:
    """Logs this browser out."""
    ctx: Context = request.app.state.ctx
    secret = request.cookies.get(cookie_name(request), "")
    await run_in_threadpool(ctx.web_sessions.log_out, secret)
    answer = RedirectResponse(PATH, 303, headers=HEADERS)
    answer.delete_cookie(cookie_name(request), path="/")
    return answer


def _back(path: str | None) -> str:
    """Where to go after the login: an address of this site, whatever was asked for."""
    plain = path is not None and path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain and path is not None and len(path) < 2000 else "/"


def asked_from_elsewhere(request: Request) -> bool:
    """A link in somebody's mail: the browser kept the cookie back, and gives it when our own page asks again."""
    return request.headers.get("sec-fetch-site") == "cross-site" and request.method == "GET"


def ask_again() -> Response:
    """A document that asks for itself."""
    body = '<!doctype html><meta http-equiv="refresh" content="0"><title>gpuq</title>'
    return HTMLResponse(body, headers=HEADERS)

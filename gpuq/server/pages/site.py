"""All pages as one application beside the API: who looks, what is refused, and what a failure looks like."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from gpuq.domain.caller import Scope as TokenScope
from gpuq.engine.access import require_scope
from gpuq.errors import CrossOrigin, GpuqError, NotFound
from gpuq.server.http.origin import SAFE_METHODS
from gpuq.server.pages import admin, dead, history, job, lanes, live, login, now, output, reports, submit
from gpuq.server.pages.render import HEADERS, problem

log = logging.getLogger(__name__)

STATIC = "/ui/static/"
_FOLDER = Path(__file__).with_name("static")
_FILES = {
    "app.css": "text/css",
    "app.js": "text/javascript",
    "htmx.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "stream.js": "text/javascript",
}


def is_page(path: str) -> bool:
    """Whether an address is one of these, and not the API's."""
    return path == "/" or path.startswith("/ui/")


class Site:
    """An ASGI application; `scope["app"]` is the daemon's, whose state it uses."""

    def __init__(self) -> None:
        get: list[tuple[str, Callable[..., object]]] = [
            ("/", now.show),
            ("/ui/jobs/{job_id:int}", job.show),
            ("/ui/jobs/{job_id:int}/log", output.download),
            ("/ui/jobs/{job_id:int}/log/stream", output.stream),
            ("/ui/lanes", lanes.show),
            ("/ui/history", history.show),
            ("/ui/history.csv", history.table),
            ("/ui/dead", dead.show),
            ("/ui/submit", submit.show),
            ("/ui/reports", reports.show),
            ("/ui/admin", admin.show),
            ("/ui/stream", live.stream),
        ]
        post: list[tuple[str, Callable[..., object]]] = [
            ("/ui/jobs/{job_id:int}/{verb:str}", job.act),
            ("/ui/dead", dead.act),
            ("/ui/submit", submit.act),
            ("/ui/admin/{verb:str}", admin.act),
            ("/ui/logout", login.leave),
        ]
        self._inside = Router(
            [
                *(Route(path, view, methods=["GET"]) for path, view in get),
                *(Route(path, view, methods=["POST"]) for path, view in post),
            ],
            default=_nothing,
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            answer = await self._answer(request)
            if answer is None:
                await self._inside(scope, receive, note)
                return
        except ClientDisconnect:
            return
        except Exception as error:
            if begun:
                raise
            answer = _failed(request, error)
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """What is answered before any view is asked; None: the view shall."""
        path, safe = request.url.path, request.method in SAFE_METHODS
        if path.startswith(STATIC):
            return _static(path.removeprefix(STATIC))
        if not safe:
            _require_browser(request)
        if path == login.PATH:
            return await (login.show if safe else login.enter)(request)
        caller = await login.caller_of(request.app.state.ctx, request)
        if caller is None:
            return _not_logged_in(request, safe=safe)
        request.state.caller = caller
        if not safe and path != "/ui/logout":
            require_scope(caller, TokenScope.SUBMIT)
        return None


def _require_browser(request: Request) -> None:
    """A form comes from a browser, which says from which page. With neither header nobody can tell."""
    if "origin" not in request.headers and "sec-fetch-site" not in request.headers:
        raise CrossOrigin(
            "a form without Origin and without Sec-Fetch-Site is refused",
            hint="programs use the API, with a token; /openapi.json lists what there is",
        )


def _not_logged_in(request: Request, *, safe: bool) -> Response:
    if not safe or "x-gpuq-part" in request.headers or request.url.path == "/ui/stream":
        return PlainTextResponse("log in first: `gpuq web` gives a link\n", 401, headers=HEADERS)
    if login.asked_from_elsewhere(request):
        return login.ask_again()
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    where = login.PATH if target == "/" else f"{login.PATH}?back={quote(target, safe='')}"
    return RedirectResponse(where, 303, headers=HEADERS)


def _static(name: str) -> Response:
    kind = _FILES.get(name)
    if kind is None or not (_FOLDER / name).is_file():
        return PlainTextResponse("no such file\n", 404, headers=HEADERS)
    headers = {**HEADERS, "Cache-Control": "no-cache"}
    return FileResponse(_FOLDER / name, media_type=kind, headers=headers)


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, GpuqError):
        return problem(request, error)
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(request, GpuqError("gpuq failed; this is a bug", hint="the daemon's log has the details"))


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"there is no page {scope['path']}", hint="the links above lead to all that there are")

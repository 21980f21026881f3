"""The HTTP application: every route, the gate in front of them, and the shape of failures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from gpuq import __version__
from gpuq.engine.agent import Agent
from gpuq.engine.context import Context
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.server.http import error_handlers
from gpuq.server.http.middleware import MAX_BODY, AccessMiddleware
from gpuq.server.http.sse import Streams
from gpuq.server.openapi import documented
from gpuq.server.routes import (
    admin,
    again,
    bulk,
    disk,
    drain,
    jobs,
    limits,
    logins,
    places,
    questions,
    queue,
    results,
    streaming,
    submission,
)
from gpuq.server.routes.submission import Submission

_ABOUT = """A durable GPU job queue. On the Unix socket the caller is who the kernel says it is; over TCP every
request carries `Authorization: Bearer TOKEN`. Errors are `{"error": {"code", "message", "hint"}}`."""


_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"})


class Application(FastAPI):
    """The framework's application, past which the one hot route is led."""

    _site: ASGIApp | None = None

    def mount_fast_path(self, submission: Submission, gate: AccessMiddleware) -> None:
        """Lets submissions pass beside the framework, which costs more than the submission itself."""
        self.submission = submission
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == submission.PATH:
            await self._gate(scope, receive, send)
        elif scope["type"] == "http" and (scope["path"] == "/" or scope["path"].startswith("/ui/")):
            await self._show(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A page, for people. What makes them is read when the first one is asked for."""
        if self._site is None:
            from gpuq.server.pages.site import Site

            self._site = Site()
        scope["app"] = self
        scope.setdefault("state", {})
        await self._site(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = documented(super().openapi())
        return self.openapi_schema


def create_app(
    ctx: Context,
    *,
    agent: Agent | None = None,
    on_shutdown: Callable[[bool], None] | None = None,
    streams: bool = True,
) -> Application:
    """`agent`: the one of this process, if it has one. `on_shutdown(stop_jobs)` is called on the event loop and
    must return at once; None: there is nothing to shut down here. Without `streams`, routes that never end are
    refused."""
    app = Application(title="gpuq", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None)
    app.state.ctx = ctx
    app.state.queries = JobQueries(ctx)
    app.state.agent = agent
    app.state.on_shutdown = on_shutdown
    # Where the page is served over TCP, as a browser writes it; whoever listens fills it in.
    app.state.addresses = []
    app.state.streams = Streams(ctx) if streams else None
    error_handlers.install(app)
    app.add_middleware(AccessMiddleware, ctx=ctx)
    fast = Submission(ctx, app.state.queries, agent)
    app.mount_fast_path(fast, AccessMiddleware(fast, ctx, MAX_BODY))
    parts = (again, places, bulk, jobs, results, queue, drain, limits, streaming, questions, disk, admin, logins)
    routers = [part.router for part in parts]
    for router in (_other_methods(routers), *routers):
        # Not `include_router`: it makes every route once more, all of them at the first request, which waits for that.
        app.router.routes.extend(router.routes)
    app.state.ways = _ways(routers)
    return app


def _other_methods(routers: Sequence[APIRouter]) -> APIRouter:
    """Refuses the other methods of a path like `/jobs/hold`, which without that would be asked of the job `hold`."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    other = APIRouter()

    async def refuse() -> None:
        raise HTTPException(405)

    for path in {route.path for route in routes if "{" not in route.path}:
        taken = {method for route in routes if route.path == path for method in route.methods or ()}
        if path != submission.PATH and any("{" in route.path and route.path_regex.match(path) for route in routes):
            other.add_api_route(path, refuse, methods=sorted(_METHODS - taken), include_in_schema=False)
    return other


def _ways(routers: Sequence[APIRouter]) -> list[tuple[re.Pattern[str], set[str]]]:
    """(path, methods) of every route, and of the one that is led past the framework."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    return [
        *((route.path_regex, set(route.methods or ())) for route in routes),
        (re.compile(f"^{submission.PATH}$"), {"POST"}),
    ]

"""The HTTP application: every route, the gate in front of them, and the shape of failures."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from gpuq import __version__
from gpuq.domain.spec import Batch, JobSpec
from gpuq.engine.agent import Agent
from gpuq.engine.context import Context
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.server.http import error_handlers
from gpuq.server.http.middleware import AccessMiddleware
from gpuq.server.http.sse import Streams
from gpuq.server.routes import admin, bulk, jobs, questions, queue, streaming, submission
from gpuq.server.routes.submission import Submission

_ABOUT = """A durable GPU job queue. On the Unix socket the caller is who the kernel says it is; over TCP every
request carries `Authorization: Bearer TOKEN`. Errors are `{"error": {"code", "message", "hint"}}`."""

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "hint"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": ["string", "null"]},
            },
        }
    },
}
_STATUSES = {
    "400": "the body is not JSON",
    "401": "no token, or a wrong one",
    "403": "another user's job",
    "404": "no such job",
    "409": "the job's state does not allow it",
    "422": "malformed, or can never run here",
    "503": "database or Redis is away",
}


class Application(FastAPI):
    """The framework's application, past which the one hot route is led."""

    def mount_fast_path(self, submission: Submission, gate: AccessMiddleware) -> None:
        """Lets submissions pass beside the framework, which costs more than the submission itself."""
        self.submission = submission
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == submission.PATH:
            await self._gate(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _documented(super().openapi())
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
    app.state.streams = Streams() if streams else None
    error_handlers.install(app)
    app.add_middleware(AccessMiddleware, ctx=ctx)
    fast = Submission(ctx, app.state.queries)
    app.mount_fast_path(fast, AccessMiddleware(fast, ctx))
    routers = [part.router for part in (bulk, jobs, queue, streaming, questions, admin)]
    for router in routers:
        app.include_router(router)
    app.state.ways = _ways(routers)
    return app


def _ways(routers: Sequence[APIRouter]) -> list[tuple[re.Pattern[str], set[str]]]:
    """(path, methods) of every route, and of the one that is led past the framework."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    return [
        *((route.path_regex, set(route.methods or ())) for route in routes),
        (re.compile(f"^{submission.PATH}$"), {"POST"}),
    ]


def _documented(document: dict[str, Any]) -> dict[str, Any]:
    """The framework's document with the submission, and with our error answers in place of its own."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    spec = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(spec.pop("$defs", {}))
    schemas["JobSpec"] = spec
    batch = Batch.model_json_schema(ref_template="#/components/schemas/{model}")
    batch.pop("$defs", None)
    schemas["Batch"] = batch
    schemas["Error"] = _ERROR
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["paths"][submission.PATH]["post"] = copy.deepcopy(submission.OPERATION)
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for path in document["paths"].values():
        for operation in path.values():
            _name_answers(operation["responses"], schemas)
            for status, text in _STATUSES.items():
                operation["responses"][status] = {"description": text, "content": answer}
    return document


def _name_answers(responses: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Puts the name in place of what is described by name too: the framework writes an answer out at its route."""
    for response in responses.values():
        for content in response.get("content", {}).values():
            there = content.get("schema", {}).get("properties")
            for name, schema in schemas.items():
                if there is not None and schema.get("properties") == there:
                    content["schema"] = {"$ref": f"#/components/schemas/{name}"}

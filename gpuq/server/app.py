"""The HTTP application: every route, the gate in front of them, and the shape of failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from gpuq import __version__
from gpuq.domain.spec import JobSpec
from gpuq.engine.agent import Agent
from gpuq.engine.context import Context
from gpuq.server import failures, routes_admin, routes_jobs, routes_queue, routes_submit, stream
from gpuq.server.gate import Gate

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


def create_app(
    ctx: Context,
    *,
    agent: Agent | None = None,
    on_shutdown: Callable[[bool], None] | None = None,
    streams: bool = True,
) -> FastAPI:
    """`agent`: the one of this process, if it has one. `on_shutdown(stop_jobs)` is called on the event loop and
    must return at once; None: there is nothing to shut down here. Without `streams`, routes that never end are
    refused."""
    app = FastAPI(title="gpuq", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None)
    app.state.ctx = ctx
    app.state.agent = agent
    app.state.on_shutdown = on_shutdown
    app.state.lane = routes_submit.lane(ctx)
    app.state.streams = stream.Streams() if streams else None
    failures.install(app)
    app.add_middleware(Gate, ctx=ctx)
    # The submission first: routes are tried in order, and this is the hot one.
    for part in (routes_submit, routes_jobs, routes_queue, stream, routes_admin):
        app.include_router(part.router)
    describe = app.openapi
    app.openapi = lambda: _documented(app, describe)  # type: ignore[method-assign]
    return app


def _documented(app: FastAPI, describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The framework's document, with our error answers in place of its own and the submission's schema."""
    if app.openapi_schema is None:
        document = describe()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        submission = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(submission.pop("$defs", {}))
        schemas["JobSpec"] = submission
        schemas["Error"] = _ERROR
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        answer = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        for path in document["paths"].values():
            for operation in path.values():
                for status, text in _STATUSES.items():
                    operation["responses"][status] = {"description": text, "content": answer}
        app.openapi_schema = document
    return app.openapi_schema

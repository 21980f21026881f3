"""POST /jobs: the hot path, without the framework. Parsed straight from the bytes, stored on a thread of its own,
answered as bytes; no response model and no second look at the rows that were just written.

A client that goes away before the answer has queued nothing: it could not know what, and would queue it again. Only
with an `Idempotency-Key` it may ask again for the same jobs, so then they are stored all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gpuq.domain.caller import Caller
from gpuq.domain.job import JobView
from gpuq.engine.context import Context
from gpuq.engine.intake.to_agent import Agent
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.errors import UsageError
from gpuq.server.http.peer import GONE
from gpuq.server.routes.submission_clerk import Clerk, Request
from gpuq.server.routes.submission_lane import Lane

PATH = "/jobs"

_MAX_REQUEST_KEY = 200
# Of Latin 1, without blanks at the ends, which are none of a header's value.
_PRINTABLE = "^[!-~\\xa1-\\xac\\xae-\\xff]([ -~\\xa1-\\xac\\xae-\\xff]*[!-~\\xa1-\\xac\\xae-\\xff])?$"
# Bytes. A larger body has many jobs: it would keep single submissions waiting while it is parsed.
_LARGE = 256 * 1024
_LARGE_AT_ONCE = 4
# Seconds: by then the client has read its answer, as a rule; or by then.
_GIVE_BACK_AFTER_S = (1.0, 6.0)

_SCHEMA = {
    "oneOf": [
        {"$ref": "#/components/schemas/JobSpec"},
        {"type": "array", "items": {"$ref": "#/components/schemas/JobSpec"}},
        {"$ref": "#/components/schemas/Batch"},
    ]
}
_JOB = {"$ref": f"#/components/schemas/{JobView.__name__}"}
# Its part of the OpenAPI document, which the framework cannot know.
OPERATION: dict[str, Any] = {
    "tags": ["jobs"],
    "summary": "Queue a job, or a list of jobs in one transaction; answered when they are durable",
    "operationId": "submit_jobs_jobs_post",
    "requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}},
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_REQUEST_KEY, "pattern": _PRINTABLE},
            "description": "The same key from the same user again returns the jobs of the first request.",
        },
        {
            "name": "outlook",
            "in": "query",
            "required": False,
            "schema": {"type": "boolean", "default": False},
            "description": "Also work out position, reason and estimated start of the new jobs.",
        },
    ],
    "responses": {
        "201": {
            "description": "The queued job; a list of jobs for a list or an array",
            "content": {"application/json": {"schema": {"oneOf": [_JOB, {"type": "array", "items": _JOB}]}}},
        }
    },
}


_FLAGS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


class _Answer:
    """What a worker thread hands to the loop, once: a response or an error."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Response] = self._loop.create_future()

    def __await__(self) -> Generator[Any, None, Response]:
        return self._future.__await__()

    def give(self, response: Response | Exception) -> None:
        self._loop.call_soon_threadsafe(self._settle, response)

    def _settle(self, response: Response | Exception) -> None:
        if self._future.done():
            # The client has gone.
            return
        if isinstance(response, Exception):
            self._future.set_exception(response)
        else:
            self._future.set_result(response)


class Submission:
    """The endpoint, as an ASGI application behind the gate."""

    def __init__(self, ctx: Context, queries: JobQueries, agent: Agent | None = None) -> None:
        self._clerk = Clerk(ctx, queries, agent)
        # One thread: both databases have one writer, and what waits for it is stored together.
        self._lane = Lane(self._clerk.serve_all)
        self._large = ThreadPoolExecutor(_LARGE_AT_ONCE, thread_name_prefix="submit-large")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_key: str | None = None
        for name, value in scope["headers"]:
            if name == b"idempotency-key":
                request_key = value.decode("latin-1")
                if not 0 < len(request_key) <= _MAX_REQUEST_KEY or not request_key.isprintable():
                    raise UsageError(f"Idempotency-Key: 1 to {_MAX_REQUEST_KEY} printable characters")
        described = _flag(scope["query_string"], "outlook")
        caller: Caller = scope["state"]["caller"]
        body = await _whole(receive)
        answer = _Answer()
        gone: Callable[[], bool] | None = scope.get("extensions", {}).get(GONE)

        def leave_if_gone() -> None:
            if request_key is None and gone is not None and gone():
                raise ClientDisconnect

        request = Request(body, caller, request_key, described, leave_if_gone, answer.give)
        if len(body) <= _LARGE:
            self._lane.put(request)
        else:
            self._large.submit(self._clerk.serve_all, [request])
        response = await answer
        await response(scope, receive, send)
        if len(body) > _LARGE:
            for seconds in _GIVE_BACK_AFTER_S:
                asyncio.get_running_loop().call_later(seconds, self._give_memory_back)

    def _give_memory_back(self) -> None:
        """What a large submission took is free by now, and the C library keeps it for the next one."""
        with contextlib.suppress(RuntimeError):  # The daemon goes down.
            self._large.submit(self._clerk.spare_memory)

    def close(self) -> None:
        """Returns when every submission under way is stored."""
        self._lane.close()
        self._large.shutdown(wait=True)


def _flag(query_string: bytes, name: str) -> bool:
    if not query_string:
        return False
    value = parse_qs(query_string.decode("latin-1"), keep_blank_values=True).get(name, ["false"])[-1]
    found = _FLAGS.get(value.lower())
    if found is None:
        raise UsageError(f"{name}: {value!r} is neither true nor false", hint=f"write ?{name}=true")
    return found


async def _whole(receive: Receive) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        return body
    parts = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(parts)
        message = await receive()

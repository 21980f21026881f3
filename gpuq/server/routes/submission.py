"""POST /jobs: the hot path, without the framework. Parsed straight from the bytes, stored on a thread of its own,
answered as bytes; no response model and no second look at the rows that were just written.

A client that goes away before the answer has queued nothing: it could not know what, and would queue it again. Only
with an `Idempotency-Key` it may ask again for the same jobs, so then they are stored all the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qs

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gpuq.domain.caller import Caller
from gpuq.domain.job import JobView, job_json
from gpuq.engine.context import Context
from gpuq.engine.intake import submit
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.errors import GpuqError, UsageError
from gpuq.ports.records import JobFilter
from gpuq.server.http.error_handlers import malformed, response_of
from gpuq.server.http.peer import GONE
from gpuq.server.routes.submission_body import BadSubmission, Bodies, of_item
from gpuq.server.routes.submission_response import SubmissionEncoder

log = logging.getLogger(__name__)

PATH = "/jobs"

_MAX_REQUEST_KEY = 200
# Of Latin 1, without blanks at the ends, which are none of a header's value.
_PRINTABLE = "^[!-~\\xa1-\\xac\\xae-\\xff]([ -~\\xa1-\\xac\\xae-\\xff]*[!-~\\xa1-\\xac\\xae-\\xff])?$"
# Bytes. A larger body has many jobs: it would keep single submissions waiting while it is parsed.
_LARGE = 256 * 1024
_LARGE_AT_ONCE = 4

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


def _answers(ctx: Context, done: submit.Submitted) -> list[bytes]:
    known = [job_id for job_id in done.ids if job_id not in done.stored]
    found: dict[int, bytes] = {}
    if known:
        with ctx.records.read() as reader:
            jobs = reader.jobs(JobFilter(ids=tuple(dict.fromkeys(known))))
        found = {job.id: to_json(job_json(job)) for job in jobs}
    array_id: int | None = None
    encoder = SubmissionEncoder()
    for job_id, new in done.stored.items():
        if new.array_first:
            array_id = job_id
        found[job_id] = encoder.fill_in(job_id, new, array_id if new.array_index is not None else None)
    return [found[job_id] for job_id in done.ids]


def _described(ctx: Context, queries: JobQueries, ids: Sequence[int]) -> list[bytes]:
    with ctx.records.read() as reader:
        jobs = {job.id: job for job in reader.jobs(JobFilter(ids=tuple(dict.fromkeys(ids))))}
    return [to_json(job_json(job, seen)) for job, seen in queries.describe([jobs[job_id] for job_id in ids])]


def accept(
    ctx: Context,
    queries: JobQueries,
    bodies: Bodies,
    body: bytes,
    caller: Caller,
    request_key: str | None,
    *,
    described: bool,
    agent: submit.Agent | None = None,
    leave_if_gone: Callable[[], None],
    answer: Callable[[Response], None],
) -> None:
    """On a worker thread. `answer` is called once the jobs are durable. Behind it the `agent` hears of them,
    or the hot queue; before it the hot queue, where they are `described` by it. One array spec answers a list, as
    several specs do. `leave_if_gone` raises where nobody waits for an answer; then nothing is stored."""
    try:
        specs, many = bodies.parse(body)
    except BadSubmission as bad:
        return answer(response_of(bad.error, index=bad.index))
    except ValueError as error:
        return answer(malformed(str(error)))
    leave_if_gone()
    fingerprint = blake2b(body, digest_size=16).hexdigest() if request_key is not None else None
    try:
        done = submit.store(
            ctx, specs, caller, request_key=request_key, fingerprint=fingerprint, before_commit=leave_if_gone
        )
    except GpuqError as error:
        if not many or error.index is None:
            raise
        return answer(response_of(of_item(error, error.index), index=error.index))
    if described:
        submit.tell(ctx, done)
    jobs = _described(ctx, queries, done.ids) if described else _answers(ctx, done)
    payload = b"[%b]" % b",".join(jobs) if many or specs[0].array is not None else jobs[0]
    answer(Response(payload, 201, media_type="application/json"))
    if not described:
        submit.tell(ctx, done, agent)
    return None


_FLAGS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


class _Answer:
    """What a worker thread hands to the loop, once: a response or an error. What fails behind it is logged."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Response] = self._loop.create_future()
        self._given = False

    def __await__(self) -> Generator[Any, None, Response]:
        return self._future.__await__()

    def give(self, response: Response) -> None:
        self._given = True
        self._loop.call_soon_threadsafe(self._settle, response, None)

    def work(self, accepting: Callable[[Callable[[Response], None]], None]) -> None:
        try:
            accepting(self.give)
        except Exception as error:
            if self._given:
                log.exception("jobs are stored, and the agent was not told; it looks by itself")
            else:
                self._loop.call_soon_threadsafe(self._settle, None, error)

    def _settle(self, response: Response | None, error: Exception | None) -> None:
        if self._future.done():
            # The client has gone.
            return
        if error is not None:
            self._future.set_exception(error)
        elif response is not None:
            self._future.set_result(response)


class Submission:
    """The endpoint, as an ASGI application behind the gate."""

    def __init__(self, ctx: Context, queries: JobQueries, agent: submit.Agent | None = None) -> None:
        self._ctx = ctx
        self._agent = agent
        self._queries = queries
        self._bodies = Bodies(ctx.settings.max_batch)
        # On SQLite, which has one writer, one thread: two would only take the processor from each other.
        threads = 1 if ctx.settings.database_url.startswith("sqlite") else 4
        self._lane = ThreadPoolExecutor(threads, thread_name_prefix="submit")
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

        accepting = partial(
            accept,
            self._ctx,
            self._queries,
            self._bodies,
            body,
            caller,
            request_key,
            described=described,
            agent=self._agent,
            leave_if_gone=leave_if_gone,
        )
        (self._lane if len(body) <= _LARGE else self._large).submit(answer.work, lambda give: accepting(answer=give))
        response = await answer
        await response(scope, receive, send)

    def close(self) -> None:
        """Returns when every submission under way is stored."""
        self._lane.shutdown(wait=True)
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

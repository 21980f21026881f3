"""Every failure leaves as `{"error": {"code", "message", "hint"}}`."""

from __future__ import annotations

import re
from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from gpuq.domain.validation_messages import complaint
from gpuq.errors import GpuqError, QueueFull, Unauthenticated

# Seconds that somebody is asked to wait where nobody knows better.
RETRY_AFTER_S = 60.0
_MALFORMED = "the body is not valid JSON"


def failure(
    status: int, code: str, message: str, hint: str | None = None, *, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """`more` are further members of the error object."""
    return JSONResponse(
        {"error": {"code": code, "message": message, "hint": hint, **more}}, status_code=status, headers=headers
    )


def response_of(error: GpuqError, **more: Any) -> Response:
    """The HTTP response for one of our errors; `more` goes into its body."""
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else None
    if isinstance(error, QueueFull):
        headers = {"Retry-After": str(ceil(error.retry_after_s or RETRY_AFTER_S))}
    return failure(error.http_status, error.code, error.message, error.hint, headers=headers, **more)


def malformed(detail: str) -> Response:
    return failure(400, "malformed", f"{_MALFORMED}: {detail}", "send one JSON document, UTF-8")


def internal() -> Response:
    """The traceback is in the daemon's log, never in an answer."""
    return failure(500, "internal", "gpuq failed; this is a bug", "the daemon's log has the details")


def too_large(error: HTTPException) -> Response:
    """For a body that is larger than is read."""
    hint = "send the jobs in several requests: `split -l 10000` makes parts of a file for --from-file"
    return failure(413, "too_large", str(error.detail), hint)


def _validation(error: RequestValidationError) -> Response:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return malformed(str(first.get("ctx", {}).get("error", first["msg"])))
    where, *path = (str(part) for part in first["loc"])
    name = ".".join(path) or where
    hint = "the OpenAPI document at /openapi.json lists what is accepted"
    return failure(422, "usage", f"{name}: {complaint(first)}", hint)


def _http(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        return failure(404, "not_found", f"no such path: {request.url.path}", "/openapi.json lists what there is")
    if error.status_code == 405:
        message = f"{request.method} is not possible on {request.url.path}"
        allowed = ", ".join(_allowed(request)) or (error.headers or {}).get("Allow", "GET")
        return failure(405, "method_not_allowed", message, f"allowed: {allowed}", headers={"Allow": allowed})
    if error.status_code == 413:
        return too_large(error)
    if error.status_code == 400:
        return malformed(str(error.detail))
    name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return failure(error.status_code, name, str(error.detail))


def _allowed(request: Request) -> list[str]:
    """All methods of the path: the framework names those of the first route that matches. What a path is itself goes
    before what it would be as somebody's name."""
    ways: list[tuple[re.Pattern[str], set[str]]] = request.app.state.ways
    found = [(path, methods) for path, methods in ways if path.match(request.url.path)]
    exact = [methods for path, methods in found if not path.groups]
    return sorted(set().union(*(exact or [methods for _, methods in found])))


def install(app: FastAPI) -> None:
    """Answers every error of the application in the one form that clients know."""

    async def on_gpuq(request: Request, error: Exception) -> Response:
        assert isinstance(error, GpuqError)
        return response_of(error)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _validation(error)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _http(request, error)

    app.add_exception_handler(GpuqError, on_gpuq)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)

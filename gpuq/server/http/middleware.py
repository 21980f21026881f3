"""What every request passes first: the caller is known, the body is bounded, and no exception gets out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpuq.domain.caller import Scope as TokenScope
from gpuq.engine.access import require_scope
from gpuq.engine.context import Context
from gpuq.errors import GpuqError
from gpuq.server.http.auth import authenticate
from gpuq.server.http.error_handlers import internal, response_of, too_large

log = logging.getLogger(__name__)

# Bytes: of a submission, and of any other request, which the framework reads on the event loop.
MAX_BODY = 64 * 1024 * 1024
MAX_OTHER_BODY = 4 * 1024 * 1024
# What changes nothing, by RFC 9110, 9.2.1.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyTooLarge(HTTPException):
    """An HTTPException, because the framework turns any other error while a body is read into a 400."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit >> 20} MiB")


@dataclass(slots=True)
class _Exchange:
    """One request's channel: counts what comes in, notes whether the answer has begun."""

    receive_next: Receive
    send_next: Send
    limit: int
    left: int = field(init=False)
    begun: bool = False

    def __post_init__(self) -> None:
        self.left = self.limit

    async def receive(self) -> Message:
        message = await self.receive_next()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise BodyTooLarge(self.limit)
        return message

    async def send(self, message: Message) -> None:
        self.begun = True
        await self.send_next(message)


class AccessMiddleware:
    """Pure ASGI, because each layer of the framework's own kind costs more than a whole submission may."""

    def __init__(self, app: ASGIApp, ctx: Context, max_body: int = MAX_OTHER_BODY) -> None:
        self.app = app
        self.ctx = ctx
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self.max_body)
        try:
            caller = scope.setdefault("state", {})["caller"] = await authenticate(self.ctx, scope)
            if scope["method"] not in _SAFE:
                require_scope(caller, TokenScope.SUBMIT)
            if _announced(scope) > self.max_body:
                raise BodyTooLarge(self.max_body)
            _as_json(scope)
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return
        except Exception as error:
            answer = _answer(scope, error)
            if exchange.begun:
                raise
            await answer(scope, receive, send)


def _answer(scope: Scope, error: Exception) -> Response:
    if isinstance(error, GpuqError):
        return response_of(error)
    if isinstance(error, BodyTooLarge):
        return too_large(error)
    log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
    return internal()


def _as_json(scope: Scope) -> None:
    """Every body here is JSON, whatever a client like `curl -d` calls it; the framework would not look into it. From a
    browser, which may be made to send one for somebody else, the origin check in front takes nothing but JSON."""
    if scope["method"] != "GET":
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope["headers"] = [*headers, (b"content-type", b"application/json")]


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0

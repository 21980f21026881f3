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

MAX_BODY = 64 * 1024 * 1024
# What changes nothing, by RFC 9110, 9.2.1.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyTooLarge(HTTPException):
    """An HTTPException, because the framework turns any other error while a body is read into a 400."""

    def __init__(self) -> None:
        super().__init__(413, "the body is larger than 64 MiB")


@dataclass(slots=True)
class _Exchange:
    """One request's channel: counts what comes in, notes whether the answer has begun."""

    receive_next: Receive
    send_next: Send
    left: int = field(default=MAX_BODY)
    begun: bool = False

    async def receive(self) -> Message:
        message = await self.receive_next()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise BodyTooLarge
        return message

    async def send(self, message: Message) -> None:
        self.begun = True
        await self.send_next(message)


class AccessMiddleware:
    """Pure ASGI, because each layer of the framework's own kind costs more than a whole submission may."""

    def __init__(self, app: ASGIApp, ctx: Context) -> None:
        self.app = app
        self.ctx = ctx

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        try:
            caller = scope.setdefault("state", {})["caller"] = await authenticate(self.ctx, scope)
            if scope["method"] not in _SAFE:
                require_scope(caller, TokenScope.SUBMIT)
            if _announced(scope) > MAX_BODY:
                raise BodyTooLarge
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
    """Every body here is JSON, whatever a client like `curl -d` calls it; the framework would not look into it. No
    browser can be made to send one for somebody else by that: the caller is a socket's peer or a token, no cookie."""
    if scope["method"] != "GET":
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        scope["headers"] = [*headers, (b"content-type", b"application/json")]


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0

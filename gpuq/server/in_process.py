"""Without a daemon: the same application, called in this process, a line of JSON for each request and each answer.

`{"method", "path", "query", "headers", "body"}` on stdin → `{"status", "headers", "body"}` on stdout. Bodies are text;
bytes that are not UTF-8 travel as lone surrogates (Python's surrogateescape). The caller is this process's own user.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import MutableMapping
from typing import Any, BinaryIO
from urllib.parse import unquote

from starlette.types import ASGIApp

from gpuq import wiring
from gpuq.server.app import create_app
from gpuq.server.http.peer import EXTENSION, Peer
from gpuq.settings import Settings


async def call(app: ASGIApp, asked: dict[str, Any]) -> dict[str, Any]:
    """One request through the application, as a server would hand it over."""
    path = str(asked["path"])
    headers = [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in _pairs(asked)]
    scope: dict[str, Any] = {
        "type": "http",
        # From 2.4 on, an answer in pieces does not ask whether the caller is still there.
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": str(asked["method"]).upper(),
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": str(asked.get("query") or "").encode(),
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": None,
        "extensions": {EXTENSION: Peer(os.getpid(), os.geteuid(), os.getegid())},
        "state": {},
    }
    body = str(asked.get("body") or "").encode("utf-8", "surrogateescape")
    incoming = [{"type": "http.request", "body": body, "more_body": False}]
    answer: dict[str, Any] = {"status": 500, "headers": {}}
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop() if incoming else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
            answer["headers"] = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    answer["body"] = b"".join(parts).decode("utf-8", "surrogateescape")
    return answer


def _pairs(asked: dict[str, Any]) -> list[tuple[str, Any]]:
    return list((asked.get("headers") or {}).items())


def _malformed(line: bytes) -> dict[str, Any] | None:
    """The request, or None for a line that is not one."""
    try:
        asked = json.loads(line)
    except ValueError:
        return None
    return asked if isinstance(asked, dict) and {"method", "path"} <= asked.keys() else None


def serve(settings: Settings, requests: BinaryIO, answers: BinaryIO) -> None:
    """Until `requests` ends."""
    ctx = wiring.open_context(settings)
    app = create_app(ctx, streams=False)
    with asyncio.Runner() as runner:
        for line in requests:
            asked = _malformed(line)
            if asked is None:
                answer = {"status": 400, "headers": {}, "body": _NOT_A_REQUEST}
            else:
                answer = runner.run(call(app, asked))
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()
    app.submission.close()
    ctx.records.close()


_NOT_A_REQUEST = json.dumps(
    {"error": {"code": "malformed", "message": "a line that is not a request", "hint": "one JSON object a line"}}
)

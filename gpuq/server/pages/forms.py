"""What a form sends."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request

from gpuq.errors import UsageError

MAX_BYTES = 1 << 20
MAX_FIELDS = 3000


async def pairs(request: Request) -> list[tuple[str, str]]:
    """Names and values in their order; a body of anything but a form has none. Raises UsageError for too much."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BYTES:
            raise UsageError("the form is larger than 1 MiB", hint="use `gpuq submit` for large jobs")
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return []
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise UsageError("the form cannot be read", hint="load the page again") from error


async def fields(request: Request) -> dict[str, str]:
    """The last value of each name."""
    return dict(await pairs(request))

"""A job's output: its end in the document, what comes as a stream of painted lines, and all of it to keep."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TypedDict

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gpuq.domain.job import Job
from gpuq.engine.access import require_reader
from gpuq.engine.attempt import logs
from gpuq.engine.context import Context
from gpuq.errors import NotFound, Refused
from gpuq.server.http.sse import Streams, dropping, frame, respond
from gpuq.server.pages.render import HEADERS
from gpuq.server.routes.streaming import LogFollower, follow_log

# Bytes from the end of the output that a document shows, and that are sent to be kept in one answer.
TAIL = 32 * 1024
WHOLE = 16 * 1024 * 1024


class Tail(TypedDict):
    """The end of a job's output, painted; where a stream goes on from it. `removed`: why there is none."""

    lines: Markup
    rest: Markup
    attempt: int
    offset: int
    cut: bool
    removed: str | None


def tail(ctx: Context, job: Job) -> Tail:
    """Of the newest attempt."""
    # Its import takes as long as a page.
    from gpuq.server.pages.log_painter import LogPainter

    try:
        chunk = logs.read(ctx, job.id, offset=-TAIL, limit=TAIL)
    except NotFound as gone:
        return Tail(lines=Markup(), rest=Markup(), attempt=job.attempt, offset=0, cut=False, removed=gone.message)
    data = chunk.data
    if chunk.offset and b"\n" in data:
        # Not from the middle of a line, unless there is but one.
        data = data.split(b"\n", 1)[1]
    whole = data if chunk.final else data[: data.rfind(b"\n") + 1]
    painter = LogPainter()
    lines = painter.paint(whole.decode("utf-8", "replace"))
    # What has no end yet is told again by the stream, as it grows.
    painter.paint(data[len(whole) :].decode("utf-8", "replace"))
    return Tail(
        lines=Markup(lines),
        rest=Markup(painter.tail()),
        attempt=chunk.attempt,
        offset=chunk.next_offset - (len(data) - len(whole)),
        cut=chunk.offset > 0,
        removed=None,
    )


class _PaintedLog(LogFollower):
    """Tells HTML in place of text: `lines` to add, and `rest`, the last line as it stands."""

    def __init__(self, ctx: Context, job_id: int, attempt: int, offset: int) -> None:
        from gpuq.server.pages.log_painter import LogPainter

        super().__init__(ctx, job_id, attempt, offset, only=False)
        self._painter = LogPainter()

    def text_frame(self, start: int, text: str) -> bytes:
        lines = self._painter.paint(text)
        told = {"attempt": self.attempt, "lines": lines, "rest": self._painter.tail()}
        return frame("log", told, f"{self.attempt}:{self.offset}")


async def stream(request: Request) -> Response:
    """`GET /ui/jobs/{id}/log/stream`: server-sent events, from the place that the document names."""
    ctx: Context = request.app.state.ctx
    streams: Streams | None = request.app.state.streams
    if streams is None:
        raise Refused("streams need a running daemon")
    job_id = request.path_params["job_id"]
    job = await run_in_threadpool(_job, ctx, job_id)
    require_reader(ctx.accounts, job, request.state.caller)
    attempt, offset = _number(request, "attempt") or job.attempt, _number(request, "offset")
    follower = await run_in_threadpool(_PaintedLog, ctx, job_id, attempt, offset)
    answer = respond(_lines(streams, follower, dropping(request)))
    answer.headers.update({name: value for name, value in HEADERS.items() if name != "Cache-Control"})
    return answer


async def _lines(streams: Streams, follower: LogFollower, drop: Callable[[], None]) -> AsyncGenerator[bytes, None]:
    async for piece in follow_log(streams, follower, drop):
        yield piece


def _job(ctx: Context, job_id: int) -> Job:
    with ctx.records.read() as tx:
        return tx.job(job_id)


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def download(request: Request) -> Response:
    """`GET /ui/jobs/{id}/log`: the last 16 MiB as they are, never shown as a page."""
    ctx: Context = request.app.state.ctx
    job = _job(ctx, request.path_params["job_id"])
    require_reader(ctx.accounts, job, request.state.caller)
    pieces, offset = [], -WHOLE
    left = WHOLE
    while left > 0:
        chunk = logs.read(ctx, job.id, offset=offset, limit=min(left, logs.MAX_CHUNK))
        if not chunk.data:
            break
        pieces.append(chunk.data)
        left -= len(chunk.data)
        offset = chunk.next_offset
    headers = {
        **HEADERS,
        "Content-Disposition": f'attachment; filename="job-{job.id}.log"',
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return PlainTextResponse(b"".join(pieces), headers=headers)

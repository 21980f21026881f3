"""The streams: every change of state, and a job's output, as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from gpuq.domain.events import Event
from gpuq.domain.job import Job
from gpuq.domain.states import ACTIVE, FINAL
from gpuq.engine.access import require_reader
from gpuq.engine.attempt import logs
from gpuq.engine.context import Context
from gpuq.errors import UsageError
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.http.hub import Listener
from gpuq.server.http.sse import HEARTBEAT_S, SSE, Open, Streams, dropping, event_frame, frame, respond
from gpuq.server.routes import params
from gpuq.server.routes.params import EventId, Ids, JobId, LogEventId

router = APIRouter(tags=["streams"])

CHUNK = 256 * 1024
EVENTS_AT_ONCE = 1000


# -- events -------------------------------------------------------------------------------------------------------


@router.get("/events", summary="Every change of state as it happens; `Last-Event-ID` resumes", **SSE)
async def stream_events(
    request: Request,
    streams: Open,
    ctx: Ctx,
    after_id: Annotated[int | None, Query(ge=0, le=params.MAX_ID, description="events after this id")] = None,
    job_id: Ids = None,
    last_event_id: EventId = None,
) -> StreamingResponse:
    wanted = params.ids(job_id)
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19):
            raise UsageError("Last-Event-ID: send the id of the last event you have seen")
        after_id = int(last_event_id)
    if after_id is None:
        # Before the answer begins: whoever has that is told of all that happens from then on.
        after_id = await run_in_threadpool(_newest, ctx)
    only = None if wanted is None else frozenset(wanted)
    return respond(_events(streams, ctx, after_id, only, dropping(request)))


def _newest(ctx: Context) -> int:
    with ctx.records.read() as reader:
        return reader.last_event_id()


def _events_after(ctx: Context, after_id: int, only: frozenset[int] | None) -> list[Event]:
    job_id = next(iter(only)) if only is not None and len(only) == 1 else None
    with ctx.records.read() as reader:
        return reader.events(job_id=job_id, after_id=after_id, limit=EVENTS_AT_ONCE)


async def _events(
    streams: Streams, ctx: Context, after_id: int, only: frozenset[int] | None, drop: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    async with streams.listening(only, drop) as listener:
        yield b": listening\n\n"
        async for piece in _missed(ctx, listener, after_id, only):
            yield piece
        last = max(after_id, listener.since)
        while not listener.closing:
            if not await listener.rest(HEARTBEAT_S):
                yield b": alive\n\n"
            elif told := [one.frame for one in listener.take() if one.id > last]:
                yield b"".join(told)


async def _missed(
    ctx: Context, listener: Listener, after_id: int, only: frozenset[int] | None
) -> AsyncGenerator[bytes, None]:
    """What the record says up to the place from which the listener is told."""
    while after_id < listener.since and not listener.closing:
        found = await run_in_threadpool(_events_after, ctx, after_id, only)
        past = [event for event in found if event.id <= listener.since]
        for event in past:
            if only is None or event.job_id in only:
                yield event_frame(event)
        if len(past) < EVENTS_AT_ONCE:
            return
        after_id = past[-1].id


# -- logs ---------------------------------------------------------------------------------------------------------


@router.get(
    "/jobs/{job_id}/log/stream",
    summary="A job's output as it comes, until the job is final; `Last-Event-ID` resumes",
    description="Events `log`: {attempt, offset, text}, bytes that are not UTF-8 as lone surrogates (Python's "
    "surrogateescape), id `attempt:next offset`; with `text=false` {attempt, offset, size}. `attempt`: another "
    "attempt's output begins. `end`: the job is final, with state, outcome, exit_code, signal and error. "
    "`error`: as in any answer.",
    **SSE,
)
async def stream_log(
    request: Request,
    streams: Open,
    ctx: Ctx,
    caller: Who,
    job_id: JobId,
    attempt: Annotated[int | None, Query(ge=1, le=params.MAX_ID, description="this attempt only")] = None,
    offset: Annotated[int, Query(ge=-params.MAX_ID, le=params.MAX_ID, description="bytes; negative: from the end")] = 0,
    text: Annotated[bool, Query(description="false: only tell how far the output reaches")] = True,
    last_event_id: LogEventId = None,
) -> StreamingResponse:
    job = await run_in_threadpool(_job, ctx, job_id)
    require_reader(ctx.accounts, job, caller)
    first = attempt or job.attempt
    if last_event_id:
        first, offset = _resumed(last_event_id, first)
    return respond(
        follow_log(
            streams, LogFollower(ctx, job_id, first, offset, only=attempt is not None, text=text), dropping(request)
        )
    )


def _resumed(text: str, attempt: int) -> tuple[int, int]:
    """From `attempt:offset`, or an offset alone. Raises UsageError."""
    number, _, offset = text.rpartition(":")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in (number or "1", offset)):
        raise UsageError("Last-Event-ID: send the id of the last event you have seen")
    return int(number) if number else attempt, int(offset)


def _job(ctx: Context, job_id: int) -> Job:
    with ctx.records.read() as reader:
        return reader.job(job_id)


def whole_characters(data: bytes) -> int:
    """How many bytes of `data` do not end in the middle of a UTF-8 character."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needed > back else len(data)
        if byte < 0x80:
            break
    return len(data)


def end_of(job: Job) -> dict[str, Any]:
    """The data of the last event of a log stream: how the job ended."""
    return {
        "id": job.id,
        "state": job.state,
        "outcome": job.outcome,
        "exit_code": job.exit_code,
        "signal": job.signal,
        "error": job.error,
        "attempt": job.attempt,
    }


class LogFollower:
    """Where one listener stands in a job's output. `attempt` 0: the job has not run yet. `path`: the log that may grow,
    None while there is none."""

    def __init__(self, ctx: Context, job_id: int, attempt: int, offset: int, *, only: bool, text: bool = True) -> None:
        self.ctx = ctx
        self.job_id = job_id
        self.attempt = attempt
        self.offset = offset
        self.only = only
        self.text = text
        self.ended = False
        self.path: str | None = None
        self._uid: int | None = None

    def look(self) -> list[bytes]:
        """What is new by the record and the log, in a worker thread; nothing new is an empty list."""
        # The job first: bytes that come between the two reads are found by the next look.
        job = _job(self.ctx, self.job_id)
        if self.attempt == 0:
            self.attempt = job.attempt
        if self.attempt:
            chunk = logs.read(self.ctx, self.job_id, attempt=self.attempt, offset=self.offset, limit=self._most)
            running = job.state in ACTIVE and job.attempt == self.attempt and not chunk.final
            self.path, self._uid = (job.log_path if running else None), job.uid
            if not self.text and chunk.size > chunk.offset:
                return self._reaches(chunk.offset, chunk.size)
            if pieces := self._pieces(chunk.offset, chunk.data, final=chunk.final):
                return pieces
            if chunk.final and not self.only and job.attempt > self.attempt:
                self.attempt, self.offset = self.attempt + 1, 0
                return [frame("attempt", {"attempt": self.attempt}, f"{self.attempt}:0")]
            if chunk.final and self.only:
                self.ended = True
        self.ended = self.ended or job.state in FINAL
        return [frame("end", end_of(job))] if self.ended else []

    def grown(self) -> list[bytes]:
        """What is new in the log, without a question to the record; in a worker thread."""
        if self.path is None:
            return []
        size, start, data = logs.read_file(self.path, self._uid, self.offset, self._most)
        if not self.text:
            return self._reaches(start, size) if size > start else []
        return self._pieces(start, data, final=False)

    @property
    def _most(self) -> int:
        return CHUNK if self.text else 0

    def _reaches(self, start: int, size: int) -> list[bytes]:
        self.offset = size
        told = {"attempt": self.attempt, "offset": start, "size": size}
        return [frame("log", told, f"{self.attempt}:{size}")]

    def _pieces(self, start: int, data: bytes, *, final: bool) -> list[bytes]:
        size = len(data) if final else whole_characters(data)
        self.offset = start + size
        if not size:
            return []
        return [self.text_frame(start, data[:size].decode("utf-8", "surrogateescape"))]

    def text_frame(self, start: int, text: str) -> bytes:
        """The event that tells a piece of output, which begins at byte `start`."""
        told = {"attempt": self.attempt, "offset": start, "text": text}
        return frame("log", told, f"{self.attempt}:{self.offset}")


async def follow_log(streams: Streams, follower: LogFollower, drop: Callable[[], None]) -> AsyncGenerator[bytes, None]:
    """What `follower` finds, as it comes, until the job is final or the daemon goes down."""
    async with streams.listening(frozenset({follower.job_id}), drop) as listener:
        yield b": listening\n\n"
        looks = True
        while not listener.closing:
            frames = await run_in_threadpool(follower.look if looks else follower.grown)
            for piece in frames:
                yield piece
            if follower.ended:
                return
            if frames:
                continue
            with streams.logs.watching(follower.path, follower.offset, listener.wake):
                if not await listener.rest(HEARTBEAT_S):
                    yield b": alive\n\n"
            looks = bool(listener.take()) or follower.path is None

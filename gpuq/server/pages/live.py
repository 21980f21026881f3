"""One line to every open page when something has changed, so that it asks again; no page reads the database to know.

All pages of a process share one listener at the hub of events, and one look every few seconds at what no event tells:
memory and use of the GPUs, foreign processes, progress. Nobody there, no look.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gpuq.domain.states import ACTIVE
from gpuq.engine.context import Context
from gpuq.engine.queries import gpu_report
from gpuq.engine.queries.job_status import read_progress
from gpuq.errors import GpuqError, Refused
from gpuq.ports.records import JobFilter
from gpuq.server.http.sse import HEARTBEAT_S, Streams, respond

# Seconds: between two looks at the GPUs, and at least between two lines to a page.
LOOK_S = 5.0
PAUSE_S = 0.5


class Pulse:
    """How often something has changed; on the event loop alone."""

    def __init__(self, ctx: Context, streams: Streams) -> None:
        self._ctx = ctx
        self._streams = streams
        self._waiting: set[asyncio.Event] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._seen = b""
        self.number = 0
        self.closing = False

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncGenerator[asyncio.Event, None]:
        """An event that is set whenever something has changed, until the block is left."""
        mine = asyncio.Event()
        self._waiting.add(mine)
        if not self._tasks:
            self.closing = False
            self._tasks = [asyncio.ensure_future(self._hear()), asyncio.ensure_future(self._look())]
        try:
            yield mine
        finally:
            self._waiting.discard(mine)
            if not self._waiting:
                for task in self._tasks:
                    task.cancel()
                self._tasks = []

    def _changed(self) -> None:
        self.number += 1
        for one in self._waiting:
            one.set()

    async def _hear(self) -> None:
        """Every change of a job, until the daemon goes down."""
        while True:
            with contextlib.suppress(GpuqError):
                async with self._streams.listening() as listener:
                    while not listener.closing:
                        if await listener.rest(HEARTBEAT_S) and (listener.take() or listener.closing):
                            self.closing = listener.closing
                            self._changed()
                            await asyncio.sleep(PAUSE_S)
                return
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(GpuqError):
                seen = await run_in_threadpool(self._picture)
                if self._seen and seen != self._seen:
                    self._changed()
                self._seen = seen
            await asyncio.sleep(LOOK_S)

    def _picture(self) -> bytes:
        with self._ctx.records.read() as tx:
            running = tx.jobs(JobFilter(states=ACTIVE, limit=200))
        progress: list[Any] = [(job.id, _percent(read_progress(self._ctx, job))) for job in running]
        return hashlib.blake2b(json.dumps([gpu_report.report(self._ctx), progress]).encode()).digest()


def _percent(progress: float | None) -> int | None:
    return None if progress is None else int(progress * 100)


async def stream(request: Request) -> Response:
    """`GET /ui/stream`."""
    state = request.app.state
    if state.streams is None:
        raise Refused("streams need a running daemon")
    pulse: Pulse | None = getattr(state, "pulse", None)
    if pulse is None:
        pulse = state.pulse = Pulse(state.ctx, state.streams)
    return respond(_beats(pulse))


async def _beats(pulse: Pulse) -> AsyncGenerator[bytes, None]:
    async with pulse.watching() as changed:
        yield b": listening\n\n"
        while not pulse.closing:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await changed.wait()
            except TimeoutError:
                yield b": alive\n\n"
                continue
            changed.clear()
            yield f"event: changed\ndata: {pulse.number}\n\n".encode()

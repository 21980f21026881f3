"""SQL that a person writes, and how many questions to the history may be on their way at once."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gpuq.engine.queries import questions
from gpuq.errors import Unavailable
from gpuq.server.http.dependencies import Ctx, Who
from gpuq.server.routes import params
from gpuq.server.routes.views import TableView

router = APIRouter(tags=["administration"])

CHUNK = 1 << 18


class Places:
    """A question may take half a minute of a core and some hundred MiB, its answer 64 MiB of temporary disk until it is
    sent, and each takes one of the threads that answer everything else."""

    def __init__(self, at_once: int, of_a_user: int) -> None:
        self.at_once = at_once
        self.of_a_user = of_a_user
        self._lock = threading.Lock()
        self._asking = 0
        self._of: Counter[str] = Counter()

    def take(self, user: str) -> None:
        """Raises Unavailable when there is none left."""
        with self._lock:
            if self._of[user] >= self.of_a_user:
                raise Unavailable(
                    f"{user} has {self.of_a_user} questions to the history under way already",
                    hint="wait for their answers; others need places, too",
                )
            if self._asking >= self.at_once:
                raise Unavailable(
                    f"{self.at_once} questions to the history are being answered already", hint="try again soon"
                )
            self._asking += 1
            self._of[user] += 1

    def answered(self) -> None:
        """The database has done its work for one."""
        with self._lock:
            self._asking -= 1

    def leave(self, user: str) -> None:
        """The answer is with whoever asked."""
        with self._lock:
            self._of[user] -= 1
            if self._of[user] <= 0:
                del self._of[user]

    @contextmanager
    def asking(self, user: str) -> Iterator[None]:
        """A place for a question whose answer is small. Raises Unavailable."""
        self.take(user)
        try:
            yield
        finally:
            self.answered()
            self.leave(user)


PLACES = Places(at_once=4, of_a_user=2)


class Sql(BaseModel):
    """A statement on the history. `limit`: at most so many rows."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1, max_length=100_000)]
    limit: Annotated[int, Field(strict=True, ge=1, le=params.MAX_ROWS)] | None = None


class FileResponse(StreamingResponse):
    """Sends a file that has no name; however that ends, `done` is called."""

    def __init__(self, file: IO[bytes], done: Callable[[], None], *, size: int | None = None) -> None:
        size = os.fstat(file.fileno()).st_size if size is None else size
        super().__init__(_pieces(file), media_type="application/json", headers={"Content-Length": str(size)})
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece


@router.post(
    "/sql",
    summary="A read-only statement on the history",
    response_class=JSONResponse,
    responses={200: {"model": TableView, "description": "the table"}},
)
def run_sql(ctx: Ctx, caller: Who, statement: Sql) -> FileResponse:
    PLACES.take(caller.user)
    try:
        file = questions.ask(ctx, caller, statement.query, statement.limit)
    except BaseException:
        PLACES.leave(caller.user)
        raise
    finally:
        PLACES.answered()

    def done() -> None:
        file.close()
        PLACES.leave(caller.user)

    return FileResponse(file, done)

"""The application on a real database of its own, called as different users."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gpuq import wiring
from gpuq.domain.job import Attempt, Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.states import JobState
from gpuq.engine.context import Context
from gpuq.ports.records import Move
from gpuq.server import listen
from gpuq.server.app import Application, create_app
from gpuq.server.http.peer import EXTENSION, Peer
from gpuq.settings import Settings

# Accounts that every Linux has, so that their names are known.
DAEMON, BIN = 1, 2


class As:
    """Puts a peer into every request, as the protocol does for a Unix socket; none for a TCP caller."""

    def __init__(self, app: FastAPI, uid: int | None) -> None:
        self.app = app
        self.uid = uid

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.uid is not None and scope["type"] == "http":
            scope["extensions"] = {EXTENSION: Peer(1, self.uid, self.uid)}
        await self.app(scope, receive, send)


class InProcess(httpx.BaseTransport):
    """Calls the application without a socket, from synchronous tests."""

    def __init__(self, app: As, runner: asyncio.Runner) -> None:
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._runner = runner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self._exchange(request))

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        body = b"".join(request.stream)  # type: ignore[arg-type]
        inner = httpx.Request(request.method, request.url, headers=request.headers, content=_as_pieces(body))
        answer = await self._inner.handle_async_request(inner)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


async def _as_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


@dataclass
class Api:
    """One application, and clients of it by uid."""

    app: Application
    ctx: Context
    runner: asyncio.Runner
    shutdowns: list[bool] = field(default_factory=list)

    def caller(self, uid: int | None, **headers: str) -> httpx.Client:
        transport = InProcess(As(self.app, uid), self.runner)
        return httpx.Client(transport=transport, base_url="http://gpuq", headers=headers)

    @property
    def root(self) -> httpx.Client:
        return self.caller(0)

    @property
    def daemon(self) -> httpx.Client:
        return self.caller(DAEMON)

    @property
    def bin(self) -> httpx.Client:
        return self.caller(BIN)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(home=home, gpus="sim:4", node="testbox")


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    ctx = wiring.open_context(settings)
    yield ctx
    ctx.launcher.close()
    ctx.gpus.close()
    ctx.records.close()


@pytest.fixture
def api(ctx: Context) -> Iterator[Api]:
    shutdowns: list[bool] = []
    app = create_app(ctx, on_shutdown=shutdowns.append)
    with asyncio.Runner() as runner:
        yield Api(app, ctx, runner, shutdowns)
    app.submission.close()


@pytest.fixture
def as_root(ctx: Context) -> None:
    """The daemon believes to be root's, so users are kept apart."""
    ctx.accounts.daemon_uid = 0


@pytest.fixture
def as_a_user(ctx: Context) -> None:
    """The daemon believes to be an ordinary user's."""
    ctx.accounts.daemon_uid = 4242


@dataclass
class Run:
    """An attempt in the record, without any process."""

    ctx: Context
    job_id: int
    number: int
    token: str
    log: Path

    def end(self, outcome: Outcome, state: JobState, exit_code: int | None = 0) -> None:
        at = self.ctx.clock.now()
        with self.ctx.records.write() as tx:
            result = Result(outcome, exit_code=exit_code, finished_at=at)
            tx.end_attempt(self.job_id, self.number, self.token, result)
            values: dict[str, Any] = {"eligible_at": at}
            if state in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}:
                values = {"outcome": outcome, "exit_code": exit_code, "finished_at": at}
            came_from = frozenset({JobState.RUNNING})
            tx.move(Move(self.job_id, state, came_from, "gpuq", at, attempt=self.number, token=self.token, set=values))
        self.ctx.notifier.publish("events")


@pytest.fixture
def start(ctx: Context) -> Callable[..., Run]:
    """Writes that a queued (or due) job has started; its log is a file that the test may write to."""

    def start(job_id: int, gpus: tuple[int, ...] = (0,)) -> Run:
        at = ctx.clock.now()
        uuids = tuple(gpu.uuid for gpu in ctx.gpus.inventory() if gpu.index in gpus)
        with ctx.records.write() as tx:
            job = tx.job(job_id)
            number = job.attempt + 1
            token = f"{job_id:016x}{number:016x}"
            run_dir = Path(ctx.run_dir(job_id, number))
            run_dir.mkdir(parents=True)
            log = run_dir / "output.log"
            log.touch()
            if job.state is JobState.DELAYED:
                tx.move(Move(job_id, JobState.QUEUED, frozenset({JobState.DELAYED}), "gpuq", at))
            tx.move(
                Move(
                    job_id,
                    JobState.STARTING,
                    frozenset({JobState.QUEUED}),
                    "gpuq",
                    at,
                    set={"attempt": number, "token": token},
                )
            )
            tx.add_attempt(
                Attempt(job_id, number, token, ctx.node, ctx.boot_id, gpus, uuids, None, str(run_dir), str(log), at)
            )
        with ctx.records.write() as tx:
            tx.launched(job_id, number, token, Launched(1, 1, 1, 1, at))
            tx.move(
                Move(
                    job_id,
                    JobState.RUNNING,
                    frozenset({JobState.STARTING}),
                    "gpuq",
                    at,
                    attempt=number,
                    token=token,
                    set={"started_at": at},
                )
            )
        ctx.notifier.publish("events")
        return Run(ctx, job_id, number, token, log)

    return start


@dataclass
class Served:
    socket: Path
    url: str
    stop: Callable[[], None]


@pytest.fixture
def served(api: Api) -> Iterator[Served]:
    """The application behind real sockets, Unix and TCP, on a thread."""
    path = api.ctx.settings.socket_path
    listeners = [listen.unix_socket(path), *listen.tcp_sockets("127.0.0.1:0")]
    address = listen.address_of(listeners[1])
    up = threading.Event()
    stops: list[Callable[[], None]] = []

    def when_up(stop: Callable[[], None]) -> None:
        stops.append(stop)
        up.set()

    thread = threading.Thread(target=listen.run, args=(api.app, listeners, when_up))
    thread.start()
    assert up.wait(10)

    def stop() -> None:
        if thread.is_alive():
            stops[0]()
            thread.join(10)
        assert not thread.is_alive()

    yield Served(path, address, stop)
    stop()

"""Many listeners and one reader of the record."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gpuq.domain.states import JobState
from gpuq.errors import DatabaseUnavailable
from gpuq.ports.notify import Topic
from gpuq.server.http import hub as hub_module
from gpuq.server.http.sse import Streams
from gpuq.server.routes import streaming


@pytest.fixture
def reads(api: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many transactions were begun to read, by whom: `hub` or `other`."""
    counted: Counter[str] = Counter()
    real = api.ctx.records.read

    def read() -> Any:
        import sys

        counted["hub" if sys._getframe(1).f_code.co_filename.endswith("hub.py") else "other"] += 1
        return real()

    monkeypatch.setattr(api.ctx.records, "read", read)
    return counted


def submit(api: Any) -> int:
    return int(api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["id"])


def remark(api: Any, job_id: int, count: int = 1, detail: str = "seen") -> None:
    """Events that another process writes: nobody here is called."""
    with api.ctx.records.write() as tx:
        for _ in range(count):
            tx.add_event(job_id, JobState.QUEUED, "elsewhere", api.ctx.clock.now(), detail)


def run(scene: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(scene, 30))


def newest(api: Any) -> int:
    with api.ctx.records.read() as reader:
        return int(reader.last_event_id())


class Watchers:
    """Streams of `/events` in this process, each read by the test."""

    def __init__(self, api: Any, count: int, after_id: int, only: frozenset[int] | None = None) -> None:
        self.streams = Streams(api.ctx)
        self.drops: list[int] = []
        self.all = [
            streaming._events(self.streams, api.ctx, after_id, only, lambda n=n: self.drops.append(n))  # type: ignore[misc]
            for n in range(count)
        ]

    async def listen(self, stack: AsyncExitStack) -> None:
        for stream in self.all:
            stack.push_async_callback(stream.aclose)
            assert await anext(stream) == b": listening\n\n"

    async def next_of_each(self) -> list[list[int]]:
        return await asyncio.gather(*(ids_of(stream) for stream in self.all))


async def ids_of(stream: AsyncGenerator[bytes, None]) -> list[int]:
    """Event ids of the next piece."""
    while (piece := await anext(stream)).startswith(b":"):
        pass
    lines = piece.decode().splitlines()
    return [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]


def test_two_hundred_listeners_are_told_by_one_reader(api: Any, reads: Counter[str]) -> None:
    job_id = submit(api)
    start = newest(api)

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            watchers = Watchers(api, 200, start)
            await watchers.listen(stack)
            # What each needs of the time before it came is nothing, and the hub has looked for itself.
            reads.clear()
            await asyncio.to_thread(remark, api, job_id, 3)
            api.ctx.notifier.publish(Topic.EVENTS)
            told = await watchers.next_of_each()
            assert told == [[start + 1, start + 2, start + 3]] * 200
            assert reads["other"] == 0
            assert 1 <= reads["hub"] <= 3

    run(scene())


def test_idle_listeners_read_nothing_and_the_hub_looks_for_all_of_them(
    api: Any, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "LOOK_S", 0.02)
    job_id = submit(api)
    start = newest(api)

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            watchers = Watchers(api, 50, start)
            await watchers.listen(stack)
            waiting = asyncio.ensure_future(watchers.next_of_each())
            reads.clear()
            while reads["hub"] < 5:
                await asyncio.sleep(0.01)
            assert reads["other"] == 0
            # Nobody calls: the slow look finds it.
            await asyncio.to_thread(remark, api, job_id)
            assert await waiting == [[start + 1]] * 50

    run(scene())


def test_without_listeners_nobody_looks_at_all(api: Any, reads: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "LOOK_S", 0.01)
    start = newest(api)

    async def scene() -> None:
        watchers = Watchers(api, 2, start)
        async with AsyncExitStack() as stack:
            await watchers.listen(stack)
        await watchers.streams.settled()
        before = reads["hub"]
        assert len(asyncio.all_tasks()) == 2, "this one and the wait around it"
        api.ctx.notifier.publish(Topic.EVENTS)
        await asyncio.sleep(0)
        assert reads["hub"] == before

    run(scene())


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), RuntimeError("a bug")])
def test_a_look_that_fails_loses_no_event(
    api: Any, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_module, "LOOK_S", 0.02)
    job_id = submit(api)
    start = newest(api)
    failures = iter([error, error])

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            watchers = Watchers(api, 2, start)
            await watchers.listen(stack)
            real = watchers.streams.hub._read

            def read(after_id: int) -> Any:
                if (failure := next(failures, None)) is not None:
                    raise failure
                return real(after_id)

            monkeypatch.setattr(watchers.streams.hub, "_read", read)
            await asyncio.to_thread(remark, api, job_id, 2)
            assert await watchers.next_of_each() == [[start + 1, start + 2]] * 2

    run(scene())
    assert ("the events could not be read" in caplog.text) == isinstance(error, RuntimeError)


def test_a_listener_that_comes_back_is_told_what_it_missed_once_and_in_order(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "EVENTS_AT_ONCE", 3)
    monkeypatch.setattr(hub_module, "AT_ONCE", 2)
    job_id = submit(api)
    start = newest(api)
    remark(api, job_id, 7)

    async def scene() -> None:
        seen: list[int] = []
        async with AsyncExitStack() as stack:
            watchers = Watchers(api, 1, start)
            await watchers.listen(stack)
            [stream] = watchers.all
            seen += await ids_of(stream)
            # Written while it is told of the past.
            await asyncio.to_thread(remark, api, job_id, 5)
            api.ctx.notifier.publish(Topic.EVENTS)
            while len(seen) < 12:
                seen += await ids_of(stream)
        assert seen == list(range(start + 1, start + 13))

    run(scene())


def test_a_listener_that_does_not_read_is_bounded_and_let_go(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MOST_FRAMES", 10)
    job_id = submit(api)
    start = newest(api)

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            watchers = Watchers(api, 2, start)
            await watchers.listen(stack)
            reader = watchers.all[0]
            for number in range(3):
                waiting = asyncio.ensure_future(ids_of(reader))
                await asyncio.sleep(0)
                await asyncio.to_thread(remark, api, job_id, 5)
                api.ctx.notifier.publish(Topic.EVENTS)
                assert len(await waiting) == 5, number
            assert watchers.drops == [1]
            assert [len(one._told) for one in watchers.streams._open] == [0, 0]
            with pytest.raises(StopAsyncIteration):
                await anext(watchers.all[1])

    run(scene())


def test_a_connection_that_is_not_read_is_ended(served: Any, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MOST_BYTES", 100_000)
    job_id = submit(api)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(served.socket))
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: gpuq\r\n\r\n")
        begun = b""
        while b": listening" not in begun:
            begun += sock.recv(4096)
        for _ in range(40):
            remark(api, job_id, 100, detail="x" * 500)
            api.ctx.notifier.publish(Topic.EVENTS)
            if not api.app.state.streams._open:
                break
        rest = 0
        try:
            while piece := sock.recv(1 << 20):
                rest += len(piece)
        except ConnectionResetError:
            pass
        assert rest < 40 * 100 * 500


def test_an_idle_log_is_followed_without_a_question_to_the_record(
    api: Any, start: Callable[..., Any], reads: Counter[str]
) -> None:
    job = start(submit(api))
    job.log.write_text("one\n")

    async def piece_of(stream: AsyncGenerator[bytes, None]) -> Any:
        while (piece := await anext(stream)).startswith(b":"):
            pass
        return json.loads(piece.decode().split("data: ")[1])

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            streams = Streams(api.ctx)
            followers = [streaming.LogFollower(api.ctx, job.job_id, 1, 0, only=False) for _ in range(20)]
            logs = [streaming.follow_log(streams, follower, lambda: None) for follower in followers]
            for stream in logs:
                stack.push_async_callback(stream.aclose)
                assert (await piece_of(stream))["text"] == "one\n"
            waiting = [asyncio.ensure_future(piece_of(stream)) for stream in logs]
            # All have looked at the record once more and rest now.
            while len(streams.logs._watched) < 20:
                await asyncio.sleep(0.01)
            reads.clear()
            with job.log.open("a") as log:
                log.write("two\n")
            assert {piece["text"] for piece in await asyncio.gather(*waiting)} == {"two\n"}
            assert reads["other"] == 0
        await streams.settled()

    run(scene())


def test_the_notifier_of_another_thread_wakes_the_hub(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than the test may take: the hub is called, and does not look by itself.
    monkeypatch.setattr(hub_module, "LOOK_S", 600.0)
    job_id = submit(api)
    start = newest(api)

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            watchers = Watchers(api, 1, start)
            await watchers.listen(stack)
            thread = threading.Thread(target=lambda: api.daemon.post(f"/jobs/{job_id}/hold"))
            waiting = asyncio.ensure_future(watchers.next_of_each())
            await asyncio.sleep(0)
            thread.start()
            assert await waiting == [[start + 1]]
            await asyncio.to_thread(thread.join)

    run(scene())

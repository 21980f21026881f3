"""What is written together goes out together, in order, and nothing is held back for long."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gpuq.server.http.joined_writes import JoinedWrites


class Wire:
    """A transport that notes what it was given."""

    def __init__(self) -> None:
        self.sent: list[bytes | str] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closing = True
        self.sent.append("closed")

    def is_closing(self) -> bool:
        return self.closing


async def after(wire: Wire, *pieces: bytes, turns: int = 1) -> list[bytes | str]:
    writes = JoinedWrites(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
    for piece in pieces:
        writes.write(piece)
    for _ in range(turns):
        await asyncio.sleep(0)
    return wire.sent


LARGE = b"x" * 100_000


@pytest.mark.parametrize(
    ("pieces", "sent"),
    [
        ((b"head", b"body"), [b"headbody"]),
        ((b"head", memoryview(b"body")), [b"headbody"]),
        ((b"head",), [b"head"]),
        ((b"head", LARGE), [b"head", LARGE]),
        ((LARGE, b"tail"), [LARGE, b"tail"]),
        ((b"a", b"b", b"c"), [b"ab", b"c"]),
    ],
)
def test_two_small_pieces_are_one_and_all_are_sent_in_order(pieces: Any, sent: list[bytes]) -> None:
    assert asyncio.run(after(Wire(), *pieces)) == sent


def test_nothing_is_sent_before_something_follows_or_the_turn_is_over() -> None:
    async def held() -> list[bytes | str]:
        return list(await after(Wire(), b"head", turns=0))

    assert asyncio.run(held()) == []


def test_what_was_written_is_sent_before_the_end() -> None:
    async def ended() -> list[bytes | str]:
        wire = Wire()
        writes = JoinedWrites(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
        writes.write(b"last words")
        writes.close()
        await asyncio.sleep(0)
        return wire.sent

    assert asyncio.run(ended()) == [b"last words", "closed"]


def test_nothing_is_written_to_a_connection_that_ended_meanwhile() -> None:
    async def cut() -> list[bytes | str]:
        wire = Wire()
        writes = JoinedWrites(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
        writes.write(b"head")
        wire.close()
        await asyncio.sleep(0)
        return wire.sent

    assert asyncio.run(cut()) == ["closed"]


def test_every_answer_of_the_server_goes_this_way(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    through: list[str] = []
    send = RequestResponseCycle.send

    async def noting(cycle: Any, message: Any) -> None:
        through.append(type(cycle.transport).__name__)
        await send(cycle, message)

    monkeypatch.setattr(RequestResponseCycle, "send", noting)
    transport = httpx.HTTPTransport(uds=str(served.socket))
    with httpx.Client(transport=transport, base_url="http://gpuq") as http:
        assert http.get("/healthz").status_code == 200
    assert through == ["JoinedWrites", "JoinedWrites"]

"""Submissions that come while another one is stored are stored together, and each is answered for itself."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gpuq.domain.caller import Caller
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.errors import DatabaseUnavailable, GpuqError, NotFound
from gpuq.server.routes.submission_clerk import FEW, Clerk, Request
from gpuq.server.routes.submission_lane import MOST_TOGETHER, Lane

PLAIN = {"command": ["true"], "cwd": "/"}
# An account that every Linux has.
DAEMON = Caller("daemon", 1, 1)


class Desk:
    """A clerk, requests to it, and what was answered to each."""

    def __init__(self, ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ctx = ctx
        self.clerk = Clerk(ctx, JobQueries(ctx), None)
        self.answers: dict[int, Any] = {}
        self.made = 0
        self.transactions = 0
        write = ctx.records.write

        def counting() -> Any:
            self.transactions += 1
            return write()

        monkeypatch.setattr(ctx.records, "write", counting)

    def request(
        self, body: Any, key: str | None = None, *, described: bool = False, gone: bool = False, raw: bytes = b""
    ) -> Request:
        number, self.made = self.made, self.made + 1

        def leave_if_gone() -> None:
            if gone:
                raise ClientDisconnect

        def answer(given: Any) -> None:
            assert number not in self.answers
            self.answers[number] = given

        return Request(raw or json.dumps(body).encode(), DAEMON, key, described, leave_if_gone, answer)

    def ids(self, number: int) -> list[int]:
        given = self.answers[number]
        assert isinstance(given, Response), given
        assert given.status_code == 201, bytes(given.body)
        answer = json.loads(bytes(given.body))
        return [job["id"] for job in answer] if isinstance(answer, list) else [answer["id"]]

    def error(self, number: int) -> dict[str, Any]:
        given = self.answers[number]
        assert isinstance(given, Response)
        error: dict[str, Any] = json.loads(bytes(given.body))["error"]
        return error

    def stored(self) -> int:
        with self.ctx.records.read() as tx:
            return len(list(tx.queued()))


@pytest.fixture
def desk(ctx: Any, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(ctx, monkeypatch)


def test_each_is_answered_as_if_it_had_come_alone(desk: Desk) -> None:
    bodies: list[Any] = [PLAIN, [PLAIN, {**PLAIN, "name": "n"}], {"jobs": [PLAIN], "env": {"A": "1"}}, PLAIN]
    desk.clerk.serve_all([desk.request(body) for body in bodies])
    assert [desk.ids(number) for number in range(4)] == [[1], [2, 3], [4], [5]]
    assert [bytes(desk.answers[number].body[:1]) for number in range(4)] == [b"{", b"[", b"[", b"{"]
    assert desk.transactions == 1


def test_what_makes_no_sense_or_is_refused_does_not_touch_the_others(desk: Desk) -> None:
    desk.clerk.serve_all(
        [
            desk.request(PLAIN),
            desk.request(None, raw=b"{"),
            desk.request({**PLAIN, "colour": "red"}),
            desk.request([PLAIN, {**PLAIN, "after": [77]}]),
            desk.request({**PLAIN, "after": [77]}),
            desk.request(PLAIN, gone=True),
            desk.request(PLAIN),
        ]
    )
    assert (desk.ids(0), desk.ids(6), desk.stored(), desk.transactions) == ([1], [2], 2, 1)
    assert desk.error(1)["code"] == "malformed"
    assert "colour" in desk.error(2)["message"]
    assert desk.error(3)["message"].startswith("item 2 of the list: cannot wait for job 77")
    assert isinstance(desk.answers[4], NotFound)
    assert isinstance(desk.answers[5], ClientDisconnect)


def test_a_request_that_is_repeated_at_once_gets_the_same_answer(desk: Desk) -> None:
    desk.clerk.serve_all([desk.request(PLAIN, "k"), desk.request(PLAIN, "k"), desk.request([PLAIN], "k")])
    assert desk.ids(0) == desk.ids(1) == [1]
    assert isinstance(desk.answers[2], GpuqError)
    assert desk.stored() == 1


def test_large_ones_arrays_and_those_that_want_a_description_are_stored_alone(desk: Desk) -> None:
    bodies: list[Any] = [PLAIN, {**PLAIN, "array": "0-2"}, [PLAIN] * (FEW + 1), PLAIN]
    desk.clerk.serve_all([desk.request(body) for body in bodies] + [desk.request(PLAIN, described=True)])
    assert [len(desk.ids(number)) for number in range(5)] == [1, 3, FEW + 1, 1, 1]
    assert desk.transactions == 4
    assert json.loads(bytes(desk.answers[4].body))["reason"] is not None


def test_one_alone_takes_no_part_of_a_transaction(desk: Desk) -> None:
    desk.clerk.serve_all([desk.request(PLAIN), desk.request(None, raw=b"{")])
    assert (desk.ids(0), desk.transactions) == ([1], 1)


def test_a_database_that_is_away_is_told_to_each(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise DatabaseUnavailable("the disk is full")

    monkeypatch.setattr(desk.ctx.records, "write", away)
    desk.clerk.serve_all([desk.request(PLAIN) for _ in range(3)])
    assert [type(desk.answers[number]) for number in range(3)] == [DatabaseUnavailable] * 3


def test_what_comes_while_others_are_stored_is_served_together_and_the_end_waits_for_it(desk: Desk) -> None:
    served: list[int] = []
    here, go_on = threading.Event(), threading.Event()

    def serve(requests: list[Request]) -> None:
        served.append(len(requests))
        here.set()
        assert go_on.wait(20)

    lane = Lane(serve)
    lane.put(desk.request(PLAIN))
    assert here.wait(20)
    for _ in range(MOST_TOGETHER + 3):
        lane.put(desk.request(PLAIN))
    go_on.set()
    lane.close()
    assert served == [1, MOST_TOGETHER, 3]
    lane.close()


LARGE = """
import json, sys
from gpuq import wiring
from gpuq.domain.caller import Caller
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.linux import keep_large_blocks_apart
from gpuq.server.routes.submission_clerk import Clerk, Request
from gpuq.settings import Settings

keep_large_blocks_apart()

def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

ctx = wiring.open_context(Settings(home=sys.argv[1], gpus="sim:1"), roles={"server"})
clerk, sizes = Clerk(ctx, JobQueries(ctx), None), []

def serve(jobs):
    body = json.dumps([{"command": ["true"], "cwd": "/", "hold": True, "name": f"job-{n}"} for n in range(jobs)])
    give = lambda answer: sizes.append((answer.status_code, resident()))
    clerk.serve_all([Request(body.encode(), Caller("root", 0, 0, True), None, False, lambda: None, give)])

serve(10)
clerk.spare_memory()
before = resident()
serve(20_000)
clerk.spare_memory()
print(json.dumps([sizes[1][0], before, sizes[1][1], resident()]))
"""


def test_what_a_large_submission_takes_is_given_back(home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LARGE, str(home)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, before, most, after = json.loads(done.stdout)
    assert status == 201
    # Some stays, because a page of the heap is not free before all of it is.
    assert after - before < (most - before) / 6

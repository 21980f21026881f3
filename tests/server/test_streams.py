"""Server-sent events over real sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.server.routes.streaming import whole_characters


@dataclass
class Frame:
    event: str
    data: Any
    id: str | None


def frames(answer: httpx.Response) -> Iterator[Frame]:
    """As a browser reads them; comments are left out."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if not line:
            if "data" in fields:
                yield Frame(fields["event"], json.loads(fields["data"]), fields.get("id"))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


@pytest.fixture
def client(served: Any) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(served.socket))
    with httpx.Client(transport=transport, base_url="http://gpuq", timeout=10) as client:
        yield client


def submit(client: httpx.Client) -> int:
    return int(client.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["id"])


def listening(answer: httpx.Response) -> Iterator[Frame]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return frames(answer)


def test_events_come_as_they_happen_and_resume_after_the_last_seen(client: httpx.Client) -> None:
    with client.stream("GET", "/events?after_id=0") as answer:
        stream = listening(answer)
        job_id = submit(client)
        first = next(stream)
        assert (first.event, first.data["job_id"], first.data["to_state"]) == ("job", job_id, "queued")
        client.post(f"/jobs/{job_id}/hold")
        second = next(stream)
        assert second.data["to_state"] == "held"
        assert second.id == str(second.data["id"])
    client.delete(f"/jobs/{job_id}")
    with client.stream("GET", "/events", headers={"Last-Event-ID": first.id or ""}) as answer:
        stream = listening(answer)
        assert [next(stream).data["to_state"] for _ in range(2)] == ["held", "cancelled"]


def test_without_a_starting_point_only_what_is_new_is_told(client: httpx.Client) -> None:
    submit(client)
    with client.stream("GET", "/events") as answer:
        stream = listening(answer)
        second = submit(client)
        assert next(stream).data["job_id"] == second


def test_events_of_chosen_jobs_only(client: httpx.Client) -> None:
    ids = [submit(client) for _ in range(3)]
    with client.stream("GET", f"/events?after_id=0&job_id={ids[1]}") as answer:
        assert next(listening(answer)).data["job_id"] == ids[1]
    with client.stream("GET", f"/events?after_id=0&job_id={ids[0]},{ids[2]}") as answer:
        stream = listening(answer)
        assert [next(stream).data["job_id"] for _ in range(2)] == [ids[0], ids[2]]


def test_events_that_another_process_wrote_are_found_without_a_call(client: httpx.Client, api: Any) -> None:
    job_id = submit(client)
    with client.stream("GET", "/events") as answer:
        stream = listening(answer)
        with api.ctx.records.write() as tx:
            tx.add_event(job_id, JobState.QUEUED, "elsewhere", api.ctx.clock.now(), "seen")
        assert next(stream).data["actor"] == "elsewhere"


@pytest.mark.parametrize("value", ["x", "-1", "9" * 30, "1:2"])
def test_a_last_event_id_that_was_never_given_is_refused(client: httpx.Client, value: str) -> None:
    assert client.get("/events", headers={"Last-Event-ID": value}).status_code == 422


def test_a_log_is_followed_to_the_end_of_the_job(client: httpx.Client, start: Callable[..., Any]) -> None:
    run = start(submit(client))
    run.log.write_text("one\n")
    with client.stream("GET", f"/jobs/{run.job_id}/log/stream") as answer:
        stream = listening(answer)
        frame = next(stream)
        assert (frame.event, frame.data, frame.id) == ("log", {"attempt": 1, "offset": 0, "text": "one\n"}, "1:4")
        with run.log.open("a") as log:
            log.write("two\n")
        assert next(stream).data["text"] == "two\n"
        with run.log.open("a") as log:
            log.write("three\n")
        run.end(Outcome.SUCCEEDED, JobState.COMPLETED)
        rest = list(stream)
    assert "".join(frame.data["text"] for frame in rest[:-1]) == "three\n"
    assert rest[-1].event == "end"
    assert (rest[-1].data["state"], rest[-1].data["exit_code"]) == ("completed", 0)


def test_a_log_resumes_where_it_was_left(client: httpx.Client, start: Callable[..., Any]) -> None:
    run = start(submit(client))
    run.log.write_text("0123456789")
    run.end(Outcome.SUCCEEDED, JobState.COMPLETED)
    path = f"/jobs/{run.job_id}/log/stream"
    for headers, query in (({"Last-Event-ID": "1:4"}, ""), ({"Last-Event-ID": "4"}, ""), ({}, "?offset=4")):
        with client.stream("GET", path + query, headers=headers) as answer:
            assert next(listening(answer)).data["text"] == "456789"
    with client.stream("GET", path + "?offset=-3") as answer:
        assert next(listening(answer)).data == {"attempt": 1, "offset": 7, "text": "789"}
    assert client.get(path, headers={"Last-Event-ID": "1:x"}).status_code == 422


def test_a_log_goes_on_with_the_next_attempt(client: httpx.Client, start: Callable[..., Any]) -> None:
    run = start(submit(client))
    run.log.write_text("first")
    with client.stream("GET", f"/jobs/{run.job_id}/log/stream") as answer:
        stream = listening(answer)
        assert next(stream).data["text"] == "first"
        run.end(Outcome.EXIT_NONZERO, JobState.DELAYED, exit_code=1)
        again = start(run.job_id)
        assert next(stream).data == {"attempt": 2}
        again.log.write_text("second")
        frame = next(stream)
        assert (frame.data["attempt"], frame.data["text"], frame.id) == (2, "second", "2:6")
        again.end(Outcome.EXIT_NONZERO, JobState.FAILED, exit_code=7)
        assert next(stream).data["exit_code"] == 7
    with client.stream("GET", f"/jobs/{run.job_id}/log/stream?attempt=1") as answer:
        assert [frame.event for frame in listening(answer)] == ["log", "end"]


def test_a_log_is_waited_for_until_the_job_starts(client: httpx.Client, start: Callable[..., Any]) -> None:
    job_id = submit(client)
    with client.stream("GET", f"/jobs/{job_id}/log/stream") as answer:
        stream = listening(answer)
        run = start(job_id)
        run.log.write_text("at last")
        assert next(stream).data["text"] == "at last"
        run.end(Outcome.SUCCEEDED, JobState.COMPLETED)
        assert next(stream).event == "end"


def test_a_job_cancelled_while_waiting_ends_its_stream(client: httpx.Client) -> None:
    job_id = submit(client)
    with client.stream("GET", f"/jobs/{job_id}/log/stream") as answer:
        stream = listening(answer)
        client.delete(f"/jobs/{job_id}")
        assert next(stream).data["state"] == "cancelled"
        assert list(stream) == []


def test_every_byte_of_a_log_arrives(client: httpx.Client, start: Callable[..., Any]) -> None:
    run = start(submit(client))
    data = bytes(range(256)) * 2000 + "é\r\n模\u2028x".encode() * 1000
    run.log.write_bytes(data)
    run.end(Outcome.SUCCEEDED, JobState.COMPLETED)
    with client.stream("GET", f"/jobs/{run.job_id}/log/stream") as answer:
        texts = [frame.data["text"] for frame in listening(answer) if frame.event == "log"]
    assert "".join(texts).encode("utf-8", "surrogateescape") == data


@pytest.mark.parametrize(
    ("data", "whole"),
    [(b"", 0), (b"abc", 3), (b"a\xc3", 1), (b"a\xe6\xa8", 1), (b"a\xf0\x9f\x98", 1), ("aé".encode(), 3), (b"\xff", 0),
     (b"\x80\x80\x80\x80", 4), ("模".encode(), 3), ("\U0001f600".encode(), 4)],
)  # fmt: skip
def test_a_character_is_not_torn_apart(data: bytes, whole: int) -> None:
    assert whole_characters(data) == whole


def test_going_down_ends_open_streams_at_once(client: httpx.Client, served: Any, start: Callable[..., Any]) -> None:
    run = start(submit(client))
    with (
        client.stream("GET", "/events") as events,
        client.stream("GET", f"/jobs/{run.job_id}/log/stream") as log,
    ):
        streams = [events.iter_lines(), log.iter_lines()]
        assert [next(stream) for stream in streams] == [": listening"] * 2
        # Returns when the server is down, and would wait for a stream that does not end.
        served.stop()
        for stream in streams:
            assert [line for line in stream if line] == []


def test_a_listener_that_goes_away_is_forgotten(client: httpx.Client, api: Any) -> None:
    with client.stream("GET", "/events") as answer:
        # Kept, because an iterator that is dropped closes what it reads from.
        lines = answer.iter_lines()
        assert next(lines) == ": listening"
        assert len(api.app.state.streams._open) == 1
    deadline = time.monotonic() + 5
    while api.app.state.streams._open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not api.app.state.streams._open


def test_a_log_stream_without_text_tells_how_far_the_output_reaches(
    client: httpx.Client, start: Callable[..., Any]
) -> None:
    run = start(submit(client))
    run.log.write_text("one\n")
    path = f"/jobs/{run.job_id}/log/stream?text=false"
    with client.stream("GET", path) as answer:
        stream = listening(answer)
        frame = next(stream)
        assert (frame.data, frame.id) == ({"attempt": 1, "offset": 0, "size": 4}, "1:4")
        with run.log.open("a") as log:
            log.write("two\n")
        assert next(stream).data == {"attempt": 1, "offset": 4, "size": 8}
        run.end(Outcome.SUCCEEDED, JobState.COMPLETED)
        assert next(stream).event == "end"
    with client.stream("GET", path, headers={"Last-Event-ID": "1:6"}) as answer:
        assert [(one.event, one.data.get("offset")) for one in listening(answer)] == [("log", 6), ("end", None)]

"""The client that waits and follows, against a real daemon's streams: it is told, and does not ask again and again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpuq.client import watch
from gpuq.client.calls import Calls
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState


@pytest.fixture
def calls(served: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    # What it asks in the first second is not what this is about.
    monkeypatch.setattr(watch, "QUIET_S", 0.0)
    with Calls(f"unix://{served.socket}") as calls:
        yield calls


class Asking:
    """What a client asked, and when it has come to rest on a stream."""

    def __init__(self, client: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: Counter[str] = Counter()
        self.resting = threading.Event()
        send, listen = client.send, client.listen

        def counting(method: str, path: str, **options: Any) -> Any:
            self.asked[path] += 1
            return send(method, path, **options)

        def listening(path: str, **query: Any) -> Any:
            stream = listen(path, **query)
            if stream is not None:
                frames = stream.frames

                def rest(seconds: float) -> Any:
                    self.resting.set()
                    return frames(seconds)

                monkeypatch.setattr(stream, "frames", rest)
            return stream

        monkeypatch.setattr(client, "send", counting)
        monkeypatch.setattr(client, "listen", listening)


def in_thread(client: Calls, work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answer: list[Any] = []

    def run() -> None:
        answer.append(work())
        # Its connection is this thread's own.
        client.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, answer


def submit(api: Any) -> int:
    return int(api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["id"])


def test_waiting_for_jobs_asks_for_those_alone_that_have_ended(
    api: Any, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [submit(api) for _ in range(3)]
    asking = Asking(calls, monkeypatch)
    fetched: list[list[int]] = []
    fetch = watch._fetch
    monkeypatch.setattr(watch, "_fetch", lambda client, some: (fetched.append(list(some)), fetch(client, some))[1])
    thread, answer = in_thread(calls, lambda: calls.wait(*ids))
    assert asking.resting.wait(20)
    before = len(fetched)
    asking.resting.clear()
    # Moves that end nothing are heard and need no look.
    api.daemon.post(f"/jobs/{ids[0]}/hold")
    assert asking.resting.wait(20)
    for job_id in ids:
        api.daemon.delete(f"/jobs/{job_id}")
    thread.join(20)
    assert [job["state"] for job in answer[0]] == ["cancelled"] * 3
    looks = [some for some in fetched[before:] if some]
    assert sorted(job_id for some in looks for job_id in some) == ids


def test_an_end_between_the_last_look_and_the_stream_is_not_missed(
    api: Any, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(api)
    listen = calls.listen

    def late(path: str, **query: Any) -> Any:
        api.daemon.delete(f"/jobs/{job_id}")
        return listen(path, **query)

    monkeypatch.setattr(calls, "listen", late)
    [job] = calls.wait(job_id, timeout_s=20)
    assert job["state"] == "cancelled"


def test_a_stream_that_breaks_is_opened_again_and_nothing_is_missed(
    api: Any, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(api)
    streams: list[Any] = []
    listen = calls.listen

    def broken(path: str, **query: Any) -> Any:
        stream = listen(path, **query)
        streams.append(stream)
        if len(streams) < 3:
            stream.close()
        if len(streams) == 3:
            api.daemon.delete(f"/jobs/{job_id}")
        return stream

    monkeypatch.setattr(calls, "listen", broken)
    [job] = calls.wait(job_id, timeout_s=20)
    assert (job["state"], len(streams)) == ("cancelled", 3)


def test_a_daemon_without_room_for_a_stream_is_asked_as_before(
    api: Any, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(api)
    tried = threading.Event()

    def refused(path: str, **query: Any) -> None:
        tried.set()

    monkeypatch.setattr(calls, "listen", refused)
    thread, answer = in_thread(calls, lambda: calls.wait(job_id))
    assert tried.wait(20)
    api.daemon.delete(f"/jobs/{job_id}")
    thread.join(20)
    assert answer[0][0]["state"] == "cancelled"


def test_a_followed_log_is_read_when_it_has_grown(
    api: Any, calls: Calls, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(submit(api))
    run.log.write_bytes(b"one\n\xff")
    asking = Asking(calls, monkeypatch)
    pieces: list[bytes] = []
    thread, _ = in_thread(calls, lambda: pieces.extend(calls.follow(run.job_id)))
    assert asking.resting.wait(20)
    asked = sum(asking.asked.values())
    asking.resting.clear()
    with run.log.open("ab") as log:
        log.write(b"two\n")
    assert asking.resting.wait(20)
    assert b"".join(pieces) == b"one\n\xfftwo\n"
    assert sum(asking.asked.values()) - asked <= 4
    run.end(Outcome.EXIT_NONZERO, JobState.DELAYED, exit_code=1)
    again = start(run.job_id)
    again.log.write_bytes(b"again\n")
    again.end(Outcome.SUCCEEDED, JobState.COMPLETED)
    thread.join(20)
    assert b"".join(pieces) == b"one\n\xfftwo\nagain\n"

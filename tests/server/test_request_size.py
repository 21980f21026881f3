"""How much one request may queue, and what becomes of it when the client has gone."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain import failpoints
from gpuq.engine.intake import request_size
from gpuq.server.http.middleware import MAX_OTHER_BODY
from gpuq.server.http.protocol import BoundedProtocol
from gpuq.server.in_process import call
from gpuq.server.routes.submission_body import Bodies
from gpuq.settings import Settings

PLAIN = {"command": ["true"], "cwd": "/", "gpus": 0}


@pytest.fixture
def settings(home: Any) -> Settings:
    return Settings(home=home, gpus="sim:4", node="testbox", max_batch=20)


def refused(answer: Any) -> Any:
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large"), answer.text
    return answer.json()["error"]


@pytest.mark.parametrize("shape", [lambda jobs: jobs, lambda jobs: {"jobs": jobs, "env": {"A": "1"}}])
def test_a_request_queues_as_many_jobs_as_the_setting_says_and_no_more(api: Any, shape: Callable[[Any], Any]) -> None:
    assert len(api.daemon.post("/jobs", json=shape([PLAIN] * 20)).json()) == 20
    error = refused(api.daemon.post("/jobs", json=shape([PLAIN] * 21)))
    assert "at most 20 jobs" in error["message"]
    assert "split -l 20" in error["hint"]
    assert len(api.root.get("/jobs").json()) == 20


@pytest.mark.parametrize("key", [None, "k"])
def test_what_is_too_long_is_not_read_to_its_end(api: Any, key: str | None) -> None:
    jobs = [*[PLAIN] * 20, *["no job"] * 100_000]
    refused(api.daemon.post("/jobs", json=jobs, headers={} if key is None else {"Idempotency-Key": key}))


@pytest.mark.parametrize("arrays", [["0-20"], ["0-9", "0-9", "5"], ["0-99999"]])
def test_each_element_of_an_array_is_a_job(api: Any, arrays: list[str]) -> None:
    specs = [{**PLAIN, "array": array} for array in arrays]
    refused(api.daemon.post("/jobs", json=specs if len(specs) > 1 else specs[0]))
    assert api.root.get("/jobs").json() == []
    assert len(api.daemon.post("/jobs", json={**PLAIN, "array": "0-19"}).json()) == 20


def test_check_says_the_same(api: Any) -> None:
    answer = api.daemon.post("/jobs/check", json={**PLAIN, "array": "0-20"}).json()
    assert (answer["ok"], answer["reason"]["code"]) == (False, "too_large")


@pytest.mark.parametrize("text", ["v", "ü", "\U0001f600"])
def test_the_variables_of_a_job_have_at_most_a_mebibyte(api: Any, text: str) -> None:
    size = len(text.encode())
    most = {"A": text * ((1024 * 1024 - 1) // size)}
    api.daemon.post("/jobs", json={**PLAIN, "env": most}).raise_for_status()
    more = {"A": text * ((1024 * 1024 - 1) // size), "B" * size: ""}
    halves = [{"A": "1" * 600_000}, {"B": "1" * 600_000}]
    for body in (
        {**PLAIN, "env": more},
        {"jobs": [PLAIN], "env": more},
        {"jobs": [{**PLAIN, "env": halves[0]}], "env": halves[1]},
    ):
        assert "env: the variables of one job have" in refused(api.daemon.post("/jobs", json=body))["message"]
    error = refused(api.daemon.post("/jobs", json=[PLAIN, {**PLAIN, "env": more}]))
    assert error["index"] == 1
    assert error["message"].startswith("item 2 of the list: ")
    assert len(api.root.get("/jobs").json()) == 1


def test_what_many_jobs_share_counts_for_each(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_size, "MAX_STORED", 1000)
    for env in ({"A": "v" * 60}, {}):
        batch = {"jobs": [{**PLAIN, "command": ["c" * (10 if env else 80)]}] * 20, "env": env}
        refused(api.daemon.post("/jobs", json=batch))
    refused(api.daemon.post("/jobs", json={**PLAIN, "command": ["c" * 80], "array": "0-19"}))
    api.daemon.post("/jobs", json={**PLAIN, "command": ["c" * 80], "array": "0-9"}).raise_for_status()


@pytest.mark.parametrize("shared", [{"cwd": "/" + "d" * 80}, {"gpu_model": "m" * 80}, {"gpu_ids": [1] * 20}])
def test_folders_and_wishes_count_for_each_job_too(
    api: Any, monkeypatch: pytest.MonkeyPatch, shared: dict[str, Any]
) -> None:
    monkeypatch.setattr(request_size, "MAX_STORED", 1000)
    refused(api.daemon.post("/jobs", json={**PLAIN, **shared, "array": "0-19"}))
    api.daemon.post("/jobs", json={**PLAIN, **shared, "array": "0-7"}).raise_for_status()


LONG = {
    "command": ["true", "c" * (2 * 1024 * 1024)],
    "cwd": "/" + "d" * 4096,
    "gpu_model": "m" * 201,
    "gpu_ids": [0] * 1025,
    "signal": "USR1@" + "0" * 60,
    "array": "0" * (1024 * 1024 + 1),
}


@pytest.mark.parametrize("name", LONG)
def test_what_every_listing_shows_is_not_endless(api: Any, name: str) -> None:
    error = refused(api.daemon.post("/jobs", json=[PLAIN, {**PLAIN, name: LONG[name]}]))
    assert error["message"].startswith(f"item 2 of the list: {name}: ")
    assert len(error["message"]) < 200
    assert error["index"] == 1
    assert api.root.get("/jobs").json() == []


@pytest.mark.parametrize("name", ["gpu_model", "gpu_ids", "signal"])
def test_a_change_makes_no_field_longer_than_a_submission(api: Any, name: str) -> None:
    job = api.daemon.post("/jobs", json={**PLAIN, "hold": True}).json()
    assert refused(api.daemon.patch(f"/jobs/{job['id']}", json={name: LONG[name]}))["message"].startswith(f"{name}: ")


def test_the_jobs_of_a_request_wait_for_at_most_as_many_others(api: Any) -> None:
    first, second = (api.daemon.post("/jobs", json=PLAIN).json()["id"] for _ in range(2))
    refused(api.daemon.post("/jobs", json={**PLAIN, "after": [first, second], "array": "0-10"}))
    api.daemon.post("/jobs", json={**PLAIN, "after": [first], "after_any": [second], "array": "0-9"}).raise_for_status()


def test_without_a_daemon_the_limits_are_the_same(api: Any) -> None:
    body = json.dumps([PLAIN] * 21)
    answer = asyncio.run(call(api.app, {"method": "POST", "path": "/jobs", "body": body}))
    assert answer["status"] == 413


def test_what_is_no_submission_is_small(api: Any) -> None:
    for path in ("/jobs/check", "/jobs/hold", "/sql"):
        assert "larger than 4 MiB" in refused(api.daemon.post(path, content=b" " * (MAX_OTHER_BODY + 1)))["message"]


class Absent:
    """Holds a submission at one place until its client has gone and the daemon has seen that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here = threading.Event()
        self.seen = threading.Event()
        lost = BoundedProtocol.connection_lost

        def connection_lost(protocol: BoundedProtocol, error: Exception | None) -> None:
            lost(protocol, error)
            self.seen.set()

        monkeypatch.setattr(BoundedProtocol, "connection_lost", connection_lost)

    def stop_here(self) -> None:
        self.here.set()
        assert self.seen.wait(20)


@pytest.fixture(params=["while it is parsed", "before the commit"])
def absent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Absent:
    made = Absent(monkeypatch)
    if request.param == "before the commit":
        point = failpoints.point

        def stopping(name: str) -> None:
            point(name)
            if name == "submit.before_commit":
                made.stop_here()

        monkeypatch.setattr(failpoints, "point", stopping)
        return made
    parse = Bodies.parse

    def parsing(bodies: Bodies, body: bytes) -> Any:
        made.stop_here()
        return parse(bodies, body)

    monkeypatch.setattr(Bodies, "parse", parsing)
    return made


@pytest.mark.parametrize("key", [b"", b"Idempotency-Key: k\r\n"])
def test_a_client_that_has_gone_queued_nothing_unless_it_can_ask_again(
    served: Any, api: Any, absent: Absent, caplog: pytest.LogCaptureFixture, key: bytes
) -> None:
    body = json.dumps([PLAIN, PLAIN]).encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(served.socket))
        client.sendall(b"POST /jobs HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (key, len(body), body))
        assert absent.here.wait(20)
    # Returns when every submission under way has been stored or dropped.
    api.app.submission.close()
    assert len(api.root.get("/jobs").json()) == (2 if key else 0)
    served.stop()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []

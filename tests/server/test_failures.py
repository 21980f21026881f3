from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuq.errors import DatabaseUnavailable, LeaseLost


def test_an_unknown_path_and_a_wrong_method_are_told_in_our_shape(api: Any) -> None:
    answer = api.root.get("/nothing/here")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "code": "not_found",
        "message": "no such path: /nothing/here",
        "hint": "/openapi.json lists what there is",
    }
    answer = api.root.put("/jobs")
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", "GET, POST"),
        ("PUT", "/jobs/7", "DELETE, GET, PATCH"),
        ("GET", "/queue/pause", "POST"),
        *((method, f"/jobs/{verb}", "POST")
          for verb in ("check", "hold", "release", "retry", "top")
          for method in ("GET", "PATCH", "DELETE", "OPTIONS", "PUT")),
    ],
)  # fmt: skip
def test_a_wrong_method_is_told_with_all_right_ones(api: Any, method: str, path: str, allowed: str) -> None:
    answer = api.root.request(method, path)
    assert answer.status_code == 405
    assert answer.json()["error"]["hint"] == f"allowed: {allowed}"
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("path", "target"),
    [("/stats", "gpuq.engine.queries.health.stats"), ("/jobs", "gpuq.engine.intake.submit.store")],
)
def test_an_unexpected_failure_is_logged_and_tells_nothing(
    api: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str, target: str
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(target, broken)
    with caplog.at_level(logging.ERROR):
        answer = api.root.get(path) if path == "/stats" else api.root.post(path, json={"command": ["x"], "cwd": "/"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "secret of the inside" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("error", "status"), [(DatabaseUnavailable("full", hint="make room"), 503), (LeaseLost("gone"), 409)]
)
def test_an_error_of_ours_keeps_its_status_code_and_hint(
    api: Any, monkeypatch: pytest.MonkeyPatch, error: Any, status: int
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise error

    monkeypatch.setattr("gpuq.engine.intake.submit.store", broken)
    answer = api.root.post("/jobs", json={"command": ["x"]})
    assert answer.status_code == status
    assert answer.json() == {"error": {"code": error.code, "message": error.message, "hint": error.hint}}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
_fields = [
    "name", "cwd", "env", "gpus", "gpu_mem_mb", "gpu_model", "gpu_ids", "priority", "group", "time_limit_s",
    "max_retries", "after", "after_any", "begin", "array", "hold", "key", "preemptible", "signal", "kill_grace_s",
]  # fmt: skip
_likely = (
    _json
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 1e308, "0-3", "0-99999999", "\0", "/", [0], [2**70], {"A": "b"}])
    | st.lists(st.integers(), max_size=3)
)
_quietly = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def _is_told_properly(answer: Any) -> None:
    assert answer.status_code in {200, 201, 400, 404, 409, 413, 422}, answer.text
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) >= {"code", "message", "hint"}
        assert "\n" not in answer.json()["error"]["message"].strip()


@_quietly
@given(fields=st.dictionaries(st.sampled_from(_fields), _likely, max_size=3), command=st.lists(st.text(), max_size=3))
def test_no_submission_makes_the_server_fail(api: Any, fields: dict[str, Any], command: list[str]) -> None:
    import json

    body = json.dumps({"command": command or ["true"], "hold": True, **fields})
    _is_told_properly(api.root.post("/jobs", content=body))


@_quietly
@given(body=st.binary(max_size=200) | _json.map(lambda value: __import__("json").dumps(value).encode()))
def test_no_body_makes_the_server_fail(api: Any, body: bytes) -> None:
    for method, path in (
        ("POST", "/jobs"),
        ("POST", "/jobs/check"),
        ("POST", "/jobs/place"),
        ("PATCH", "/jobs/1"),
        ("POST", "/sql"),
        ("POST", "/tokens"),
        ("POST", "/queue/pause"),
        ("POST", "/gpus/0/drain"),
    ):
        _is_told_properly(api.root.request(method, path, content=body))


@_quietly
@given(
    path=st.sampled_from(["/jobs", "/queue", "/history", "/jobs/1/log", "/report/usage", "/report/waits"]),
    query=st.dictionaries(
        st.sampled_from(
            ["state", "user", "group", "name", "limit", "offset", "ids", "since", "by", "attempt", "after_id"]
        ),
        st.text(max_size=15) | st.integers().map(str),
        max_size=3,
    ),
)
def test_no_query_makes_the_server_fail(api: Any, path: str, query: dict[str, str]) -> None:
    _is_told_properly(api.root.get(path, params=query))

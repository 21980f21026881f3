"""When as many jobs wait as may: what is answered, and when to come back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gpuq.client.errors import from_reply
from gpuq.errors import QueueFull
from gpuq.settings import Settings


@pytest.fixture
def settings(home: Any) -> Settings:
    return Settings(home=home, gpus="sim:4", node="testbox", max_waiting=4, max_waiting_low=1)


def submit(client: httpx.Client, count: int = 1, **fields: Any) -> httpx.Response:
    return client.post("/jobs", json=[{"command": ["true"], "cwd": "/", **fields} for _ in range(count)])


def test_a_full_queue_says_when_there_may_be_room(api: Any, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert submit(api.root, 4, gpus=4, time_limit_s=600).status_code == 201
    start(1, (0, 1, 2, 3))
    assert submit(api.root, gpus=4).status_code == 201
    monkeypatch.setattr(api.app.state.queries.agent, "is_alive", lambda: True)
    answer = submit(api.root)
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "queue_full"
    assert "(4)" in error["message"]
    assert 500 < int(answer.headers["retry-after"]) <= 600
    assert "try again in about" in error["hint"]
    raised = from_reply(answer.status_code, answer.content)
    assert isinstance(raised, QueueFull)
    assert raised.exit_code == 4
    assert len(api.root.get("/jobs").json()) == 5


def test_without_a_forecast_it_is_a_minute(api: Any) -> None:
    submit(api.root, 4)
    answer = submit(api.root)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert api.root.post("/jobs/check", json={"command": ["true"], "cwd": "/"}).json()["reason"]["code"] == "queue_full"


def test_each_priority_has_a_limit_of_its_own(api: Any) -> None:
    assert submit(api.root, priority="low").status_code == 201
    refused = submit(api.root, priority="low")
    assert refused.status_code == 503
    assert "of priority low" in refused.json()["error"]["message"]
    assert submit(api.root, 2).status_code == 201
    several = submit(api.root, 2)
    assert "2 more jobs are too many: at most 4 may wait" in several.json()["error"]["message"]
    assert submit(api.root).status_code == 201

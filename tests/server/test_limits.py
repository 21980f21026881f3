"""Limits over HTTP: everybody sees them, administrators change them, and nonsense is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

WEEK = {"hours": 100, "window_s": 604800}


@pytest.mark.usefixtures("as_root")
def test_limits_are_seen_by_everybody_and_changed_by_administrators(api: Any) -> None:
    wanted = {"kind": "user", "name": "daemon", "gpus": 4, "gpu_hours": WEEK, "time_s": "unlimited"}
    assert api.daemon.post("/limits", json=wanted).status_code == 403
    answer = api.root.post("/limits", json=wanted)
    assert answer.status_code == 200
    rows = {row["what"]: row for row in answer.json()}
    assert rows["gpus"] == {
        "kind": "user", "name": "daemon", "what": "gpus", "limit": 4.0, "window_s": None, "used": 0.0,
        "source": "sql", "set_for": "user daemon", "set_by": "root",
    }  # fmt: skip
    assert (rows["gpu_hours"]["limit"], rows["gpu_hours"]["window_s"], rows["gpu_hours"]["used"]) == (100, 604800, 0)
    assert rows["time_s"]["limit"] is None
    seen = api.daemon.get("/limits").json()
    assert [row["what"] for row in seen] == ["gpus", "gpu_hours", "time_s"]
    assert api.daemon.get("/limits", params={"user": "bin"}).json() == []
    assert api.root.post("/limits", json={"kind": "default", "running": 2}).json()[0]["limit"] == 2
    assert [row["set_for"] for row in api.daemon.get("/limits", params={"user": "bin"}).json()] == ["default"]
    for what in ("gpus", "gpu_hours", "time_s"):
        api.root.post("/limits", json={"kind": "user", "name": "daemon", what: None})
    assert [row["what"] for row in api.daemon.get("/limits", params={"user": "daemon"}).json()] == ["running"]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    "body",
    [
        {"kind": "user", "gpus": 4},
        {"kind": "default", "name": "bin", "gpus": 4},
        {"kind": "team", "name": "bin", "gpus": 4},
        {"kind": "user", "name": "bin", "gpus": -1},
        {"kind": "user", "name": "bin", "gpus": "4"},
        {"kind": "user", "name": "bin", "gpus": True},
        {"kind": "user", "name": "bin", "gpu_hours": 4},
        {"kind": "user", "name": "bin", "gpu_hours": {"hours": 4, "window_s": 1}},
        {"kind": "user", "name": "bin", "cards": 4},
    ],
)
def test_limits_that_cannot_be_are_refused(api: Any, body: dict[str, Any]) -> None:
    answer = api.root.post("/limits", json=body)
    assert answer.status_code in {400, 422}
    assert "error" in answer.json()
    assert api.daemon.get("/limits").json() == []

"""GPUs over time: what the API tells of them, and how the page draws it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.server.pages import lanes


def submit(api: Any, **fields: Any) -> int:
    answer = api.root.post("/jobs", json={"command": ["true"], "cwd": "/", "gpus": 1, **fields})
    return int(answer.json()["id"])


def told(api: Any, **query: Any) -> dict[str, Any]:
    answer = api.root.get("/lanes", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bars(found: dict[str, Any]) -> list[tuple[int, int, str]]:
    return sorted((bar["job_id"], bar["gpu"], bar["kind"]) for bar in found["bars"])


def test_lanes_tell_past_present_and_what_the_plan_expects(
    api: Any, start: Callable[..., Any], monkeypatch: Any
) -> None:
    over, runs, waits = submit(api, gpus=2), submit(api, gpus=3, time_limit_s=3600), submit(api, gpus=2)
    start(over, (0, 1)).end(Outcome.EXIT_NONZERO, JobState.FAILED, 1)
    start(runs, (0, 2, 3))
    monkeypatch.setattr(api.app.state.queries.agent, "is_alive", lambda: True)
    found = told(api)
    past = [(over, 0, "past"), (over, 1, "past")]
    present = [(runs, 0, "running"), (runs, 2, "running"), (runs, 3, "running")]
    expected = [bar for bar in bars(found) if bar[2] == "forecast"]
    assert bars(found) == sorted([*past, *present, *expected])
    assert [bar[0] for bar in expected] == [waits, waits]
    ends = next(bar["end"] for bar in found["bars"] if bar["job_id"] == runs)
    assert all(bar["start"] >= ends for bar in found["bars"] if bar["kind"] == "forecast")
    assert found["gpus"] == [0, 1, 2, 3]
    assert bars(told(api, ahead_s=0, past_s=0)) == present
    api.root.post("/queue/pause")
    assert bars(told(api)) == [*past, *present]


def test_shares_of_one_gpu_and_windows_without_anything(api: Any, start: Callable[..., Any]) -> None:
    assert told(api)["bars"] == []
    for _ in range(2):
        start(submit(api, gpu_mem_mb=1000), (1,))
    assert bars(told(api)) == [(1, 1, "running"), (2, 1, "running")]
    assert api.root.get("/lanes", params={"past_s": -1}).status_code == 422
    assert api.root.get("/lanes", params={"past_s": "inf"}).status_code == 422


def test_bars_stay_within_the_drawing() -> None:
    bar = {"gpu": 1, "job_id": 7, "name": "n", "user": "u", "kind": "past", "outcome": "lost"}
    drawn = lanes.drawing(
        {
            "since": "2026-01-01T00:00:00Z",
            "now": "2026-01-01T06:00:00Z",
            "until": "2026-01-01T12:00:00Z",
            "gpus": [1, 5],
            "bars": [
                {**bar, "start": "2025-12-31T00:00:00Z", "end": "2026-01-01T03:00:00Z"},  # type: ignore[list-item]
                {**bar, "kind": "running", "start": "2026-01-01T05:00:00Z", "end": None},  # type: ignore[list-item]
                {**bar, "gpu": 9, "start": "2026-01-01T05:00:00Z", "end": None},  # type: ignore[list-item]
            ],
        }
    )
    ends = [(one["x"], one["x"] + one["width"]) for one in drawn["bars"]]
    assert ends[0] == (lanes.LEFT, lanes.LEFT + lanes.WIDTH / 4)
    assert ends[1][1] == lanes.LEFT + lanes.WIDTH
    assert len(ends) == 2, "a card that is no longer there has no lane"
    assert [one["bad"] for one in drawn["bars"]] == [True, False]
    assert drawn["now"] == lanes.LEFT + lanes.WIDTH / 2
    assert [mark["at"] for mark in drawn["marks"]][:2] == ["01:00", "02:00"]

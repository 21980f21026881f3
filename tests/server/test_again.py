"""A job once more: its own submission, with changes on top."""

from __future__ import annotations

from typing import Any

import pytest

SPEC = {
    "command": ["python", "train.py"], "cwd": "/", "gpus": 2, "priority": "low", "name": "bert", "time_limit_s": 60,
    "env": {"A": "1", "PWD": "/"}, "max_retries": 0, "preemptible": True, "signal": "USR1@5",
}  # fmt: skip


def queued(api: Any, **fields: Any) -> int:
    answer = api.daemon.post("/jobs", json={**SPEC, **fields})
    assert answer.status_code == 201, answer.text
    found = answer.json()
    return int((found[0] if isinstance(found, list) else found)["id"])


def spec_of(api: Any, job_id: int) -> dict[str, Any]:
    with api.ctx.records.read() as reader:
        return reader.spec(job_id)[0].model_dump(mode="json")


def again(api: Any, job_id: int, **changes: Any) -> list[Any]:
    answer = api.daemon.post(f"/jobs/{job_id}/again", json=changes)
    assert answer.status_code == 201, answer.text
    return list(answer.json())


def test_a_job_again_is_the_same_submission(api: Any) -> None:
    first = queued(api, script="#!/bin/sh\ntrue\n")
    [second] = again(api, first)
    assert second["id"] != first
    assert spec_of(api, second["id"]) == spec_of(api, first)
    assert (second["name"], second["state"]) == ("bert", "queued")


def test_a_finished_job_is_queued_again_and_stays_as_it_is(api: Any) -> None:
    first = queued(api, key="k")
    assert api.daemon.delete(f"/jobs/{first}").json()["state"] == "cancelled"
    [second] = again(api, first)
    assert (second["state"], second["key"]) == ("queued", None)
    assert api.daemon.get(f"/jobs/{first}").json()["state"] == "cancelled"


def test_changes_lie_on_top(api: Any) -> None:
    first = queued(api, script="#!/bin/sh\ntrue\n")
    [second] = again(api, first, gpus=1, env={"B": "2"}, cwd="/tmp", time_limit_s=None, command=["x"])
    old, new = spec_of(api, first), spec_of(api, second["id"])
    changed = {name: new[name] for name in new if new[name] != old[name]}
    assert changed == {
        "gpus": 1, "env": {"A": "1", "B": "2", "PWD": "/tmp"}, "cwd": "/tmp", "time_limit_s": None,
        "command": ["x"], "script": None,
    }  # fmt: skip


def test_what_was_about_its_own_time_is_left_out(api: Any) -> None:
    other = queued(api)
    first = queued(api, key="k", hold=True, after=[other], after_any=[other], begin=4e9)
    [second] = again(api, first)
    assert (second["state"], second["key"], second["after"], second["after_any"]) == ("queued", None, [], [])


def test_the_id_of_an_array_stands_for_all_of_it_and_that_of_an_element_for_one(api: Any) -> None:
    first = queued(api, array="0-4:2%1")
    assert [job["array_index"] for job in again(api, first)] == [0, 2, 4]
    [one] = again(api, first + 1)
    assert (one["array_index"], one["array_id"]) == (2, one["id"])
    assert [job["array_index"] for job in again(api, first, array="7")] == [7]


def test_a_repeated_request_queues_nothing_more(api: Any) -> None:
    first = queued(api)
    path, headers = f"/jobs/{first}/again", {"Idempotency-Key": "once"}
    ids = {api.daemon.post(path, json={"gpus": 1}, headers=headers).json()[0]["id"] for _ in range(2)}
    assert len(ids) == 1
    other = api.daemon.post(path, json={"gpus": 2}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "refused")


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"gpuz": 1}, "gpuz"), ({"env": [1]}, "env"), ({"gpus": -1}, "gpus"), ({"env": {"A": 1}}, "env")],
)
def test_a_bad_change_is_refused_by_name(api: Any, changes: dict[str, Any], says: str) -> None:
    answer = api.daemon.post(f"/jobs/{queued(api)}/again", json=changes)
    assert answer.status_code == 422
    assert says in answer.json()["error"]["message"]


@pytest.mark.usefixtures("as_root")
def test_nobody_queues_a_job_of_somebody_else_again(api: Any) -> None:
    """Not even an administrator or root: the job would show that user's environment."""
    first = queued(api)
    for client in (api.bin, api.root):
        answer = client.post(f"/jobs/{first}/again", json={"command": ["env"]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    missing = api.daemon.post("/jobs/999/again", json={})
    assert (missing.status_code, len(api.daemon.get("/jobs").json())) == (404, 1)

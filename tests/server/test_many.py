from __future__ import annotations

from typing import Any

import pytest

from gpuq.engine.actions import bulk


def submit(api: Any, count: int, **fields: Any) -> list[int]:
    answer = api.daemon.post("/jobs", json=[{"command": ["true"], "cwd": "/", **fields}] * count)
    assert answer.status_code == 201, answer.text
    return [job["id"] for job in answer.json()]


def told(answer: Any) -> list[tuple[int, str]]:
    """(id, state or error code) of every item."""
    assert answer.status_code == 200, answer.text
    return [(item["id"], item.get("state") or item["error"]["code"]) for item in answer.json()]


def test_many_jobs_are_held_and_released_over_several_transactions(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PER_TRANSACTION", 7)
    opened: list[int] = []
    real = api.ctx.records.write
    monkeypatch.setattr(api.ctx.records, "write", lambda: (opened.append(1), real())[1])
    ids = submit(api, 20)
    line = [job["id"] for job in api.daemon.get("/queue").json()["jobs"]]
    opened.clear()
    assert told(api.daemon.post("/jobs/hold", json={"ids": ids})) == [(job_id, "held") for job_id in ids]
    assert len(opened) == 1, "in two steps the second half would be started while the first is held"
    assert api.daemon.get("/queue").json()["queued"] == 0
    opened.clear()
    assert told(api.daemon.post("/jobs/release", json={"ids": ids})) == [(job_id, "queued") for job_id in ids]
    assert len(opened) == 3
    assert [job["id"] for job in api.daemon.get("/queue").json()["jobs"]] == line
    actors = [event["actor"] for event in api.daemon.get(f"/jobs/{ids[0]}").json()["events"]]
    assert actors == ["daemon", "daemon", "daemon"]
    opened.clear()
    assert told(api.daemon.post("/jobs/cancel", json={"ids": ids})) == [(job_id, "cancelled") for job_id in ids]
    assert len(opened) == 1


def test_what_one_job_is_refused_for_keeps_no_other_from_being_done(api: Any, as_root: None) -> None:
    first, second = submit(api, 2)
    api.daemon.delete(f"/jobs/{first}")
    [others] = api.bin.post("/jobs", json=[{"command": ["true"], "cwd": "/"}]).json()
    answer = api.daemon.post("/jobs/hold", json={"ids": [first, others["id"], 999, second, second]})
    assert told(answer) == [
        (first, "wrong_state"), (others["id"], "forbidden"), (999, "not_found"), (second, "held"),
    ]  # fmt: skip
    assert answer.json()[0]["error"]["message"] == f"job {first} is cancelled; only a waiting job can be held"
    assert answer.json()[1]["error"]["hint"]


def test_many_jobs_are_retried_and_moved_to_the_front(api: Any) -> None:
    ids = submit(api, 4)
    for job_id in ids[:2]:
        api.daemon.delete(f"/jobs/{job_id}")
    assert told(api.daemon.post("/jobs/retry", json={"ids": ids[:3]})) == [
        (ids[0], "queued"), (ids[1], "queued"), (ids[2], "wrong_state"),
    ]  # fmt: skip
    assert told(api.daemon.post("/jobs/top", json={"ids": ids[:2]})) == [(ids[0], "queued"), (ids[1], "queued")]
    assert [job["id"] for job in api.daemon.get("/queue").json()["jobs"]] == [ids[1], ids[0], ids[2], ids[3]]


def test_a_job_that_is_not_due_yet_or_waits_for_another_is_released_into_that_state(api: Any) -> None:
    [first] = submit(api, 1)
    [later] = submit(api, 1, hold=True, begin="2099-01-01T00:00:00Z")
    [behind] = submit(api, 1, hold=True, after=[first])
    answer = api.daemon.post("/jobs/release", json={"ids": [later, behind]})
    assert told(answer) == [(later, "delayed"), (behind, "blocked")]


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": ["7"]}, {"ids": [-1]}, {"ids": [1], "all": True}, [1]])
def test_what_names_no_jobs_is_refused(api: Any, body: object) -> None:
    assert api.daemon.post("/jobs/hold", json=body).status_code == 422


def test_many_jobs_are_cancelled_with_words_of_their_own(api: Any) -> None:
    ids = submit(api, 3)
    body = {"ids": [*ids, 999], "grace_s": 5, "reason": "wrong data", "force": False}
    assert told(api.daemon.post("/jobs/cancel", json=body)) == [
        *((job_id, "cancelled") for job_id in ids), (999, "not_found"),
    ]  # fmt: skip
    assert api.daemon.get(f"/jobs/{ids[0]}").json()["error"] == "wrong data"
    for wrong in ({"grace_s": -1}, {"reason": "\0"}, {"signal": "USR1"}):
        assert api.daemon.post("/jobs/cancel", json={"ids": ids, **wrong}).status_code == 422


def test_many_jobs_are_changed_and_an_unknown_field_is_refused_for_all(api: Any) -> None:
    ids = submit(api, 3)
    answer = api.daemon.post("/jobs/update", json={"ids": ids, "changes": {"priority": "low"}})
    assert told(answer) == [(job_id, "queued") for job_id in ids]
    assert [job["priority"] for job in api.daemon.get("/jobs").json()] == ["low"] * 3
    assert api.daemon.post("/jobs/update", json={"ids": ids, "changes": {}}).status_code == 422
    refused = api.daemon.post("/jobs/update", json={"ids": ids, "changes": {"user": "bob"}})
    assert refused.json()["error"]["message"] == "cannot change 'user' of a job"


def test_thousands_of_refusals_are_a_small_answer(api: Any) -> None:
    answer = api.daemon.post("/jobs/cancel", json={"ids": list(range(1, 10_001))})
    items = answer.json()
    assert {item["error"]["code"] for item in items} == {"not_found"}
    assert [item["error"]["message"] for item in items[99:101]] == [
        "there is no job 100", "only the first 100 refusals say why",
    ]  # fmt: skip
    assert len(answer.content) < 1_500_000
    assert api.daemon.post("/jobs/cancel", json={"ids": list(range(10_001))}).status_code == 422


def test_jobs_are_named_by_id_array_and_index(api: Any) -> None:
    [single] = submit(api, 1)
    array = api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/", "array": "3-5"}).json()
    first = array[0]["id"]
    elements = [[first + number, first, 3 + number] for number in range(3)]
    assert api.daemon.get("/jobs/ids").json() == [[single, None, None], *elements]
    assert api.daemon.get(f"/jobs/ids?array_ids={first},77").json() == elements
    assert api.daemon.get(f"/jobs/ids?ids={single},{first}&state=queued").json() == [[single, None, None], elements[0]]
    assert api.daemon.get(f"/jobs/ids?after_id={single}&until_id={first + 1}").json() == elements[:2]
    assert api.daemon.get("/jobs/ids?state=done").status_code == 422
    assert api.bin.get("/jobs/ids?user=nobody-here").json() == []

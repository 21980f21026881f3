from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.ports.records import DeadLetter


def submit(caller: Any, **fields: Any) -> int:
    answer = caller.post("/jobs", json={"command": ["true"], "cwd": "/", **fields})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def test_the_queue_is_running_jobs_then_waiting_ones_in_order(api: Any, start: Callable[..., Any]) -> None:
    later = submit(api.daemon, priority="low")
    running = submit(api.daemon)
    start(running)
    first = submit(api.bin, priority="high")
    held = submit(api.daemon, hold=True)
    view = api.root.get("/queue").json()
    assert [job["id"] for job in view["jobs"]] == [running, first, later, held]
    assert (view["running"], view["queued"], view["waiting"], view["total"]) == (1, 2, 3, 4)
    assert [job["position"] for job in view["jobs"]] == [None, 1, 2, None]
    page = api.root.get("/queue?limit=2&offset=1").json()
    assert [job["id"] for job in page["jobs"]] == [first, later]
    assert page["total"] == 4
    assert [job["id"] for job in api.root.get("/queue?user=bin").json()["jobs"]] == [first]


@pytest.mark.usefixtures("as_root")
def test_only_an_administrator_pauses_and_resumes(api: Any) -> None:
    assert api.daemon.post("/queue/pause", json={"reason": "x"}).status_code == 403
    assert api.root.post("/queue/pause", json={"reason": "maintenance"}).status_code == 200
    assert api.daemon.get("/queue").json()["paused"]["reason"] == "maintenance"
    assert api.daemon.post("/queue/resume").status_code == 403
    assert api.root.post("/queue/resume").json() == {"paused": None}
    assert api.daemon.get("/queue").json()["paused"] is None
    assert api.root.post("/queue/pause").status_code == 200


def test_history_is_finished_jobs_newest_first(api: Any, start: Callable[..., Any]) -> None:
    ids = [submit(api.daemon), submit(api.bin, group="g")]
    for job_id in ids:
        start(job_id).end(Outcome.SUCCEEDED, JobState.COMPLETED)
    failed = submit(api.daemon)
    start(failed).end(Outcome.EXIT_NONZERO, JobState.FAILED, exit_code=1)
    submit(api.daemon)

    def listed(query: str = "") -> list[int]:
        answer = api.root.get(f"/history?{query}")
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()]

    assert listed() == [failed, ids[1], ids[0]]
    assert listed("user=bin") == [ids[1]]
    assert listed("group=g") == [ids[1]]
    assert listed("state=failed") == [failed]
    assert listed("limit=1") == [failed]
    assert listed("since=2099-01-01T00:00:00Z") == []
    assert listed("until=2099-01-01T00:00:00%2B00:00") == [failed, ids[1], ids[0]]
    assert listed("until=0") == []


@pytest.mark.parametrize("query", ["since=yesterday", "until=nan", "since=9e99999", "state=running", "state=x"])
def test_a_history_that_cannot_be_is_refused(api: Any, query: str) -> None:
    answer = api.root.get(f"/history?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(query.partition("=")[0])


def test_gpus_are_listed_and_only_administrators_drain_them(api: Any, as_root: None) -> None:
    rows = api.daemon.get("/gpus").json()
    assert [(row["index"], row["state"]) for row in rows] == [(n, "free") for n in range(4)]
    assert api.daemon.post("/gpus/1/drain").status_code == 403
    drained = api.root.post("/gpus/1/drain", json={"reason": "fan"})
    assert drained.json()["state"] == "drained"
    assert api.daemon.post("/gpus/1/undrain").status_code == 403
    assert api.root.post("/gpus/1/undrain").json()["state"] == "free"
    assert api.root.post("/gpus/9/drain").status_code == 404
    assert api.root.post("/gpus/x/drain").status_code == 422


@pytest.mark.usefixtures("as_root")
def test_dead_letters_are_listed_retried_and_removed_by_their_owners(api: Any, start: Callable[..., Any]) -> None:
    ids = [submit(api.daemon), submit(api.daemon)]
    for job_id in ids:
        start(job_id).end(Outcome.EXIT_NONZERO, JobState.FAILED, exit_code=2)
        with api.ctx.records.write() as tx:
            tx.add_dead_letter(DeadLetter(job_id, api.ctx.clock.now(), "exit_nonzero", "exit code 2", 1, "last words"))
    assert {letter["job_id"] for letter in api.daemon.get("/dlq").json()} == set(ids)
    assert api.daemon.get(f"/dlq/{ids[0]}").json()["log_tail"] == "last words"
    assert "last words" not in api.bin.get("/dlq").text + api.bin.get(f"/dlq/{ids[0]}").text
    assert api.bin.post(f"/dlq/{ids[0]}/retry").status_code == 403
    assert api.bin.delete(f"/dlq/{ids[0]}").status_code == 403
    assert api.daemon.post(f"/dlq/{ids[0]}/retry").json()["state"] == "queued"
    assert api.daemon.delete(f"/dlq/{ids[1]}").json() == {"removed": ids[1]}
    assert api.daemon.get("/dlq").json() == []
    assert api.daemon.get(f"/jobs/{ids[1]}").json()["state"] == "failed"
    assert api.daemon.delete(f"/dlq/{ids[1]}").status_code == 404


@pytest.mark.usefixtures("as_root")
def test_groups_are_listed_and_only_administrators_limit_them(api: Any, start: Callable[..., Any]) -> None:
    start(submit(api.daemon, group="nightly runs/a"))
    submit(api.bin, group="nightly runs/a")
    wanted = {"group": "nightly runs/a", "limit": 1}
    assert api.daemon.post("/groups", json=wanted).status_code == 403
    assert api.root.post("/groups", json=wanted).json() == wanted
    row = {"group": "nightly runs/a", "running": 1, "waiting": 1, "limit": 1, "limited_by": "root"}
    assert api.daemon.get("/groups").json() == [row]
    assert api.root.post("/groups", json={**wanted, "limit": 0}).json()["limit"] is None
    assert api.daemon.get("/groups").json() == [{**row, "limit": None, "limited_by": None}]
    for bad in ({"group": "x"}, {"group": "x", "limit": -1}, {"group": "", "limit": 1}, {**wanted, "more": 1}):
        assert api.root.post("/groups", json=bad).status_code == 422


@pytest.mark.parametrize("limit", [False, True, "1", 1.0])
def test_what_is_only_like_a_number_is_no_limit_of_a_group(api: Any, limit: Any) -> None:
    api.root.post("/groups", json={"group": "g", "limit": 1}).raise_for_status()
    assert api.root.post("/groups", json={"group": "g", "limit": limit}).status_code == 422
    assert [row["limit"] for row in api.root.get("/groups").json()] == [1]
    assert api.root.post("/shutdown", json={"stop_jobs": "yes"}).status_code == 422
    assert api.shutdowns == []


def test_the_queue_is_narrowed_and_its_arrays_are_one_line_where_asked_for(api: Any) -> None:
    created = api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/", "array": "0-99", "group": "nlp"})
    array = created.json()[0]["id"]
    other = submit(api.daemon, name="other")

    def queue(query: str) -> dict[str, Any]:
        answer = api.root.get(f"/queue?{query}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    found = queue("arrays=one&limit=10")
    assert [job["id"] for job in found["jobs"]] == [array, other]
    assert (found["total"], found["arrays"][str(array)]["waiting"]) == (101, 100)
    assert "arrays" not in queue("limit=1")
    assert [job["id"] for job in queue("name=other")["jobs"]] == [other]
    assert len(queue("group=nlp&state=queued,held")["jobs"]) == 100
    assert api.root.get("/queue?state=failed").status_code == 422

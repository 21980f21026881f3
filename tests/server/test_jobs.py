from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState


def submit(caller: Any, **fields: Any) -> dict[str, Any]:
    answer = caller.post("/jobs", json={"command": ["true"], "cwd": "/", **fields})
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def test_a_waiting_job_is_shown_with_place_and_reason(api: Any) -> None:
    first = submit(api.daemon)
    second = submit(api.daemon)
    looked = api.bin.get(f"/jobs/{second['id']}").json()
    assert looked["position"] == 2
    assert looked["reason"]["code"] == "NoAgent"
    assert looked["attempts"] == []
    assert [event["to_state"] for event in looked["events"]] == ["queued"]
    assert api.bin.get(f"/jobs/{first['id']}/why").json()["position"] == 1


def test_no_answer_holds_the_environment(api: Any) -> None:
    job = submit(api.daemon, env={"MARK": "a-value-nobody-shall-see"})
    paths = ["/jobs", f"/jobs/{job['id']}", "/queue", f"/jobs/{job['id']}/why", "/history", "/stats"]
    for caller in (api.daemon, api.bin, api.root):
        assert all("a-value-nobody-shall-see" not in caller.get(path).text for path in paths)


def test_an_id_that_does_not_exist_is_a_404(api: Any) -> None:
    calls = [
        api.root.get("/jobs/77"),
        api.root.delete("/jobs/77"),
        api.root.patch("/jobs/77", json={"priority": "low"}),
        api.root.get("/jobs/77/why"),
        api.root.get("/jobs/77/log"),
        api.root.get("/jobs/77/log/stream"),
        api.root.post("/dlq/77/retry"),
        api.root.delete("/dlq/77"),
        api.root.get("/dlq/77"),
        *(api.root.post(f"/jobs/77/{verb}") for verb in ("hold", "release", "retry", "top")),
    ]
    for answer in calls:
        assert answer.status_code == 404, answer.request.url
        assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("job_id", ["x", "-1", "1.5", str(2**63), "9" * 40])
def test_what_cannot_be_an_id_is_refused(api: Any, job_id: str) -> None:
    answer = api.root.get(f"/jobs/{job_id}")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith("job_id: ")


def test_hold_release_and_cancel_move_the_job(api: Any) -> None:
    job_id = submit(api.daemon)["id"]
    assert api.daemon.post(f"/jobs/{job_id}/hold").json()["state"] == "held"
    assert api.daemon.post(f"/jobs/{job_id}/release").json()["state"] == "queued"
    cancelled = api.daemon.delete(f"/jobs/{job_id}?reason=enough").json()
    assert (cancelled["state"], cancelled["outcome"], cancelled["error"]) == ("cancelled", "cancelled", "enough")
    again = api.daemon.delete(f"/jobs/{job_id}")
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "wrong_state"
    assert api.daemon.post(f"/jobs/{job_id}/retry").json()["state"] == "queued"


def test_top_and_change_move_a_job_in_line(api: Any) -> None:
    ids = [submit(api.daemon, name=f"n{n}")["id"] for n in range(3)]
    api.daemon.post(f"/jobs/{ids[2]}/top")
    changed = api.daemon.patch(f"/jobs/{ids[1]}", json={"priority": "high"}).json()
    assert changed["priority"] == "high"
    assert [job["id"] for job in api.daemon.get("/queue").json()["jobs"]] == [ids[1], ids[2], ids[0]]


@pytest.mark.parametrize(
    "changes",
    [{"user": "root"}, {"command": ["x"]}, {"priority": "urgent"}, {"gpus": 99}, {"time_limit_s": -1}, [], "x", None],
)
def test_a_change_that_cannot_be_is_refused(api: Any, changes: Any) -> None:
    job_id = submit(api.daemon)["id"]
    before = api.daemon.get(f"/jobs/{job_id}").json()
    answer = api.daemon.patch(f"/jobs/{job_id}", json=changes)
    assert answer.status_code == 422
    assert api.daemon.get(f"/jobs/{job_id}").json()["events"] == before["events"]


@pytest.mark.usefixtures("as_root")
def test_nobody_acts_on_anothers_job_but_an_administrator(api: Any) -> None:
    job_id = submit(api.daemon)["id"]
    calls = [
        lambda who: who.post(f"/jobs/{job_id}/hold"),
        lambda who: who.post(f"/jobs/{job_id}/top"),
        lambda who: who.patch(f"/jobs/{job_id}", json={"priority": "low"}),
        lambda who: who.delete(f"/jobs/{job_id}"),
    ]
    for call in calls:
        answer = call(api.bin)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "forbidden"
        assert api.daemon.get(f"/jobs/{job_id}").json()["state"] == "queued"
    assert api.root.delete(f"/jobs/{job_id}").json()["state"] == "cancelled"
    assert api.bin.post(f"/jobs/{job_id}/retry").status_code == 403


def test_a_listing_is_filtered_and_paged(api: Any) -> None:
    for n in range(3):
        submit(api.daemon, name=f"d{n}", group="g")
    held = submit(api.bin, hold=True)
    ids = [job["id"] for job in api.root.get("/jobs").json()]
    assert len(ids) == 4

    def listed(query: str) -> list[int]:
        return [job["id"] for job in api.root.get(f"/jobs?{query}").json()]

    assert listed("user=bin") == [held["id"]]
    assert listed("state=held") == [held["id"]]
    assert listed("state=held,queued") == ids
    assert listed("group=g") == ids[:3]
    assert listed("name=d1") == [ids[1]]
    assert listed(f"after_id={ids[1]}&limit=1") == [ids[2]]
    assert listed(f"ids={ids[3]},{ids[0]}") == [ids[0], ids[3]]
    assert listed("ids=") == []
    assert listed("user=nobody") == []


@pytest.mark.parametrize("query", ["state=done", "limit=0", "limit=x", "ids=1;2", "ids=" + "9" * 30, "after_id=-1"])
def test_a_bad_filter_is_refused_by_name(api: Any, query: str) -> None:
    answer = api.root.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(query.partition("=")[0])


def test_the_log_is_read_in_pieces_byte_by_byte(api: Any, start: Callable[..., Any]) -> None:
    run = start(submit(api.daemon)["id"])
    data = bytes(range(256)) * 3
    run.log.write_bytes(data)
    seen = b""
    while len(seen) < len(data):
        answer = api.daemon.get(f"/jobs/{run.job_id}/log?offset={len(seen)}&limit=100")
        assert answer.status_code == 200
        seen += answer.content
        assert answer.headers["X-Next-Offset"] == str(len(seen))
        assert answer.headers["X-Size"] == str(len(data))
        assert answer.headers["X-Attempt"] == "1"
        assert answer.headers["X-Final"] == "0"
    assert seen == data
    assert api.daemon.get(f"/jobs/{run.job_id}/log?offset=-10").content == data[-10:]
    assert api.daemon.get(f"/jobs/{run.job_id}/log?offset=99999").content == b""
    run.end(Outcome.SUCCEEDED, JobState.COMPLETED)
    assert api.daemon.get(f"/jobs/{run.job_id}/log").headers["X-Final"] == "1"
    assert api.daemon.get(f"/jobs/{run.job_id}/log?attempt=2").status_code == 404


def test_a_job_that_has_not_run_has_an_empty_log(api: Any) -> None:
    answer = api.daemon.get(f"/jobs/{submit(api.daemon)['id']}/log")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["X-Attempt"] == "0"


@pytest.mark.usefixtures("as_root")
def test_another_users_output_is_not_shown_by_roots_daemon(api: Any, start: Callable[..., Any]) -> None:
    run = start(submit(api.daemon)["id"])
    run.log.write_text("private")
    for path in ("log", "log/stream"):
        answer = api.bin.get(f"/jobs/{run.job_id}/{path}")
        assert answer.status_code == 403
        assert "private" not in answer.text
    assert api.root.get(f"/jobs/{run.job_id}/log").text == "private"
    assert api.daemon.get(f"/jobs/{run.job_id}/log").text == "private"


@pytest.mark.usefixtures("as_a_user")
def test_everybody_let_in_reads_all_output_of_a_users_own_daemon(api: Any, start: Callable[..., Any]) -> None:
    run = start(submit(api.daemon)["id"])
    run.log.write_text("shared")
    assert api.bin.get(f"/jobs/{run.job_id}/log").text == "shared"


def test_a_run_is_shown_with_its_attempts(api: Any, start: Callable[..., Any]) -> None:
    run = start(submit(api.daemon)["id"], gpus=(1,))
    run.end(Outcome.EXIT_NONZERO, JobState.DELAYED, exit_code=3)
    start(run.job_id, gpus=(2,))
    shown = api.bin.get(f"/jobs/{run.job_id}").json()
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["exit_nonzero", None]
    assert [attempt["gpu_indices"] for attempt in shown["attempts"]] == [[1], [2]]
    assert shown["state"] == "running"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
def test_a_body_is_json_whatever_its_type_is_called(api: Any, kind: str | None) -> None:
    job_id = submit(api.daemon)["id"]
    headers = {} if kind is None else {"Content-Type": kind}
    changed = api.daemon.patch(f"/jobs/{job_id}", content=b'{"priority": "low"}', headers=headers)
    assert (changed.status_code, changed.json()["priority"]) == (200, "low")
    paused = api.root.post("/queue/pause", content=b'{"reason": "driver"}', headers=headers)
    assert paused.json()["paused"]["reason"] == "driver"
    assert api.daemon.patch(f"/jobs/{job_id}", content=b"priority=low", headers=headers).status_code == 400

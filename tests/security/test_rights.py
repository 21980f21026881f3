"""What an administrator of GPUQ_ADMINS may do, what nobody else may, and what others see of a job's output."""

from __future__ import annotations

import json
from typing import Any

import pytest
from accounts import Accounts

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB; apikey=SECRET-IN-LINE"


@pytest.fixture(scope="module")
def box(make_module_box: Any) -> Any:
    made = make_module_box()
    made.up()
    return made


def test_no_user_asks_for_a_priority_above_the_highest_in_any_way(box: Any, accounts: Accounts) -> None:
    spec = {"command": ["true"], "gpus": 0, "cwd": "/"}
    for body in ({**spec, "priority": "critical"}, [spec, {**spec, "priority": 0}], {**spec, "priority": "0"}):
        for headers in ({}, {"Idempotency-Key": "k"}):
            refused = box.call(accounts.alice, "POST", "/jobs", body, **headers)
            assert refused.status == 403, body
            assert "priority critical is for administrators" in refused.json["error"]["message"]
            assert "is high" in refused.json["error"]["message"]
    assert box.call(accounts.alice, "POST", "/jobs/check", {**spec, "priority": "critical"}).json["ok"] is False
    assert box.call(accounts.alice, "GET", f"/jobs?user={accounts.alice.name}").json == []
    job = box.submit_as(accounts.alice, "true", hold=True, priority="high")
    for priority in ("critical", 0):
        assert box.call(accounts.alice, "PATCH", f"/jobs/{job}", {"priority": priority}).status == 403
    assert box.call(accounts.admin, "PATCH", f"/jobs/{job}", {"priority": "critical"}).json["priority"] == "critical"
    assert box.call(accounts.admin, "POST", "/jobs", {**spec, "priority": "critical"}).status == 201


def test_the_command_line_says_which_priority_is_the_highest(box: Any, accounts: Accounts) -> None:
    job = box.submit_as(accounts.alice, "true", hold=True)
    for words in (("submit", "-p", "critical", "--", "true"), ("update", str(job), "-p", "critical")):
        assert "the highest for" in box.gpuq_as(accounts.alice, *words, code=4).stderr


def test_a_running_job_is_made_longer_by_an_administrator_and_by_its_owner_at_nobodys_cost(
    box: Any, accounts: Accounts
) -> None:
    job = box.submit_as(accounts.alice, "exec sleep 600", gpus=4, time_limit_s=3600)
    box.until(lambda: box.call(None, "GET", f"/jobs/{job}").json["state"] == "running", "it runs")
    assert box.call(accounts.bob, "PATCH", f"/jobs/{job}", {"time_limit_s": 1}).status == 403
    assert box.call(accounts.alice, "PATCH", f"/jobs/{job}", {"time_add_s": 60}).json["time_limit_s"] == 3660
    waits = box.submit_as(accounts.bob, "true", gpus=1)
    refused = box.call(accounts.alice, "PATCH", f"/jobs/{job}", {"time_add_s": 7200})
    assert (refused.status, refused.json["error"]["code"]) == (409, "refused")
    assert f"job {waits} would start 2h00m later" in refused.json["error"]["message"]
    many = {"ids": [job], "changes": {"time_add_s": 7200}}
    assert box.call(accounts.alice, "POST", "/jobs/update", many).json[0]["error"]["code"] == "refused"
    assert box.call(accounts.admin, "PATCH", f"/jobs/{job}", {"time_add_s": 7200}).json["time_limit_s"] == 10860
    # One that is over already stops it, also through the limits of the supervisor of another user's job.
    assert box.call(accounts.alice, "PATCH", f"/jobs/{job}", {"time_limit_s": 1}).json["time_limit_s"] == 1
    box.until(lambda: box.call(None, "GET", f"/jobs/{job}").json["outcome"] == "time_limit", "it is stopped")
    box.until(lambda: box.call(None, "GET", f"/jobs/{waits}").json["state"] == "completed", "the other has run")


def test_top_passes_nobody_elses_jobs_but_by_an_administrator(box: Any, accounts: Accounts) -> None:
    assert box.call(accounts.admin, "POST", "/queue/pause").status == 200
    whose = (accounts.alice, accounts.bob, accounts.alice, accounts.bob)
    ids = [box.submit_as(one, "true", priority="low") for one in whose]

    def order() -> list[int]:
        return [job["id"] for job in box.call(None, "GET", "/queue").json["jobs"] if job["id"] in ids]

    assert box.call(accounts.bob, "POST", f"/jobs/{ids[3]}/top").status == 200
    assert order() == [ids[0], ids[3], ids[1], ids[2]]
    assert box.call(accounts.bob, "POST", "/jobs/top", {"ids": [ids[1]]}).status == 200
    assert order() == [ids[0], ids[1], ids[3], ids[2]]
    assert box.call(accounts.bob, "POST", f"/jobs/{ids[2]}/top").status == 403
    changes = {"changes": {"name": "mine"}}
    for verb, words in (("hold", {}), ("update", changes), ("cancel", {}), ("top", {})):
        told = box.call(accounts.bob, "POST", f"/jobs/{verb}", {"ids": [ids[0], ids[2]], **words}).json
        assert [item["error"]["code"] for item in told] == ["forbidden"] * 2, verb
    assert box.call(accounts.admin, "POST", f"/jobs/{ids[2]}/top").status == 200
    assert order() == [ids[2], ids[0], ids[1], ids[3]]
    assert box.call(accounts.admin, "POST", "/queue/resume").status == 200


def test_an_administrator_steers_but_reads_no_output(box: Any, accounts: Accounts) -> None:
    job = box.submit_as(accounts.alice, "echo SECRET-OUTPUT; exit 3")
    box.until_state(job, "failed")
    for who in (accounts.admin, accounts.bob, accounts.carol):
        for path in ("log", "log/stream"):
            refused = box.call(who, "GET", f"/jobs/{job}/{path}")
            assert refused.status == 403
            assert "ask its owner, or root" in refused.json["error"]["hint"]
        for path in ("/dlq", f"/dlq/{job}", f"/jobs/{job}", "/history"):
            answer = box.call(who, "GET", path)
            assert answer.status == 200
            assert "SECRET-OUTPUT" not in json.dumps(_without_commands(answer.json))
    for reader in (accounts.alice, None):
        assert box.call(reader, "GET", f"/jobs/{job}/log").body == b"SECRET-OUTPUT\n"
        assert box.call(reader, "GET", f"/dlq/{job}").json["log_tail"] == "SECRET-OUTPUT"
    assert box.call(accounts.admin, "POST", f"/jobs/{job}/retry").status == 200


def test_a_line_that_tells_of_no_gpu_memory_is_shown_to_whom_the_output_is(box: Any, accounts: Accounts) -> None:
    job = box.submit_as(accounts.alice, f"echo '{OOM}'; exit 1", gpus=1)
    shown = box.until_state(job, "failed")
    assert (shown["outcome"], shown["error"]) == ("gpu_oom", "out of GPU memory")
    views = ("job_history", "attempt_history", "dead_letters", "job_events")
    asked = [box.call(accounts.bob, "POST", "/sql", {"query": f"select * from {view}"}) for view in views]
    paths = (f"/jobs/{job}", f"/jobs/{job}/why", "/jobs", "/history", "/dlq", f"/dlq/{job}", "/queue")
    asked += [box.call(accounts.bob, "GET", path) for path in paths]
    for answer in asked:
        assert answer.status == 200
        # The command, which names it here, is everybody's.
        assert "SECRET-IN-LINE" not in json.dumps(_without_commands(answer.json))
    assert OOM in box.call(accounts.alice, "GET", f"/dlq/{job}").json["log_tail"]


def _without_commands(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_commands(one) for name, one in value.items() if name != "command"}
    return [_without_commands(one) for one in value] if isinstance(value, list) else value

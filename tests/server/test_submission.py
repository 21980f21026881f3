from __future__ import annotations

import json
from typing import Any

import pytest

from gpuq.server.http.middleware import MAX_BODY

# What is not stored, but worked out when somebody looks.
OUTLOOK = (
    "position", "reason", "estimated_start", "estimated_end", "estimated_start_range", "estimated_end_range",
)  # fmt: skip


def test_one_spec_answers_one_job_that_is_stored(api: Any) -> None:
    answer = api.daemon.post("/jobs", json={"command": ["true"], "gpus": 2, "priority": "high", "cwd": "/"})
    assert answer.status_code == 201
    job = answer.json()
    assert (job["user"], job["state"], job["gpus"], job["priority"]) == ("daemon", "queued", 2, "high")
    [stored] = api.daemon.get(f"/jobs?ids={job['id']}").json()
    computed = set(OUTLOOK)
    assert {k: v for k, v in job.items() if k not in computed} == {k: v for k, v in stored.items() if k not in computed}


@pytest.mark.parametrize(
    "spec",
    [
        {"command": ["true"], "cwd": "/", "hold": True},
        {"command": ["true"], "cwd": "/", "begin": "2099-01-01T00:00:00Z"},
        {"command": ["/bin/echo", "é"], "cwd": "/", "name": "n", "group": "g", "key": "k", "gpus": 0},
        {"command": ["true"], "cwd": "/", "gpu_mem_mb": 1000, "gpu_ids": [0, 2], "time_limit_s": 90, "max_retries": 0},
        {"command": ["true"], "cwd": "/", "preemptible": True, "signal": "USR1@60", "kill_grace_s": 1.5},
        {"command": ["true"], "cwd": "/", "array": "0-3:2%1", "name": "a"},
    ],
)
def test_the_answer_to_a_submission_says_what_a_later_look_says(api: Any, spec: dict[str, Any]) -> None:
    answered = api.daemon.post("/jobs?outlook=true", json=spec).json()
    first = answered[0] if isinstance(answered, list) else answered
    plain = api.daemon.post("/jobs", json={**spec, "key": None}).json()
    plain = plain[0] if isinstance(plain, list) else plain
    [looked] = api.daemon.get(f"/jobs?ids={plain['id']}").json()
    for name in OUTLOOK:
        looked.pop(name)
        plain.pop(name, None)
    assert plain == looked
    assert set(first) == set(plain) | set(OUTLOOK)
    assert first["reason"] is not None


def test_a_list_is_stored_in_order_and_answers_a_list(api: Any) -> None:
    answer = api.daemon.post("/jobs", json=[{"command": ["true"], "name": f"j{n}"} for n in range(50)])
    assert answer.status_code == 201
    jobs = answer.json()
    assert [job["name"] for job in jobs] == [f"j{n}" for n in range(50)]
    assert [job["id"] for job in jobs] == sorted(job["id"] for job in jobs)


def test_every_job_of_a_mixed_list_is_answered_as_a_later_look_shows_it(api: Any) -> None:
    first = api.daemon.post("/jobs", json={"command": ["first"]}).json()["id"]
    plain = {"command": ["true"], "cwd": "/", "name": "plain"}
    variations = [
        {"command": ["a", "\u00e9\n"], "name": 'quo"ted'},
        {"gpus": 2}, {"gpus": 2, "name": "again"}, {"priority": "low"},
        {"group": "g"}, {"cwd": "/tmp"}, {"hold": True}, {"begin": "2099-01-01T00:00:00Z"}, {"after": [first]},
        {"after_any": [first]}, {"time_limit_s": 5}, {"max_retries": 7}, {"preemptible": True}, {"key": "k"},
        {"gpu_mem_mb": 100}, {"gpu_ids": [0]}, {"gpu_ids": [1]}, {"gpu_model": "sim"}, {"array": "0-1"}, {},
    ]  # fmt: skip
    answered = api.daemon.post("/jobs", json=[plain | changed for changed in variations]).json()
    looked = {job["id"]: job for job in api.daemon.get("/jobs").json()}
    for job in answered:
        for name in OUTLOOK:
            looked[job["id"]].pop(name)
            job.pop(name, None)
        assert job == looked[job["id"]]


def test_jobs_of_a_batch_have_its_environment_under_their_own(api: Any) -> None:
    body = {"env": {"A": "1", "B": "1"}, "jobs": [{"command": ["x"]}, {"command": ["y"], "env": {"B": "2", "C": "2"}}]}
    answer = api.daemon.post("/jobs", json=body)
    assert answer.status_code == 201
    first, second = (job["id"] for job in answer.json())
    with api.ctx.records.read() as tx:
        assert tx.spec(first)[0].env == {"A": "1", "B": "1"}
        assert tx.spec(second)[0].env == {"A": "1", "B": "2", "C": "2"}


@pytest.mark.parametrize(
    ("body", "says", "index"),
    [
        ({"jobs": [{"command": ["x"]}, {"command": []}]}, "item 2 of the list: command: ", 1),
        ({"jobs": [{"command": ["x"], "gpuz": 1}]}, "item 1 of the list: unknown field 'gpuz'", 0),
        ({"jobs": [], "priority": "high"}, "unknown field 'priority'", None),
        ({"jobs": [{"command": ["x"]}], "env": {"": "1"}}, "env: '' is not a valid variable", None),
        ({"jobs": 7}, "jobs: ", None),
    ],
)
def test_a_bad_batch_stores_nothing_and_says_where(api: Any, body: Any, says: str, index: int | None) -> None:
    answer = api.daemon.post("/jobs", json=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert says in error["message"]
    assert error.get("index") == index
    assert api.daemon.get("/jobs").json() == []


def test_one_bad_spec_in_a_list_stores_nothing_and_is_named(api: Any) -> None:
    answer = api.daemon.post("/jobs", json=[{"command": ["true"]}, {"command": ["true"], "gpus": -1}])
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "usage"
    assert error["index"] == 1
    assert error["message"].startswith("item 2 of the list: gpus: ")
    assert api.daemon.get("/jobs").json() == []


def test_an_unknown_field_is_refused_by_name(api: Any) -> None:
    error = api.daemon.post("/jobs", json={"command": ["true"], "gpu": 1}).json()["error"]
    assert "'gpu'" in error["message"]
    assert "gpus" in error["hint"]
    error = api.daemon.post("/jobs", json=[{"command": ["true"], "gpu": 1}]).json()["error"]
    assert error["message"] == "item 1 of the list: unknown field 'gpu'"


def test_an_array_answers_a_list_with_one_array_id(api: Any) -> None:
    jobs = api.daemon.post("/jobs", json={"command": ["true"], "array": "0-3"}).json()
    assert [job["array_index"] for job in jobs] == [0, 1, 2, 3]
    assert {job["array_id"] for job in jobs} == {jobs[0]["id"]}
    stored = api.daemon.get(f"/jobs?array_id={jobs[0]['id']}").json()
    assert [job["id"] for job in stored] == [job["id"] for job in jobs]


def test_two_arrays_in_one_list_keep_their_own_array_ids(api: Any) -> None:
    jobs = api.daemon.post(
        "/jobs",
        json=[{"command": ["a"], "array": "0-1"}, {"command": ["b"]}, {"command": ["c"], "array": "5-6"}],
    ).json()
    looked = api.daemon.get("/jobs").json()
    assert [job["array_id"] for job in jobs] == [job["array_id"] for job in looked]
    assert [job["array_id"] for job in jobs] == [jobs[0]["id"]] * 2 + [None] + [jobs[3]["id"]] * 2


def test_the_same_idempotency_key_returns_the_first_jobs_and_queues_nothing(api: Any) -> None:
    first = api.daemon.post("/jobs", json={"command": ["true"]}, headers={"Idempotency-Key": "abc"})
    again = api.daemon.post("/jobs", json={"command": ["true"]}, headers={"Idempotency-Key": "abc"})
    assert again.json()["id"] == first.json()["id"]
    assert len(api.daemon.get("/jobs").json()) == 1
    other = api.bin.post("/jobs", json={"command": ["true"]}, headers={"Idempotency-Key": "abc"})
    assert other.json()["id"] != first.json()["id"]


def test_an_idempotency_key_that_is_too_long_is_refused(api: Any) -> None:
    answer = api.daemon.post("/jobs", json={"command": ["true"]}, headers={"Idempotency-Key": "k" * 201})
    assert answer.status_code == 422
    assert api.daemon.get("/jobs").json() == []


def test_the_same_key_returns_the_live_job(api: Any) -> None:
    first = api.daemon.post("/jobs", json={"command": ["true"], "key": "k"}).json()
    mixed = api.daemon.post("/jobs", json=[{"command": ["x"]}, {"command": ["true"], "key": "k"}]).json()
    assert mixed[1]["id"] == first["id"]
    assert mixed[0]["id"] > first["id"]


def test_a_user_name_in_the_body_or_a_header_is_not_believed(api: Any) -> None:
    assert api.daemon.post("/jobs", json={"command": ["true"], "user": "root"}).status_code == 422
    answer = api.daemon.post("/jobs", json={"command": ["true"]}, headers={"X-User": "root", "Remote-User": "root"})
    assert answer.json()["user"] == "daemon"


def test_more_gpus_than_the_machine_has_can_never_run(api: Any) -> None:
    answer = api.daemon.post("/jobs", json={"command": ["true"], "gpus": 5})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "constraint"
    assert api.daemon.get("/jobs").json() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[",
        b"[1,",
        b"\xff\xfe",
        b'{"command": ["true"]} x',
        b"nonsense",
        b'{"command": ["\xff"]}',
        b"[" * 5000,
    ],
)
def test_a_body_that_is_not_json_is_a_400(api: Any, body: bytes) -> None:
    answer = api.daemon.post("/jobs", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "malformed"


@pytest.mark.parametrize("body", ["null", "1", '"x"', "{}", "[1]", "[null]", "[[]]", '{"command": []}'])
def test_json_of_another_shape_is_a_422(api: Any, body: str) -> None:
    answer = api.daemon.post("/jobs", content=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "usage"


def test_an_empty_list_queues_nothing(api: Any) -> None:
    answer = api.daemon.post("/jobs", json=[])
    assert answer.status_code == 201
    assert answer.json() == []


def test_a_body_larger_than_the_limit_is_a_413(api: Any) -> None:
    answer = api.daemon.post("/jobs", content=b" " * (MAX_BODY + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_a_body_without_an_announced_length_is_limited_too(api: Any) -> None:
    def pieces() -> Any:
        for _ in range(MAX_BODY // (1 << 20) + 1):
            yield b" " * (1 << 20)

    answer = api.daemon.post("/jobs", content=pieces())
    assert answer.status_code == 413
    answer = api.daemon.post("/jobs/check", content=pieces())
    assert answer.status_code == 413


def test_text_of_any_script_survives(api: Any) -> None:
    name = "模型 ñ \U0001f600"
    job = api.daemon.post("/jobs", content=json.dumps({"command": ["echo", name], "name": name})).json()
    assert api.daemon.get(f"/jobs/{job['id']}").json()["command"] == ["echo", name]
    assert job["name"] == name


def test_check_says_yes_and_queues_nothing(api: Any) -> None:
    answer = api.daemon.post("/jobs/check", json={"command": ["true"]})
    assert answer.status_code == 200
    assert answer.json()["ok"] is True
    assert answer.json()["reason"] is None
    assert api.daemon.get("/jobs").json() == []


def test_check_says_no_with_the_reason(api: Any) -> None:
    answer = api.daemon.post("/jobs/check", json={"command": ["true"], "gpus": 9}).json()
    assert answer["ok"] is False
    assert answer["reason"]["code"] == "constraint"
    assert "9 GPUs" in answer["reason"]["text"]


def test_check_refuses_what_is_malformed(api: Any) -> None:
    answer = api.daemon.post("/jobs/check", json={"command": ["true"], "gpus": "many"})
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith("gpus: ")


def test_an_idempotency_key_used_for_another_submission_is_refused(api: Any) -> None:
    key = {"Idempotency-Key": "abc"}
    first = api.daemon.post("/jobs", json={"command": ["true"]}, headers=key).json()
    other = api.daemon.post("/jobs", json={"command": ["false"]}, headers=key)
    assert other.status_code == 409
    error = other.json()["error"]
    assert f"used for another submission (job {first['id']})" in error["message"]
    assert "new Idempotency-Key" in error["hint"]
    assert api.daemon.post("/jobs", json={"command": ["true"]}, headers=key).json()["id"] == first["id"]
    assert len(api.root.get("/jobs").json()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"cwd": "/a\0b"}, {"gpu_model": "H\0"}, {"begin": "2099-01-01\0"}, {"array": "0-3\0"}, {"key": "k\0"},
        {"group": "g\0"}, {"name": "n\0"}, {"env": {"A": "\0"}}, {"env": {"A\0": ""}}, {"signal": "USR1@60\0"},
        {"priority": "low\0"}, {"command": ["a\0"]},
    ],
)  # fmt: skip
def test_a_nul_byte_is_refused_in_every_text(api: Any, fields: dict[str, Any]) -> None:
    spec = {"command": ["true"], "cwd": "/", **fields}
    for answer in (api.daemon.post("/jobs", json=spec), api.daemon.post("/jobs", json={"jobs": [spec]})):
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["code"] == "usage"
    assert api.daemon.get("/jobs").json() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("gpus", value) for value in (True, "1", 2.0)), ("gpu_mem_mb", "1000"), ("gpu_ids", [True]),
        ("max_retries", "3"), ("max_retries", False), ("after", ["1"]), ("after_any", [1.0]), ("hold", 1),
        ("preemptible", "yes"), *((name, value) for name in ("time_limit_s", "kill_grace_s") for value in (True, "60")),
        ("begin", True),
    ],
)  # fmt: skip
def test_what_is_only_like_the_right_type_is_refused_by_name(api: Any, field: str, value: object) -> None:
    answer = api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/", field: value})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"].partition(":")[0].partition(".")[0] == field


@pytest.mark.parametrize("seconds", [60, 60.5])
def test_seconds_are_whole_or_not(api: Any, seconds: float) -> None:
    spec = {"command": ["true"], "cwd": "/", "time_limit_s": seconds, "kill_grace_s": seconds, "begin": seconds}
    answer = api.daemon.post("/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    assert answer.json()["time_limit_s"] == seconds


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"gpus": 9}, 422, "the job asks for 9 GPUs; this machine has 4"),
        ({"after": [999]}, 404, "cannot wait for job 999: no such job"),
        ({"cwd": "here"}, 422, "cwd: 'here' is not an absolute path"),
        ({"begin": "soon"}, 422, "begin: 'soon' is not a time"),
        ({"key": "k"}, 422, "key 'k' is used twice in one submission"),
        ({"array": "5-1"}, 422, "bad array '5-1'"),
    ],
)
def test_what_is_wrong_with_an_item_only_here_names_the_item_too(
    api: Any, fields: dict[str, Any], status: int, says: str
) -> None:
    plain = {"command": ["true"], "cwd": "/", "gpus": 0}
    specs = [{**plain, "key": "k"}, {**plain, **fields}]
    for body in (specs, {"jobs": specs}):
        answer = api.daemon.post("/jobs", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["index"]) == (status, 1)
        assert error["message"].startswith(f"item 2 of the list: {says}")
    assert api.daemon.get("/jobs").json() == []
    alone = api.daemon.post("/jobs", json={**plain, "gpus": 9}).json()["error"]
    assert alone["message"].startswith("the job asks")
    assert "index" not in alone


@pytest.mark.parametrize("field", ["after", "after_any", "gpu_ids"])
@pytest.mark.parametrize("number", [2**63, 10**30, -1])
def test_a_number_that_no_database_holds_is_refused_by_name(api: Any, field: str, number: int) -> None:
    answer = api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/", "hold": True, "gpus": 0, field: [number]})
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(f"{field}.0: ")


def test_outlook_is_true_or_false(api: Any) -> None:
    for word, status in {"true": 201, "1": 201, "no": 201, "maybe": 422, "": 422}.items():
        answer = api.daemon.post("/jobs", params={"outlook": word}, json={"command": ["true"], "cwd": "/"})
        assert answer.status_code == status, word

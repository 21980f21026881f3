"""Sweeps: a job for each combination of values."""

from __future__ import annotations

from typing import Any

import pytest

SPEC = {"command": ["train", "--lr={lr}", "{seed}", "{{lr}}", "{other}", "a}b"], "cwd": "/", "gpus": 0}


def queued(api: Any, **fields: Any) -> list[Any]:
    answer = api.daemon.post("/jobs", json={**SPEC, **fields})
    assert answer.status_code == 201, answer.text
    return list(answer.json())


def test_a_sweep_is_an_array_over_the_product(api: Any) -> None:
    jobs = queued(api, sweep={"lr": "1e-3,1e-4", "seed": "0..2"}, name="run {lr}/{seed} {index}")
    assert [job["parameters"] for job in jobs] == [
        {"lr": lr, "seed": seed} for lr in ("1e-3", "1e-4") for seed in ("0", "1", "2")
    ]
    assert jobs[1]["command"] == ["train", "--lr=1e-3", "1", "{lr}", "{other}", "a}b"]
    assert (jobs[5]["name"], jobs[5]["array_index"]) == ("run 1e-4/2 5", 5)
    assert {job["array_id"] for job in jobs} == {jobs[0]["id"]}
    for job in jobs:
        looked = api.daemon.get(f"/jobs/{job['id']}").json()
        assert {name: looked[name] for name in ("command", "parameters", "name")} == {
            name: job[name] for name in ("command", "parameters", "name")
        }
    with api.ctx.records.read() as reader:
        assert [reader.spec(job["id"])[0].sweep is None for job in jobs] == [False, *[True] * 5]
    rows = api.root.post("/sql", json={"query": "select * from job_parameters where job_id = 2 order by name"}).json()
    assert (rows["columns"], rows["rows"]) == (["job_id", "name", "value"], [[2, "lr", "1e-3"], [2, "seed", "1"]])


def test_without_a_sweep_braces_are_left_alone(api: Any) -> None:
    answer = api.daemon.post("/jobs", json=SPEC).json()
    assert (answer["command"], answer["parameters"]) == (SPEC["command"], None)


def test_values_may_be_a_list_of_texts_and_numbers(api: Any) -> None:
    jobs = queued(api, sweep={"lr": ["a,b", "", 3, 0.5]})
    assert [job["parameters"]["lr"] for job in jobs] == ["a,b", "", "3", "0.5"]
    assert [job["name"] for job in jobs] == ["train lr=a,b", "train lr=", "train lr=3", "train lr=0.5"]


def test_an_array_beside_a_sweep_has_an_index_for_each(api: Any) -> None:
    jobs = queued(api, sweep={"lr": "1,2,3"}, array="1-5:2%1")
    assert [(job["array_index"], job["parameters"]["lr"]) for job in jobs] == [(1, "1"), (3, "2"), (5, "3")]
    answer = api.daemon.post("/jobs", json={**SPEC, "sweep": {"lr": "1,2"}, "array": "0-2"})
    assert (answer.status_code, "3 indices, and the sweep 2" in answer.text) == (422, True)


def test_a_sweep_or_one_element_of_it_again(api: Any) -> None:
    first = queued(api, sweep={"lr": "1,2", "seed": "7,8"})[0]["id"]

    def again(job_id: int, **changes: Any) -> list[Any]:
        answer = api.daemon.post(f"/jobs/{job_id}/again", json=changes)
        assert answer.status_code == 201, answer.text
        return [(job["array_index"], job["parameters"], job["command"][1]) for job in answer.json()]

    assert len(again(first)) == 4
    assert again(first + 2) == [(2, {"lr": "2", "seed": "7"}, "--lr=2")]
    assert again(first, array="0") == [(0, {"lr": "1", "seed": "7"}, "--lr=1")]
    assert again(first + 2, sweep={"lr": "5"}) == [(0, {"lr": "5"}, "--lr=5")]


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({}, "sweep"),
        ({"1a": "1"}, "'1a' is no name"),
        ({"a b": "1"}, "'a b' is no name"),
        ({"lr": ""}, "lr has an empty value"),
        ({"lr": "1,,2"}, "lr has an empty value"),
        ({"lr": []}, "lr has no values"),
        ({"lr": 3}, "lr has no values"),
        ({"lr": "4..0"}, "goes down"),
        ({"lr": "0..999999999"}, "more than"),
        ({"lr": "1,1"}, "appears twice"),
        ({"lr": ["a\nb"]}, "no line"),
        ({"lr": ["a\0b"]}, "no line"),
        ({"lr": [None]}, "neither text nor a number"),
        ({"lr": [True]}, "neither text nor a number"),
        ([1], "sweep"),
    ],
)
def test_a_bad_sweep_is_refused_in_one_line(api: Any, sweep: Any, says: str) -> None:
    answer = api.daemon.post("/jobs", json={**SPEC, "sweep": sweep})
    assert answer.status_code == 422
    message = answer.json()["error"]["message"]
    assert message.startswith("sweep")
    assert says in message
    assert "\n" not in message


def test_a_sweep_of_too_many_elements_is_refused_unfolded_by_nobody(api: Any) -> None:
    sweep = dict.fromkeys("abcdefgh", "0..999")
    answer = api.daemon.post("/jobs", json={**SPEC, "sweep": sweep})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_name_that_the_values_make_too_long_is_refused(api: Any) -> None:
    answer = api.daemon.post("/jobs", json={**SPEC, "name": "{lr}", "sweep": {"lr": ["x" * 201]}})
    assert (answer.status_code, "name: " in answer.text) == (422, True)


def test_a_sweep_can_carry_no_key(api: Any) -> None:
    answer = api.daemon.post("/jobs", json={**SPEC, "key": "k", "sweep": {"lr": "1"}})
    assert (answer.status_code, "cannot carry one" in answer.text) == (422, True)

"""The least and the most of every field of a submission, and what is said beyond."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.priority import MAX_TIME_LIMIT_S, Priority
from gpuq.domain.spec import Batch, JobSpec
from gpuq.errors import UsageError

FORM = "has a form or characters that are not possible here"
LEAST_AND_MOST: list[tuple[str, list[Any], list[Any]]] = [
    ("gpus", [0, 1, 1024], [-1, 1025, 1.0, "1", True]),
    ("gpu_mem_mb", [1], [0, -1, 2.5]),
    ("gpu_ids", [[0], [0, 7]], [[-1], ["0"]]),
    ("time_limit_s", [0.5, 1, MAX_TIME_LIMIT_S], [0, -1, MAX_TIME_LIMIT_S + 1, "60"]),
    ("max_retries", [0, 1000], [-1, 1001]),
    ("kill_grace_s", [0, 86400], [-0.5, 86401]),
    ("key", ["k", "k" * 200], ["", "k" * 201]),
    ("name", ["n", "n" * 200], ["", "n" * 201]),
    ("hold", [True, False], [1, "yes"]),
    ("preemptible", [True, False], [0, "no"]),
    ("command", [["x"] * 10_000], [[], ["x"] * 10_001]),
    ("priority", [0, 3, Priority.HIGH], [4, -1, False, 1.0, None]),
    ("signal", ["USR1@60", "SIGTERM", "HUP"], ["KILL", "STOP@1", "SIGKILL@3", "USR1@", "USR1@x"]),
    ("script", ["true", "#!/bin/sh\ntrue\n"], ["", " \n", "a\0", "#!/bin/sh\r\ntrue\r\n"]),
    ("env", [{"A": ""}, {"A": "b=c"}], [{"": "x"}, {"A\0": "x"}, {"A": "\0"}, {"A=B": ""}]),
]


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, good, _ in LEAST_AND_MOST for value in good])
def test_the_least_and_the_most_are_taken(field: str, value: Any) -> None:
    assert getattr(JobSpec.parse({"command": ["true"], field: value}), field) == value


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, _, bad in LEAST_AND_MOST for value in bad])
def test_one_beyond_is_refused_in_the_name_of_its_field(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        JobSpec.parse({"command": ["true"], field: value})


def test_what_a_submission_does_not_say_is_the_plainest_value() -> None:
    assert JobSpec.parse({"command": ["x"]}).model_dump() == {
        "command": ["x"], "name": None, "cwd": None, "env": {}, "gpus": 1, "gpu_mem_mb": None, "gpu_model": None,
        "gpu_ids": None, "priority": Priority.NORMAL, "group": None, "time_limit_s": None, "max_retries": None,
        "after": [], "after_any": [], "begin": None, "array": None, "hold": False, "key": None, "preemptible": False,
        "signal": None, "kill_grace_s": None, "script": None, "sweep": None,
        "requeue": False, "keep_waiting": False, "secrets": {}, "umask": None, "limits": {}, "nice": None,
    }  # fmt: skip


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        JobSpec.parse({"command": ["x"]}).gpus = 2  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        Batch(jobs=[]).env = {}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (
            {"command": ["x"], "signal": "usr1"},
            f"signal: {FORM}",
            "USR1@60",
        ),
        ({"command": ["x"], "name": "a\nb"}, f"name: {FORM}", "1 to 200"),
        ({"command": ["x"], "cwd": "a\0"}, f"cwd: {FORM}", "NUL"),
        ({"command": ["x"], "begin": []}, "begin: must be a number", None),
        ({"command": ["x"], "gpu_ids": [0, -1]}, "gpu_ids.1: must be at least 0", None),
        ({"command": ["x"], "gpus": 2000}, "gpus: must be at most 1024", None),
        ({"command": [""]}, "command: the program's name is empty", None),
        ([], "must be an object", None),
    ],
)
def test_a_refusal_names_the_place_and_the_rule(data: Any, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        JobSpec.parse(data)
    assert caught.value.message == message
    if hint is None:
        assert caught.value.hint is None
    else:
        assert hint in (caught.value.hint or "")


def test_a_stored_nul_byte_is_left_out() -> None:
    assert JobSpec.from_stored({"command": ["x"], "cwd": "/a\0b", "new": "\0"}).cwd == "/ab"


def test_a_batchs_environment_lies_under_that_of_each_job() -> None:
    jobs = [JobSpec(command=["x"], env={"B": "own"}), JobSpec(command=["y"])]
    assert [spec.env for spec in Batch(jobs=jobs, env={"A": "1", "B": "2"}).specs()] == [
        {"A": "1", "B": "own"},
        {"A": "1", "B": "2"},
    ]
    assert Batch(jobs=jobs).specs() == jobs
    with pytest.raises(ValueError, match="not a valid variable"):
        Batch(jobs=[], env={"": "x"})
    with pytest.raises(ValueError, match="not permitted"):
        Batch.model_validate({"jobs": [], "more": 1})

"""The answer to a submission is made from a form that jobs share: whatever they differ in must not be shared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpuq.domain.job import JobView
from gpuq.domain.priority import Priority
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.ports.records import NewJob
from gpuq.server.routes.submission_response import SubmissionEncoder

SPEC: dict[str, Any] = {"command": ["true"]}
OTHER_SPEC: dict[str, Any] = {
    "command": ["false"], "gpus": 2, "gpu_mem_mb": 7, "gpu_model": "a100", "gpu_ids": [1], "priority": Priority.LOW,
    "group": "g", "time_limit_s": 5.0, "after": [1], "after_any": [2], "key": "k", "preemptible": True,
}  # fmt: skip
ROW: dict[str, Any] = {
    "user": "anna", "uid": 1, "gid": 1, "name": "n", "cwd": "/", "state": JobState.QUEUED, "score": 1.0,
    "max_retries": 3, "submitted_at": 1e9,
}  # fmt: skip
OTHER_ROW: dict[str, Any] = {
    "user": "ben", "name": "m", "cwd": "/tmp", "state": JobState.HELD, "max_retries": 4, "submitted_at": 2e9,
    "eligible_at": 3e9, "array_index": 6, "parameters": (("lr", "1"),),
}  # fmt: skip
# Written later, by what happens to the job.
LATER = {
    "reason", "outcome", "retries_used", "attempt", "started_at", "finished_at", "stop_deadline", "position",
    "estimated_start", "estimated_end", "progress", "node", "gpu_indices", "gpu_uuids", "pid", "exit_code", "signal",
    "error", "peak_gpu_mem_mb", "log_path", "short_result", "result_bytes", "result_type",
    "estimated_start_range", "estimated_end_range",
}  # fmt: skip


def _new(spec: dict[str, Any], row: dict[str, Any]) -> NewJob:
    return NewJob(JobSpec(**{**SPEC, **spec}), **{**ROW, **row})


def test_every_name_of_a_jobs_json_is_in_a_variation_or_comes_later() -> None:
    assert set(JobView.__annotations__) == {"id", "array_id"} | OTHER_SPEC.keys() | OTHER_ROW.keys() | LATER


@pytest.mark.parametrize("name", [*OTHER_SPEC, *OTHER_ROW])
def test_jobs_that_differ_in_one_field_are_answered_with_their_own(name: str) -> None:
    encoder = SubmissionEncoder()
    plain = json.loads(encoder.fill_in(1, _new({}, {}), None))
    changed = _new(
        {n: OTHER_SPEC[n] for n in OTHER_SPEC if n == name}, {n: OTHER_ROW[n] for n in OTHER_ROW if n == name}
    )
    answered = json.loads(encoder.fill_in(2, changed, None))
    assert {field for field in answered if answered[field] != plain[field]} == {"id", name}
    assert json.loads(encoder.fill_in(1, _new({}, {}), None)) == plain


def test_no_gpus_named_and_an_empty_list_of_them_are_told_apart() -> None:
    encoder = SubmissionEncoder()
    assert json.loads(encoder.fill_in(1, _new({}, {}), None))["gpu_ids"] is None
    assert json.loads(encoder.fill_in(2, _new({"gpu_ids": []}, {}), None))["gpu_ids"] == []


def test_the_id_of_an_array_is_that_of_its_own_jobs() -> None:
    encoder = SubmissionEncoder()
    answers = [json.loads(encoder.fill_in(n, _new({}, {}), array))["array_id"] for n, array in ((1, None), (2, 2))]
    assert answers == [None, 2]


def test_only_what_may_be_null_is_null_in_the_answer_and_all_is_in_order() -> None:
    answer = json.loads(SubmissionEncoder().fill_in(1, _new({"signal": "USR1@60"}, {}), None))
    assert list(answer) == list(JobView.__annotations__)
    assert all("None" in str(JobView.__annotations__[name]) for name, value in answer.items() if value is None)
    assert answer["signal"] is None

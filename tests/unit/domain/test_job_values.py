"""A job, an attempt and an event as everybody gets them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from gpuq.domain.events import Event
from gpuq.domain.gpu import Gpu, GpuProcess
from gpuq.domain.job import Attempt, Job, JobStatus, job_json
from gpuq.domain.priority import Priority
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.domain.states import JobState

TIMES = {"submitted_at": 1.0, "eligible_at": 2.0, "started_at": 3.0, "finished_at": 4.0, "stop_deadline": 5.0}


def job(**facts: Any) -> Job:
    plain: dict[str, Any] = dict.fromkeys((field.name for field in fields(Job)), None)
    plain |= {"id": 7, "state": JobState.QUEUED, "priority": Priority.HIGH, "command": ("a", "b"), "submitted_at": 1.0}
    plain |= {"after": (1,), "after_any": (2, 3)}
    return Job(**{**plain, **facts})


def test_a_job_has_its_times_as_text_and_its_tuples_as_lists() -> None:
    found = job_json(job(**TIMES, gpu_ids=(0, 1), gpu_indices=(2,), gpu_uuids=("u",)))
    assert {name: found[name] for name in TIMES} == {
        name: f"1970-01-01T00:00:0{int(at)}.000Z" for name, at in TIMES.items()
    }
    assert (found["gpu_ids"], found["gpu_indices"], found["gpu_uuids"]) == ([0, 1], [2], ["u"])
    assert (found["command"], found["after"], found["after_any"]) == (["a", "b"], [1], [2, 3])
    assert found["priority"] == "high"


def test_what_a_job_does_not_have_is_null() -> None:
    found = job_json(job())
    absent = (
        "gpu_ids",
        "gpu_indices",
        "gpu_uuids",
        "reason",
        "position",
        "estimated_start",
        "estimated_end",
        "estimated_start_range",
        "estimated_end_range",
        "progress",
    )
    assert [found[name] for name in absent] == [None] * len(absent)
    assert [found[name] for name in TIMES] == ["1970-01-01T00:00:01.000Z", None, None, None, None]
    assert job_json(job(gpu_ids=(), gpu_indices=(), gpu_uuids=()))["gpu_ids"] == []


def test_every_field_that_is_no_secret_is_passed_on_as_it_is() -> None:
    same = (
        "name", "user", "group", "state", "outcome", "cwd", "gpus", "gpu_mem_mb", "gpu_model", "time_limit_s",
        "max_retries", "retries_used", "attempt", "array_id", "array_index", "key", "preemptible", "node", "pid",
        "exit_code", "signal", "error", "peak_gpu_mem_mb", "log_path",
    )  # fmt: skip
    values = {name: f"<{name}>" for name in same}
    found = job_json(job(**values, token="secret"))
    assert {name: found[name] for name in same} == values
    assert "token" not in found


def test_the_outlook_of_a_job_is_part_of_it() -> None:
    reason = Reason(ReasonCode.HELD_BY_USER, "ann holds it")
    found = job_json(job(), JobStatus(3, reason, 10.0, 20.5, 0.25, (9.0, 12.5), (19.0, 30.0)))
    assert found["reason"] == {"code": "HeldByUser", "text": "ann holds it"}
    assert (found["position"], found["progress"]) == (3, 0.25)
    assert found["estimated_start"] == "1970-01-01T00:00:10.000Z"
    assert found["estimated_end"] == "1970-01-01T00:00:20.500Z"
    assert found["estimated_start_range"] == ["1970-01-01T00:00:09.000Z", "1970-01-01T00:00:12.500Z"]
    assert found["estimated_end_range"] == ["1970-01-01T00:00:19.000Z", "1970-01-01T00:00:30.000Z"]


def test_an_attempt_and_an_event_have_their_times_as_text() -> None:
    plain: dict[str, Any] = dict.fromkeys((field.name for field in fields(Attempt)), None)
    attempt = Attempt(**{**plain, "number": 2, "gpu_indices": (1,), "gpu_uuids": ("u",), "started_at": 1.0, "pid": 9})
    found = attempt.to_json()
    assert (found["number"], found["gpu_indices"], found["gpu_uuids"], found["pid"]) == (2, [1], ["u"], 9)
    assert (found["started_at"], found["finished_at"]) == ("1970-01-01T00:00:01.000Z", None)
    assert replace(attempt, finished_at=2.0).to_json()["finished_at"] == "1970-01-01T00:00:02.000Z"
    event = Event(1, 2.0, 3, None, None, JobState.QUEUED, "ann", "why")
    assert event.to_json() == {
        "id": 1, "at": "1970-01-01T00:00:02.000Z", "job_id": 3, "attempt": None, "from_state": None,
        "to_state": JobState.QUEUED, "actor": "ann", "detail": "why",
    }  # fmt: skip


def test_a_gpu_is_real_and_a_process_on_it_computes_unless_said() -> None:
    gpu = Gpu(0, "u", "m", 1)
    assert (gpu.parent, gpu.numa_node, gpu.links, gpu.simulated) == (None, None, {}, False)
    assert GpuProcess(1) == GpuProcess(1, None, None, None, graphics=False)

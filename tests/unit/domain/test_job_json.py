"""The JSON of a job, against answers that were recorded: its names, their order, and which are null in which state."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic_core import to_json

from gpuq.domain.events import Event, EventView
from gpuq.domain.job import Attempt, AttemptView, Job, JobStatus, JobView, job_json
from gpuq.domain.outcome import Outcome
from gpuq.domain.priority import Priority
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.domain.states import JobState

RECORDED = Path(__file__).parent / "data" / "answers.json"
AT = 1_790_000_000.25

WAITING_JOB = Job(
    id=7, name="train é", user="anna", uid=1001, group=None, state=JobState.QUEUED, priority=Priority.NORMAL, score=1.0,
    command=("python", "train.py", "--x=1"), cwd="/home/anna", gpus=2, gpu_mem_mb=None, gpu_model=None, gpu_ids=None,
    time_limit_s=None, max_retries=3, retries_used=0, lost_count=0, attempt=0, token=None, key=None, preemptible=False,
    array_id=None, array_index=None, array_limit=None, after=(), after_any=(), submitted_at=AT, eligible_at=None,
    held_by=None, stop_reason=None, stop_deadline=None, started_at=None, finished_at=None, outcome=None, exit_code=None,
    signal=None, error=None, node=None, gpu_indices=None, gpu_uuids=None, pid=None, log_path=None, run_dir=None,
    peak_gpu_mem_mb=None,
)  # fmt: skip
RUN: dict[str, Any] = {
    "attempt": 2, "retries_used": 1, "started_at": AT + 60, "node": "box", "gpu_indices": (0, 3), "pid": 4242,
    "gpu_uuids": ("GPU-a", "GPU-d"), "log_path": "/var/log/7.log", "peak_gpu_mem_mb": 812,
}  # fmt: skip
ASKED: dict[str, Any] = {
    "group": "g", "gpu_mem_mb": 1000, "gpu_model": "a100", "gpu_ids": (0, 3), "time_limit_s": 90.5, "key": "k",
    "preemptible": True, "array_id": 5, "array_index": 2, "after": (1, 2), "after_any": (3,), "priority": Priority.HIGH,
}  # fmt: skip
LEFT: dict[str, Any] = {"short_result": "loss 0.1", "result_bytes": 3, "result_type": "image/png"}
CASES: dict[str, tuple[dict[str, Any], JobStatus]] = {
    "blocked": ({**ASKED}, JobStatus(reason=Reason(ReasonCode.DEPENDENCY, "waits for job 1 (running)"))),
    "held": ({"held_by": "admin"}, JobStatus(reason=Reason(ReasonCode.HELD_BY_ADMIN, "held by an administrator"))),
    "delayed": ({"eligible_at": AT + 30}, JobStatus(reason=Reason(ReasonCode.RETRY_BACKOFF, "next in 30s"))),
    # Retried by a release that knew of no results: what it left before is not that of its next end.
    "queued": ({**LEFT}, JobStatus(3, Reason(ReasonCode.PRIORITY, "others first"), AT + 5, AT + 65)),
    "starting": ({**RUN, "started_at": None, "pid": None}, JobStatus(reason=Reason(ReasonCode.STARTING, "launching"))),
    "running": ({**RUN, **ASKED}, JobStatus(estimated_end=AT + 500, progress=0.25)),
    "stopping": ({**RUN, "stop_reason": "cancel", "stop_deadline": AT + 90}, JobStatus(estimated_end=AT + 90)),
    "completed": (
        {**RUN, **LEFT, "finished_at": AT + 99, "outcome": Outcome.SUCCEEDED, "exit_code": 0},
        JobStatus(),
    ),
    "failed": (
        {**RUN, "finished_at": AT + 99, "outcome": Outcome.SIGNAL, "signal": 11, "error": "SIGSEGV"},
        JobStatus(),
    ),
    "cancelled": ({"finished_at": AT + 99, "outcome": Outcome.CANCELLED}, JobStatus()),
}  # fmt: skip
ATTEMPT = Attempt(
    job_id=7, number=2, token="t", node="box", boot_id="b", gpu_indices=(0, 3), gpu_uuids=("GPU-a", "GPU-d"),
    gpu_mem_mb=1000, run_dir="/run/7", log_path="/var/log/7.log", claimed_at=AT, started_at=AT + 1, finished_at=None,
    supervisor_pid=41, supervisor_start=1, pid=42, pid_start=2, outcome=None, exit_code=None, signal=None, error=None,
    peak_gpu_mem_mb=812, avg_gpu_util=0.5,
)  # fmt: skip
EVENT = Event(9, AT, 7, 2, JobState.STARTING, JobState.RUNNING, "gpuq", None)


def _answers() -> dict[str, str]:
    jobs = {
        state: to_json(job_json(dataclasses.replace(WAITING_JOB, state=JobState(state), **fields), status)).decode()
        for state, (fields, status) in CASES.items()
    }
    return {
        **jobs,
        "attempt": to_json(ATTEMPT.to_json()).decode(),
        "attempt ended": to_json(
            dataclasses.replace(ATTEMPT, finished_at=AT + 9, outcome=Outcome.EXIT_NONZERO, exit_code=1).to_json()
        ).decode(),
        "event": to_json(EVENT.to_json()).decode(),
        "first event": to_json(dataclasses.replace(EVENT, attempt=None, from_state=None).to_json()).decode(),
    }


@pytest.mark.parametrize("name", [*JobState, "attempt", "attempt ended", "event", "first event"])
def test_the_json_is_the_recorded_one_byte_for_byte(name: str) -> None:
    assert _answers()[name] == json.loads(RECORDED.read_text())[name]


def test_the_answers_keep_to_their_types_and_to_the_order_in_these() -> None:
    for state in JobState:
        answer = json.loads(_answers()[state])
        assert list(answer) == list(JobView.__annotations__)
        TypeAdapter(JobView).validate_json(_answers()[state])
    TypeAdapter(AttemptView).validate_json(_answers()["attempt ended"])
    TypeAdapter(EventView).validate_json(_answers()["first event"])

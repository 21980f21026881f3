"""What `Job.result` makes of a job that has ended."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq import Forbidden, GpuOutOfMemory, Job, JobCancelled, JobFailed, JobLost, NotFound, TimeLimit
from gpuq.domain.results import PYTHON_TYPE
from gpuq.functions import call
from gpuq.python_values import VALUE, pack


class Played:
    """A client that has one job and its result."""

    def __init__(self, data: bytes = b"", **job: Any) -> None:
        self.data = data
        values = {"id": 7, "name": "fit", "user": "alice", "state": "completed", "outcome": "succeeded", **job}
        self.made = Job.from_json(values, self)  # type: ignore[arg-type]
        self.waited: list[float | None] = []

    def job(self, job_id: int) -> Job:
        return self.made

    def wait(self, *jobs: int, timeout_s: float | None = None) -> list[Job]:
        self.waited.append(timeout_s)
        return [Job.from_json({"id": 7, "state": "completed", "result_bytes": 1}, self)]  # type: ignore[arg-type]

    def result(self, job_id: int) -> bytes:
        return self.data

    def user(self) -> str:
        return "alice"


def test_bytes_of_a_program_are_bytes_and_the_value_of_a_function_is_itself() -> None:
    assert Played(b"png", result_bytes=3, result_type="image/png").made.result() == b"png"
    data = pack(VALUE, {"loss": 0.1})
    assert Played(data, result_bytes=len(data), result_type=PYTHON_TYPE).made.result() == {"loss": 0.1}
    assert call.PYTHON_TYPE == PYTHON_TYPE


def test_a_job_that_has_not_ended_is_waited_for() -> None:
    client = Played(b"x", state="running", outcome=None)
    assert client.made.result(timeout_s=5) == b"x"
    assert client.waited == [5]


def test_a_value_of_somebody_else_is_never_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pickle.loads", None)
    data = pack(VALUE, 1)
    with pytest.raises(Forbidden, match="a Python value of mallory"):
        Played(data, user="mallory", result_bytes=len(data), result_type=PYTHON_TYPE).made.result()


@pytest.mark.parametrize(
    ("outcome", "facts", "kind", "code"),
    [
        ("exit_nonzero", {"exit_code": 3}, JobFailed, 3),
        ("signal", {"signal": 11}, JobFailed, 139),
        ("launch_error", {}, JobFailed, 1),
        ("time_limit", {"signal": 15}, TimeLimit, 124),
        ("gpu_oom", {"exit_code": 1}, GpuOutOfMemory, 1),
        ("lost", {}, JobLost, 1),
        ("cancelled", {"state": "cancelled", "signal": 9}, JobCancelled, 125),
    ],
)
def test_a_job_that_did_not_succeed_is_an_error_by_its_outcome(
    outcome: str, facts: dict[str, Any], kind: type[JobFailed], code: int
) -> None:
    with pytest.raises(kind) as raised:
        Played(**{"state": "failed", "outcome": outcome, "error": "why", "result_bytes": 3, **facts}).made.result()
    assert (type(raised.value), raised.value.exit_code) == (kind, code)
    assert (raised.value.job_id, raised.value.outcome) == (7, outcome)
    assert str(raised.value).startswith("job 7 (fit) ")


def test_what_was_not_kept_is_told() -> None:
    event = {"at": "2026-11-22T10:00:00Z", "job_id": 7, "to_state": "completed"}
    told = {**event, "detail": "succeeded; the result was not kept: too large"}
    with pytest.raises(NotFound, match=r"left no result: the result was not kept: too large"):
        Played(events=[told]).made.result()
    with pytest.raises(NotFound, match=r"left no result$"):
        Played(events=[{**event, "detail": "succeeded"}]).made.result()

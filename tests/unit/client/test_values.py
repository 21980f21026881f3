"""The values that the queue answers, made from JSON of this server, an older and a newer one."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gpuq import Attempt, Event, Gpu, GpuqError, Job, Queue, Reason, UsageError, Why

JOB: dict[str, Any] = {
    "id": 7,
    "state": "running",
    "command": ["python", "train.py"],
    "gpu_indices": [0, 1],
    "reason": {"code": "Resources", "text": "not enough GPUs are free"},
    "submitted_at": "2026-11-22T10:00:00.123Z",
    "finished_at": None,
    "attempts": [{"number": 1, "started_at": "2026-11-22T10:00:01.000Z", "gpu_uuids": ["GPU-a"]}],
    "events": [{"id": 3, "at": "2026-11-22T10:00:00.123Z", "job_id": 7, "to_state": "queued", "actor": "alice"}],
}


def test_a_job_is_made_of_its_json_with_all_that_is_in_it() -> None:
    job = Job.from_json(JOB)
    assert (job.id, job.command, job.gpu_indices) == (7, ("python", "train.py"), (0, 1))
    assert job.submitted_at == datetime(2026, 11, 22, 10, 0, 0, 123000, UTC)
    assert job.submitted_at.utcoffset() == timedelta(0)
    assert job.reason == Reason(code="Resources", text="not enough GPUs are free")
    assert job.attempts == (
        Attempt(number=1, started_at=datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC), gpu_uuids=("GPU-a",)),
    )
    assert isinstance(job.events[0], Event)
    assert job.events[0].from_state is None


def test_fields_of_a_newer_server_are_kept() -> None:
    job = Job.from_json({**JOB, "mood": "good", "extra": 1, "attempts": [{"number": 1, "watts": 300}]})
    assert job.extra == {"mood": "good", "extra": 1}
    assert job.attempts[0].extra == {"watts": 300}


def test_fields_that_an_older_server_does_not_send_have_their_defaults() -> None:
    job = Job.from_json({"id": 7})
    assert (job.priority, job.nodes, job.after, job.gpu_ids, job.labels) == ("normal", 1, (), None, {})
    assert (job.started_at, job.expected, job.events) == (None, None, ())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "train"}, "no job of a gpuq server: 'id' is missing"),
        ({"id": 7, "started_at": "soon"}, "'started_at' of a job is not what a gpuq server sends: 'soon'"),
        ({"id": 7, "reason": "because"}, "'reason' of a job is not what a gpuq server sends: 'because'"),
    ],
)
def test_what_is_no_job_is_refused_in_words(data: dict[str, Any], said: str) -> None:
    with pytest.raises(GpuqError, match=said):
        Job.from_json(data)


def test_values_do_not_change() -> None:
    job = Job.from_json(JOB)
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.state = "completed"  # type: ignore[misc]
    assert {job: 1}[Job.from_json(copy.deepcopy(JOB))] == 1


@pytest.mark.parametrize(
    ("verb", "call"),
    [
        ("refresh", lambda job: job.refresh()),
        ("wait", lambda job: job.wait()),
        ("cancel", lambda job: job.cancel()),
        ("logs", lambda job: job.logs()),
        ("why", lambda job: job.why()),
    ],
)
def test_a_job_without_a_client_says_that_it_has_nobody_to_ask(verb: str, call: Any) -> None:
    with pytest.raises(UsageError, match=f"job 7 came from no client, so `{verb}`") as raised:
        call(Job.from_json(JOB))
    assert raised.value.hint is not None


class Answers:
    """A client that answers `job` only, and cannot be pickled, as a real one cannot."""

    def job(self, job_id: int) -> Job:
        return Job.from_json({**JOB, "id": job_id, "state": "completed"}, self)  # type: ignore[arg-type]

    def __getstate__(self) -> object:
        raise TypeError("connections cannot be pickled")


def test_a_refreshed_job_is_a_new_one_that_can_be_asked_again() -> None:
    job = Job.from_json(JOB, Answers())  # type: ignore[arg-type]
    later = job.refresh()
    assert (job.state, job.is_final, later.state, later.is_final) == ("running", False, "completed", True)
    assert later.refresh() == later


def test_a_job_can_be_pickled_and_leaves_its_client_behind() -> None:
    job = Job.from_json(JOB, Answers())  # type: ignore[arg-type]
    thawed = pickle.loads(pickle.dumps(job))
    assert thawed == job
    with pytest.raises(UsageError):
        thawed.refresh()


def test_jobs_of_a_queue_can_be_asked() -> None:
    queue = Queue.from_json({"running": 1, "jobs": [JOB], "paused": {"by": "root"}}, Answers())  # type: ignore[arg-type]
    assert queue.jobs[0].refresh().is_final
    assert queue.paused is not None
    assert queue.paused.by == "root"


def test_nested_values_of_a_gpu_and_of_reasons() -> None:
    gpu = Gpu.from_json({"index": 0, "jobs": [{"id": 7, "since": "2026-11-22T10:00:00Z"}], "processes": [{"pid": 9}]})
    assert (gpu.jobs[0].id, gpu.processes[0].pid, gpu.reason) == (7, 9, None)
    why = Why.from_json({"id": 7, "reasons": [JOB["reason"], {"code": "New"}]})
    assert [reason.code for reason in why.reasons] == ["Resources", "New"]


def test_no_modules_of_the_client_import_each_other_in_a_circle() -> None:
    import ast
    import graphlib

    import gpuq.client

    [folder] = gpuq.client.__path__
    modules = {f"gpuq.client.{path.stem}": path for path in Path(folder).glob("*.py") if path.stem != "__init__"}
    imports: dict[str, set[str]] = {}
    for name, path in modules.items():
        # Those under TYPE_CHECKING too; those inside functions run when both modules are there.
        blocks = [node.body if isinstance(node, ast.If) else [node] for node in ast.parse(path.read_text()).body]
        froms = [node for block in blocks for node in block if isinstance(node, ast.ImportFrom)]
        named = {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
        imports[name] = (named | {str(node.module) for node in froms}) & modules.keys()
    assert imports["gpuq.client.client"]
    graphlib.TopologicalSorter(imports).prepare()

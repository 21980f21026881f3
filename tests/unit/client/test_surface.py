"""What programs may rely on: public names, fields and signatures. A change here is a change for users."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import gpuq

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "scripts/examples/submit_and_wait.py"

NAMES = (
    *("Attempt", "Changes", "Check", "Client", "ConfigError", "Constraint", "DaemonUnreachable", "DeadLetter", "Event"),
    *("Expected", "Forbidden", "Gpu", "GpuJob", "GpuProcess", "GpuqError", "Group", "Job", "Limit", "LogChunk"),
    "NotFound",
    *(
        "Options",
        "Pause",
        "PlannedDrain",
        "Preemption",
        "QueueFull",
        "Queue",
        "Reason",
        "Refused",
        "Stats",
        "Submission",
        "Table",
        "Unauthenticated",
    ),
    *("Unavailable", "UsageError", "Why", "WrongState", "__version__"),
    *("Executor", "GpuOutOfMemory", "JobCancelled", "JobFailed", "JobFuture", "JobLost", "RemoteError", "TimeLimit"),
    *("Current", "Lease", "attach", "checkpoint_dir", "current", "lease", "progress", "result", "short_result"),
)

FIELDS = {
    "Job": "id name user group state reason outcome command cwd priority gpus gpu_mem_mb gpu_model gpu_ids cpus mem_mb "
    "nodes time_limit_s max_retries retries_used attempt array_id array_index parameters labels key after after_any "
    "preemptible submitted_at eligible_at started_at finished_at stop_deadline position estimated_start estimated_end "
    "estimated_start_range estimated_end_range expected "
    "progress node gpu_indices gpu_uuids pid exit_code signal error peak_gpu_mem_mb log_path pool callback "
    "short_result result_bytes result_type script_bytes attempts events",
    "Attempt": "number outcome exit_code signal node gpu_indices gpu_uuids pid started_at finished_at peak_gpu_mem_mb "
    "avg_gpu_util error log_path",
    "Event": "id at job_id attempt from_state to_state actor detail",
    "Gpu": "index uuid model memory_mb used_mb utilisation temperature_c power_w jobs job state reason processes",
    "Reason": "code text",
    "Why": "id state reason reasons position estimated_start estimated_end estimated_start_range "
    "estimated_end_range preemptions outcome error",
    "Queue": "running queued waiting total paused drain jobs",
    "DeadLetter": "job_id name user failed_at outcome error attempts log_tail",
}

SIGNATURES = {
    "Client.submit": "command name cwd env secrets umask limits nice gpus gpu_mem_mb gpu_model gpu_ids priority group "
    "time_limit_s max_retries after after_any begin array hold key preemptible signal kill_grace_s script requeue "
    "keep_waiting sweep request_key",
    "Client.submit_many": "specs request_key",
    "Client.check": "spec",
    "Client.job": "job_id",
    "Client.jobs": "state user group name ids array_id after_id newest_first limit",
    "Client.queue": "limit offset user",
    "Client.history": "state user group name since until limit",
    "Client.why": "job_id",
    "Client.result": "job_id",
    "Client.user": "",
    "Client.logs": "job_id attempt last_bytes",
    "Client.log": "job_id offset limit attempt",
    "Client.follow": "job_id",
    "Client.wait": "jobs timeout_s",
    "Client.cancel": "job_id force grace_s reason",
    "Client.hold": "job_id",
    "Client.release": "job_id",
    "Client.retry": "job_id",
    "Client.retry_dead_letter": "job_id",
    "Client.remove_dead_letter": "job_id",
    "Client.dead_letters": "",
    "Client.top": "job_id",
    "Client.update": "job_id changes",
    "Client.pause": "reason",
    "Client.resume": "",
    "Client.gpus": "",
    "Client.drain": "index reason",
    "Client.undrain": "index",
    "Client.groups": "",
    "Client.limit_group": "group limit",
    "Client.planned_drain": "",
    "Client.plan_drain": "at until gpus reason",
    "Client.cancel_drain": "",
    "Client.limits": "user group",
    "Client.set_limits": "kind name limits",
    "Client.stats": "",
    "Client.report": "kind by since until",
    "Client.sql": "query",
    "Client.close": "",
    "Client.is_direct": "",
    "Job.from_json": "data client",
    "Job.is_final": "",
    "Job.refresh": "",
    "Job.wait": "timeout_s",
    "Job.cancel": "force grace_s reason",
    "Job.logs": "attempt last_bytes",
    "Job.result": "timeout_s",
    "Job.why": "",
}


def test_the_public_names_are_these() -> None:
    assert sorted(gpuq.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(gpuq))
    for name in NAMES:
        assert getattr(gpuq, name).__doc__ is not None, name
    with pytest.raises(AttributeError, match="has no attribute 'Clint'"):
        gpuq.Clint  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_the_names_that_programs_see() -> None:
    tree = ast.parse((ROOT / "gpuq/__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    froms = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {str(node.module): tuple(alias.name for alias in node.names) for node in froms} == gpuq._HOMES


@pytest.mark.parametrize("name", FIELDS)
def test_the_fields_are_these(name: str) -> None:
    fields = [each.name for each in dataclasses.fields(getattr(gpuq, name)) if not each.name.startswith("_")]
    assert sorted(fields) == sorted([*FIELDS[name].split(), "extra"])


def _parameters(name: str) -> list[str]:
    owner, _, member = name.partition(".")
    found = getattr(getattr(gpuq, owner), member)
    if isinstance(found, property):
        return []
    return [each for each in inspect.signature(found).parameters if each != "self"]


def test_the_calls_and_their_arguments_are_these() -> None:
    public = {
        f"{kind.__name__}.{name}"
        for kind in (gpuq.Client, gpuq.Job)
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    }
    assert public == SIGNATURES.keys()
    assert {name: " ".join(_parameters(name)) for name in SIGNATURES} == SIGNATURES
    for name in SIGNATURES:
        owner, _, member = name.partition(".")
        assert getattr(getattr(gpuq, owner), member).__doc__, name


def test_importing_gpuq_imports_nothing_else_and_neither_do_its_errors() -> None:
    program = """if True:
        import sys
        before = set(sys.modules)
        import gpuq
        assert set(sys.modules) - before <= {"gpuq", "__future__"}, set(sys.modules) - before
        dir(gpuq)
        gpuq.NotFound
        heavy = {"typing", "dataclasses", "gpuq.client.calls", "pydantic"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        gpuq.Client
        assert not {"pydantic", "sqlalchemy", "redis", "fastapi", "http.client"} & set(sys.modules)
    """
    # -S: site loads modules of its own choice.
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run([sys.executable, "-S", "-c", path + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _mypy(file: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", str(file)]
    return subprocess.run(command, cwd=cache.parent, capture_output=True, text=True, check=False)


def test_type_checkers_know_the_types_and_refuse_what_is_misspelt(tmp_path: Path) -> None:
    assert (ROOT / "gpuq/py.typed").exists()
    done = _mypy(EXAMPLE, tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import gpuq\n"
        "client = gpuq.Client()\n"
        "reveal_type(client.submit(['true']))\n"
        "reveal_type(client.submit(['true'], array='0-3'))\n"
        "reveal_type(client.submit(['true']).started_at)\n"
        "client.submit(['true'], gpu=2)\n"
        "client.update(1, prority='high')\n"
        "gpuq.Clint\n"
    )
    said = _mypy(wrong, tmp_path / "cache").stdout
    for line in (
        'wrong.py:3: note: Revealed type is "gpuq.client.job.Job"',
        'wrong.py:4: note: Revealed type is "list[gpuq.client.job.Job]"',
        'wrong.py:5: note: Revealed type is "datetime.datetime | None"',
        "wrong.py:6: error: ",
        "wrong.py:7: error: ",
        "wrong.py:8: error: ",
    ):
        assert line in said.replace("builtins.", ""), said

"""What a program says from within its job, and that it may say so anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpuq
from gpuq.supervise import results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The own folder of the attempt that this process seems to be."""
    own = tmp_path / "1"
    own.mkdir()
    values = {
        "GPUQ_JOB_ID": "7", "GPUQ_JOB_NAME": "fit", "GPUQ_ATTEMPT": "2", "GPUQ_GPUS": "0,3", "GPUQ_RUN_DIR": str(own),
        "GPUQ_CHECKPOINT_DIR": str(tmp_path / "checkpoint"), "GPUQ_RESULT_FILE": str(own / "result"),
        "GPUQ_SHORT_RESULT_FILE": str(own / "short_result"),
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return own


def said(own: Path) -> Any:
    return json.loads((own / "progress.json").read_text())


def test_progress_is_written_as_the_queue_reads_it(job: Path) -> None:
    gpuq.progress(0.4, step=4, total=10, message='epoch "4"\n\u00e9\ud800')
    assert said(job) == {"progress": 0.4, "step": 4, "total": 10, "message": 'epoch "4"\n\u00e9\ud800'}
    gpuq.progress(step=3, total=4)
    assert said(job) == {"progress": 0.75, "step": 3, "total": 4}
    gpuq.progress(step=9, total=4)
    assert said(job)["progress"] == 1.0
    gpuq.progress(message="loading")
    assert said(job) == {"message": "loading"}
    assert [path.name for path in job.iterdir()] == ["progress.json"]


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_progress_that_is_none_is_refused(job: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        gpuq.progress(bad)


def test_no_training_ends_because_its_progress_cannot_be_written(job: Path) -> None:
    job.rmdir()
    gpuq.progress(0.5)


@pytest.mark.parametrize(
    ("value", "given", "data", "kind"),
    [
        (b"\0\xff", None, b"\0\xff", "application/octet-stream"),
        (bytearray(b"png"), "image/png", b"png", "image/png"),
        ("ü", None, "ü".encode(), "text/plain; charset=utf-8"),
        ({"loss": [0.1, None]}, None, b'{"loss": [0.1, null]}', "application/json"),
    ],
)
def test_a_result_is_what_the_supervisor_finds(
    job: Path, value: Any, given: str | None, data: bytes, kind: str
) -> None:
    gpuq.result("an earlier one")
    gpuq.result(value, media_type=given)
    gpuq.short_result("loss 0.1")
    assert (job / "result").read_bytes() == data
    found = results.left_in(f"{job}.records", None, 1000)
    assert found == {"result_bytes": len(data), "result_type": kind, "short_result": "loss 0.1"}


def test_what_cannot_be_a_result_leaves_the_last_one_as_it_is(job: Path) -> None:
    gpuq.result("kept")
    with pytest.raises(TypeError, match=r"bytes, text or what JSON can say.*gpuq\.Executor"):
        gpuq.result(object())
    with pytest.raises(ValueError, match="at most 1024 bytes, this one 1026"):
        gpuq.short_result("ü" * 513)
    assert (job / "result").read_text() == "kept"
    assert not (job / "short_result").exists()


def test_the_job_knows_itself(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpuq.current()
    assert found is not None
    assert (found.id, found.attempt, found.name, found.gpus, found.run_dir) == (7, 2, "fit", (0, 3), str(job))
    assert (found.array_id, found.array_index, found.time_left_s) == (None, None, None)
    assert gpuq.checkpoint_dir() == job.parent / "checkpoint"
    monkeypatch.setenv("GPUQ_TIME_LIMIT_END", "1")
    monkeypatch.setenv("GPUQ_ARRAY_ID", "5")
    monkeypatch.setenv("GPUQ_ARRAY_INDEX", "2")
    monkeypatch.setenv("GPUQ_GPUS", "")
    found = gpuq.current()
    assert found is not None
    assert (found.time_left_s, found.array_id, found.array_index, found.gpus) == (0.0, 5, 2, ())


def test_outside_a_job_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPUQ_JOB_ID", "GPUQ_RUN_DIR", "GPUQ_CHECKPOINT_DIR", "GPUQ_RESULT_FILE", "GPUQ_SHORT_RESULT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert (gpuq.current(), gpuq.checkpoint_dir()) == (None, None)
    gpuq.progress(0.5)
    gpuq.result("x")
    gpuq.short_result("x")
    assert list(tmp_path.iterdir()) == []


def test_a_training_script_pays_for_nothing_but_these_few_lines(job: Path) -> None:
    program = f"""if True:
        import os, sys; sys.path.insert(0, {str(ROOT)!r})
        before = set(sys.modules)
        import gpuq
        gpuq.progress(0.5, step=1, message="x"); gpuq.result(b"x"); gpuq.short_result("x"); gpuq.current()
        print(*sorted(set(sys.modules) - before))
    """
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__future__", "_json", "gpuq", "gpuq.in_job"}


def _example(name: str) -> str:
    page = (ROOT / "docs/howto/functions.md").read_text()
    return page.partition(f"<!-- example: {name} -->\n```python\n")[2].partition("```")[0]


class _Parent:
    """What such a callback inherits from: nothing that these examples use."""


@pytest.mark.parametrize(
    ("name", "modules", "drive"),
    [
        ("tqdm", {"tqdm": {"tqdm": _Parent}}, None),
        (
            "lightning",
            {"lightning": {}, "lightning.pytorch": {"Callback": _Parent}},
            lambda made, state: made.on_train_batch_end(state, None, None, None, 0),
        ),
        (
            "transformers",
            {"transformers": {"TrainerCallback": _Parent}},
            lambda made, state: made.on_step_end(None, state, None),
        ),
    ],
)
def test_the_callbacks_of_the_documents_tell_progress(
    job: Path, monkeypatch: pytest.MonkeyPatch, name: str, modules: dict[str, Any], drive: Callable[..., None] | None
) -> None:
    import types

    for module, names in modules.items():
        made = types.ModuleType(module)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, module, made)
    if name == "tqdm":
        monkeypatch.setattr(_Parent, "display", lambda self, *args, **kwargs: True, raising=False)
    scope: dict[str, Any] = {}
    exec(_example(name), scope)
    if drive is None:
        bar = scope["Bar"]()
        bar.n, bar.total = 3, 4
        bar.display()
    else:
        state = types.SimpleNamespace(
            global_step=3, max_steps=4, estimated_stepping_batches=4, current_epoch=1, epoch=1.5
        )
        drive(scope["Progress"](), state)
    assert said(job)["progress"] == 0.75

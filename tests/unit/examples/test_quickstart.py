from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts/quickstart.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.redis
@pytest.mark.timeout(240)
def test_the_quickstart_does_all_it_says_and_leaves_nothing_behind(redis_server_path: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra `examples`")
    environment = {**os.environ, "TMPDIR": "/tmp", "GPUQ_DATABASE_URL": "sqlite:////nowhere/at/all.db"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("All as said")
    [home] = [line.split()[1].rstrip(",") for line in done.stderr.splitlines() if line.startswith("  home ")]
    assert not Path(home).exists()


def rows(*spans: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [
        {"job_id": number, "attempt": 1, "gpu_uuids": json.dumps([uuid]), "claimed_at": start, "finished_at": end}
        for number, (uuid, start, end) in enumerate(spans)
    ]


def checker(script: ModuleType, tmp_path: Path, answer: list[dict[str, Any]]) -> Any:
    quickstart = script.Quickstart(tmp_path)
    quickstart.json = lambda *words: answer
    return quickstart


def test_a_gpu_held_twice_at_once_is_noticed(script: ModuleType, tmp_path: Path) -> None:
    spans = [("A", f"2026-01-01T00:00:0{n}.000Z", f"2026-01-01T00:00:0{n + 1}.000Z") for n in range(5)]
    again = ("A", "2026-01-01T00:00:02.500Z", "2026-01-01T00:00:02.600Z")
    with pytest.raises(script.Broken, match="at the same time"):
        checker(script, tmp_path, rows(*spans, again)).check_bookings()


def test_holders_one_after_the_other_and_side_by_side_are_fine(script: ModuleType, tmp_path: Path) -> None:
    spans = [("A", f"2026-01-01T00:00:0{n}.000Z", f"2026-01-01T00:00:0{n + 1}.000Z") for n in range(5)]
    beside = ("B", "2026-01-01T00:00:02.500Z", "2026-01-01T00:00:02.600Z")
    assert checker(script, tmp_path, rows(*spans, beside)).check_bookings() == 6


def test_a_wrong_fact_about_a_job_is_said_in_words(script: ModuleType) -> None:
    with pytest.raises(script.Broken, match="state should be 'completed', and is 'failed'"):
        script.expect("small", {"state": "failed", "error": "exit 1"}, state="completed")

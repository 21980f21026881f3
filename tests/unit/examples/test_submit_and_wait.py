"""The example of the Python client, against a real daemon."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from box import Box

SCRIPT = Path(__file__).parents[3] / "scripts/examples/submit_and_wait.py"


@pytest.mark.redis
def test_the_example_does_what_it_says(make_box: Callable[..., Box], redis_server_path: str) -> None:
    box = make_box(GPUQ_GPUS="sim:2")
    command = [sys.executable, str(SCRIPT)]
    away = subprocess.run(command, env=box.env, capture_output=True, text=True, timeout=60, check=False)
    assert away.returncode == 1
    assert "no daemon answers on" in away.stderr
    box.up()
    done = subprocess.run(command, env=box.env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job 2 waits: " in done.stdout
    assert "job 1 (train) completed with exit code 0" in done.stdout
    assert "  trained on 2 GPUs\n  attempt 1: succeeded\n" in done.stdout
    assert "as expected: there is no job 1000002" in done.stdout

"""What is set up on a machine for daily use does not reach the tests that are run there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpuq.config_file import config_file
from gpuq.settings import Settings, load

ROOT = Path(__file__).parents[2]


def test_no_setting_comes_from_outside_the_test() -> None:
    found, sources = load()
    assert set(sources.values()) == {"default"}
    assert found.gpus == Settings.model_fields["gpus"].default


def test_the_config_file_is_an_empty_one_for_daemon_and_client_alike() -> None:
    assert config_file() == os.environ["GPUQ_CONFIG"]
    assert Path(config_file()).read_text() == ""


def test_a_process_that_a_test_starts_reads_the_empty_file_too(make_box: Callable[..., Any]) -> None:
    box = make_box()
    assert box.env["GPUQ_CONFIG"] == os.environ["GPUQ_CONFIG"]
    assert box.env["HOME"] == os.environ["HOME"]
    shown = {line["name"]: line["source"] for line in box.json("config")}
    given = {name.removeprefix("GPUQ_").lower() for name in box.env if name.startswith("GPUQ_")} & set(shown)
    assert {name for name, source in shown.items() if source != "default"} == given


def test_settings_of_daily_use_change_no_test(tmp_path: Path) -> None:
    daily = tmp_path / "config.toml"
    daily.write_text('gpus = "sim:9"\norder = "fair"\nnot_a_setting = 1\n')
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_settings.py"],
        env={**os.environ, "GPUQ_CONFIG": str(daily), "GPUQ_LEASE_TTL": "77", "GPUQ_LEASE_TLL": "1"},
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout

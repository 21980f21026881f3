"""The seam itself: nothing without its variable, and every arming once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import timeit
from pathlib import Path

import pytest

from gpuq.domain import failpoints
from gpuq.settings import load


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from gpuq.domain import failpoints\n{code}"],
        env={**os.environ, failpoints.VARIABLE: str(folder)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_without_its_variable_a_point_costs_next_to_nothing() -> None:
    assert failpoints.VARIABLE not in os.environ
    rounds = 100_000
    best = min(timeit.repeat(lambda: failpoints.point("claim.committed"), number=rounds, repeat=5))
    # 100 ns on an idle machine, with room for a busy one.
    assert best / rounds < 500e-9


def test_an_armed_point_kills_once(tmp_path: Path) -> None:
    (tmp_path / "claim.committed").write_text("kill@2\n")
    code = "for n in range(3): failpoints.point('claim.committed'); print(n)"
    first, second = run(tmp_path, code), run(tmp_path, code)
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, 0)
    assert second.stdout.split() == ["0", "1", "2"]
    assert os.listdir(tmp_path) == ["claim.committed.reached"]


def test_an_armed_point_raises(tmp_path: Path) -> None:
    (tmp_path / "claim.committed").write_text("raise")
    done = run(tmp_path, "failpoints.point('claim.before_commit')\nfailpoints.point('claim.committed')")
    assert "Injected: fault injected at claim.committed" in done.stderr


def test_the_boot_id_can_be_another_one(tmp_path: Path) -> None:
    assert failpoints.boot_id() is None
    assert run(tmp_path, "print(failpoints.boot_id())").stdout == "None\n"
    (tmp_path / failpoints.BOOT_ID).write_text("another\n")
    assert run(tmp_path, "print(failpoints.boot_id())").stdout == "another\n"


def test_the_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(failpoints.VARIABLE, str(tmp_path))
    monkeypatch.setenv("GPUQ_HOME", str(tmp_path))
    assert load()[0].home == tmp_path

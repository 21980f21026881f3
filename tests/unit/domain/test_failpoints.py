"""Points at which a test ends a process: armed, counted, reached once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpuq.domain import failpoints

PASS = """
from gpuq.domain import failpoints
for n in range(4):
    print(n, flush=True)
    failpoints.point("lease.taken")
"""


def passing(folder: Path | None) -> subprocess.CompletedProcess[str]:
    """A process that passes the point four times and says so before each."""
    environment = dict(os.environ) if folder is None else os.environ | {failpoints.VARIABLE: str(folder)}
    return subprocess.run([sys.executable, "-c", PASS], env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(("action", "passes"), [("kill", 1), ("kill@1", 1), ("kill@2", 2), ("kill@4", 4)])
def test_a_process_is_killed_at_the_pass_that_was_asked_for(tmp_path: Path, action: str, passes: int) -> None:
    (tmp_path / "lease.taken").write_text(f"{action}\n")
    ended = passing(tmp_path)
    assert (ended.returncode, len(ended.stdout.split())) == (-signal.SIGKILL, passes)
    assert [file.name for file in tmp_path.iterdir()] == ["lease.taken.reached"]
    assert (passing(tmp_path).returncode, len(ended.stdout.split())) == (0, passes)


def test_a_failure_that_no_code_expects_names_its_point(tmp_path: Path) -> None:
    (tmp_path / "lease.taken").write_text("raise@3")
    ended = passing(tmp_path)
    assert ended.returncode == 1
    assert "Injected: fault injected at lease.taken" in ended.stderr
    assert ended.stdout.split() == ["0", "1", "2"]


def test_nothing_happens_at_a_point_that_is_not_armed_or_not_reached_often_enough(tmp_path: Path) -> None:
    (tmp_path / "lease.taken").write_text("kill@5")
    (tmp_path / "claim.committed").write_text("kill")
    assert passing(tmp_path).returncode == passing(None).returncode == 0
    assert not list(tmp_path.glob("*.reached"))


def test_each_arming_acts_once_and_counts_from_the_first_pass_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path))
    for _ in range(2):
        (tmp_path / "lease.taken").write_text("raise@2")
        failpoints._look("lease.taken")
        with pytest.raises(failpoints.Injected, match=r"fault injected at lease\.taken"):
            failpoints._look("lease.taken")
        failpoints._look("lease.taken")
    (tmp_path / "lease.taken").write_text("raise")
    with pytest.raises(failpoints.Injected):
        failpoints._look("lease.taken")


def test_the_signals_go_to_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda thread, number: sent.append((thread, number)))
    for action in ("kill", "stop"):
        failpoints._act("lease.taken", action)
    here = threading.get_ident()
    assert sent == [(here, signal.SIGKILL), (here, signal.SIGSTOP)]


def test_the_boot_id_of_a_test_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_folder", "")
    assert failpoints.boot_id() is None
    monkeypatch.setattr(failpoints, "_folder", str(tmp_path))
    assert failpoints.boot_id() is None
    (tmp_path / "boot_id").write_text("an-id\n")
    assert failpoints.boot_id() == "an-id"

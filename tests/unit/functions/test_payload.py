"""The files in which calls travel, and whose they must be."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from gpuq.errors import UsageError
from gpuq.functions import call, payload


def test_a_call_is_a_private_file_in_a_private_folder(tmp_path: Path) -> None:
    path = Path(payload.write(str(tmp_path / "home"), b"call"))
    assert payload.read(str(path)) == b"call"
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    payload.remove(str(path))
    payload.remove(str(path))
    with pytest.raises(UsageError, match="not there any more"):
        payload.read(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_home_of_somebody_else_gets_no_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "own"))
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 4321, 4321)
    assert payload.folder(str(shared)) == str(tmp_path / "own/.local/share/gpuq/calls")
    os.chown(tmp_path / "own/.local/share/gpuq", 4321, 4321)
    with pytest.raises(UsageError, match="no folder of your own"):
        payload.folder(str(shared))


def test_what_others_could_have_written_is_not_read(tmp_path: Path) -> None:
    path = Path(payload.write(str(tmp_path), b"call"))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        payload.read(str(tmp_path / "link"))
    path.chmod(0o622)
    with pytest.raises(UsageError, match="no private file"):
        payload.read(str(path))


def test_too_large_a_call_is_refused_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MOST_BYTES", 10)
    with pytest.raises(UsageError, match="with its arguments"):
        payload.write(str(tmp_path), b"x" * 11)
    assert list(tmp_path.iterdir()) == []


def test_calls_that_nobody_ran_again_are_forgotten_after_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (payload.write(str(tmp_path), b"x") for _ in range(2))
    before = time.time() - payload.KEPT_S - 60
    os.utime(old, (before, before))
    monkeypatch.setattr(os, "urandom", lambda size: b"\0" * size)
    payload.write(str(tmp_path), b"x")
    assert not os.path.exists(old)
    assert os.path.exists(new)


def test_a_job_whose_call_is_gone_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPUQ_RESULT_FILE", str(tmp_path / "result"))
    assert call.main([str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err.startswith("gpuq: the call is not there any more")
    assert (tmp_path / "result.type").read_text() == "application/vnd.gpuq.python"
    assert call.main([]) == 2

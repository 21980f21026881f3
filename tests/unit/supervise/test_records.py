"""What is read from the two folders of an attempt; into the own one the job's user may put anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuq.supervise import bundle
from gpuq.supervise import progress as own_progress

MOST = 64 * 1024


def progress(folder: Path) -> dict[str, object] | None:
    return own_progress.read(str(folder), os.geteuid())


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 2000,
        b'{"a":' * 50_000,
        b'{"progress": 0.5, "x": ' + b"[" * 20 + b"]" * 20 + b"}",
        b'{"progress": ' + b"9" * 6000 + b"}",
        b'{"progress": 0.5, "x": "' + b"x" * MOST + b'"}',
        b"\0" * (MOST + 1),
        b"[0.5]",
        b'{"progress": 0.5',
        b"\xff\xfe",
        b"",
    ],
)
def test_whatever_a_job_writes_as_its_progress_is_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "progress.json").write_bytes(content)
    assert progress(tmp_path) is None


def test_progress_of_64_kib_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    head, tail = b'{"progress": 0.5, "x": "', b'"}'
    record = head + b"x" * (MOST - len(head) - len(tail)) + tail
    (tmp_path / "progress.json").write_bytes(record)
    found = progress(tmp_path)
    assert found is not None
    assert found["progress"] == 0.5
    (tmp_path / "progress.json").write_bytes(record[:-2] + b"x" + tail)
    assert progress(tmp_path) is None


def test_progress_that_grows_while_it_is_read_is_not_read_on_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "progress.json"
    path.write_bytes(b"{}")
    given: list[int] = []

    def endless(fd: int, size: int) -> bytes:
        given.append(size)
        assert sum(given) < 2 * MOST
        return b"x" * size

    monkeypatch.setattr(os, "read", endless)
    assert progress(tmp_path) is None


def test_progress_may_be_nested_20_deep(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_bytes(b'{"progress": 0.5, "x": ' + b"[" * 19 + b"]" * 19 + b"}")
    found = progress(tmp_path)
    assert found is not None
    assert found["progress"] == 0.5


def test_a_link_or_a_pipe_in_the_place_of_progress_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"progress": 0.5}')
    (tmp_path / "progress.json").symlink_to(secret)
    assert progress(tmp_path) is None
    (tmp_path / "progress.json").unlink()
    (tmp_path / "progress.json").hardlink_to(secret)
    assert progress(tmp_path) is None
    secret.unlink()
    assert progress(tmp_path) == {"progress": 0.5}
    (tmp_path / "progress.json").unlink()
    os.mkfifo(tmp_path / "progress.json")
    assert progress(tmp_path) is None
    (tmp_path / "progress.json").unlink()
    (tmp_path / "progress.json").mkdir()
    assert progress(tmp_path) is None


def test_a_folder_that_is_a_link_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "progress.json").write_text('{"progress": 0.5}')
    (tmp_path / "linked").symlink_to("real")
    assert progress(tmp_path / "real") == {"progress": 0.5}
    assert progress(tmp_path / "linked") is None


def test_a_record_of_the_supervisors_own_may_be_long(tmp_path: Path) -> None:
    bundle.write(str(tmp_path), bundle.SPEC, {"env": {"X": "x" * 3 * MOST}})
    found = bundle.read(str(tmp_path), bundle.SPEC)
    assert found is not None
    assert found["env"] == {"X": "x" * 3 * MOST}

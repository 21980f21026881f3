"""What a job leaves in $GPUQ_RESULT_FILE and $GPUQ_SHORT_RESULT_FILE, as its supervisor finds it at the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome, Result
from gpuq.supervise import bundle, results, statements
from gpuq.supervise.crash_record import recover

MIB = 2**20


def left(world: Any, script: str, most: int | None = MIB) -> Result:
    limit = {} if most is None else {"max_result_bytes": most}
    order = world.order("/bin/sh", "-c", f"cd {world.root}/jobs/{len(world.attempts) + 1}/1; {script}", **limit)
    found: Result = world.launch(order).result()
    return found


def told(result: Result) -> tuple[object, ...]:
    return result.result_bytes, result.result_type, result.short_result, result.result_error


def test_what_a_job_leaves_is_in_its_exit_record(world: Any) -> None:
    found = left(world, "printf abc >result; echo image/png >result.type; echo 'loss 0.1' >short_result")
    assert found.outcome is Outcome.SUCCEEDED
    assert told(found) == (3, "image/png", "loss 0.1", None)
    assert told(left(world, "true")) == (None, None, None, None)


def test_a_job_that_fails_leaves_something_too(world: Any) -> None:
    found = left(world, "printf abc >result; exit 3")
    assert (found.outcome, found.exit_code, found.result_bytes) == (Outcome.EXIT_NONZERO, 3, 3)


def test_too_large_a_result_is_not_kept_and_the_job_succeeded_all_the_same(world: Any) -> None:
    found = left(world, "head -c 1048577 /dev/zero >result; head -c 1025 /dev/zero >short_result")
    assert (found.outcome, found.error) == (Outcome.SUCCEEDED, None)
    assert told(found) == (
        None, None, None,
        "the result was not kept: 1 MiB is more than 1 MiB (GPUQ_MAX_RESULT);"
        " the short result was not kept: it has more than 1024 bytes",
    )  # fmt: skip
    assert left(world, "head -c 1048577 /dev/zero >result", most=0).result_bytes == MIB + 1


@pytest.mark.parametrize(
    "make",
    [
        "ln -s {secret} result; ln -s {secret} short_result",
        "ln {secret} result; ln {secret} short_result",
        "mkfifo result short_result",
        "mkdir result short_result",
    ],
    ids=["links", "second names", "pipes", "folders"],
)
def test_what_is_no_plain_file_of_the_jobs_user_is_no_result(world: Any, make: str) -> None:
    secret = world.root / "secret"
    secret.write_text("SECRET")
    found = left(world, make.format(secret=secret))
    assert found.outcome is Outcome.SUCCEEDED
    assert told(found)[:3] == (None, None, None)
    assert "result: " in (found.result_error or "")
    assert "SECRET" not in (found.result_error or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_file_of_somebody_else_is_no_result(world: Any) -> None:
    order = world.order("/bin/sh", "-c", "sleep 0", uid=4321, gid=4321, max_result_bytes=MIB)
    attempt = world.hand_over(order)
    Path(attempt.run_dir, "result").write_text("root's")
    attempt.hear()
    found = attempt.result()
    assert found.outcome is Outcome.SUCCEEDED
    assert (found.result_bytes, found.result_error) == (None, "result: it is no plain file of the job's user")


@pytest.mark.parametrize("said", ["text/html\r\nSet-Cookie: x=1", "no type", "a" * 200 + "/b", ""])
def test_a_media_type_that_is_none_is_left_out(tmp_path: Path, said: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "result").write_bytes(b"x")
    (tmp_path / "1" / "result.type").write_text(said)
    record = results.left_in(str(tmp_path / "1.records"), os.geteuid(), MIB)
    assert told(statements.result({"outcome": "succeeded", **record})) == (1, None, None, None)


def test_a_daemon_of_the_previous_release_asks_for_no_results(world: Any) -> None:
    assert told(left(world, "printf abc >result", most=None)) == (None, None, None, None)
    record: dict[str, object] = {"outcome": "succeeded", "result_bytes": -1, "result_type": 7, "short_result": ["x"]}
    assert told(statements.result(record)) == (None, None, None, None)


def test_the_result_of_a_job_whose_supervisor_was_killed_is_not_lost(tmp_path: Path) -> None:
    records = tmp_path / "1.records"
    records.mkdir(mode=0o700)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "result").write_bytes(b"abc")
    will: dict[str, object] = {"dir": str(records), "token": "t", "uid": os.geteuid(), "max_result_bytes": MIB}
    assert recover(will, -int(signal.SIGSEGV))
    record = bundle.read(str(records), bundle.EXIT)
    assert record is not None
    assert (record["outcome"], record["result_bytes"]) == ("signal", 3)


def test_a_result_is_durable_before_its_end_is_told_and_none_costs_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1").mkdir()
    looks: list[str] = []
    synced: list[int] = []
    monkeypatch.setattr(os.path, "lexists", lambda path: looks.append(path) or os.access(path, os.F_OK))
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    assert results.left_in(str(tmp_path / "1.records"), os.geteuid(), MIB) == {}
    assert [Path(path).name for path in looks] == ["result", "short_result"]
    assert synced == []
    (tmp_path / "1" / "result").write_bytes(b"abc")
    results.left_in(str(tmp_path / "1.records"), os.geteuid(), MIB)
    assert synced == [(tmp_path / "1" / "result").stat().st_ino, (tmp_path / "1").stat().st_ino]

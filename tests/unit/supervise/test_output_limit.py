"""When a job's log is looked at, and what a look decides. The clock and the file are the test's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuq.supervise import bundle, classify, crash_record, output_limit
from gpuq.supervise.output_limit import FASTEST_RATE, GRACE_S, LATEST_LOOK_S, QUIET_LOOK_S, OutputLimit, written_bytes

GIB = 1024**3


def stat(size: int, blocks: int) -> os.stat_result:
    return os.stat_result((0o100600, 1, 1, 1, 0, 0, size, 0, 0, 0), {"st_blocks": blocks})


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_nobody_ever_looks(limit: int | None) -> None:
    watch = OutputLimit(limit, 10.0)
    assert watch.wait_s(1e9) is None
    assert not watch.due(1e9)


def test_far_from_the_limit_a_look_comes_only_when_it_could_have_been_reached() -> None:
    watch = OutputLimit(20 * GIB, 100.0)
    assert watch.wait_s(100.0) == pytest.approx(20 * GIB / FASTEST_RATE)
    assert watch.grace_s(18 * GIB, 110.0) is None
    assert watch.wait_s(110.0) == pytest.approx(2 * GIB / FASTEST_RATE)
    assert OutputLimit(10_000 * GIB, 0.0).wait_s(0.0) == LATEST_LOOK_S


def test_a_quiet_job_close_to_its_limit_is_looked_at_once_a_second() -> None:
    watch, now, looks = OutputLimit(1024**2, 0.0), 0.0, 0
    watch.grace_s(1000, now)
    while now < 60.0:
        now += watch.wait_s(now) or 0.0
        assert watch.due(now)
        assert watch.grace_s(1000, now) is None
        looks += 1
    assert looks < 60.0 / QUIET_LOOK_S + 10
    assert watch.grace_s(2000, now) is None
    assert (watch.wait_s(now) or 9.0) < QUIET_LOOK_S, "one that writes again is not looked at more often"


def test_beyond_the_limit_there_is_a_short_grace_and_far_beyond_it_none() -> None:
    watch = OutputLimit(1000, 0.0)
    assert watch.grace_s(1000, 1.0) is None
    assert watch.grace_s(1001, 2.0) == GRACE_S
    assert watch.grace_s(1251, 3.0) == 0.0


def test_neither_a_hole_nor_what_is_allocated_ahead_counts_as_output() -> None:
    assert written_bytes(stat(10**15, 8)) == 4096
    assert written_bytes(stat(100, 16384)) == 100


@pytest.mark.parametrize(
    ("limit", "words"), [(20 * GIB, "20 GiB"), (3 * 1024**4, "3 TiB"), (1024**2, "1 MiB"), (1536 * 1024**2, "1.5 GiB")]
)
def test_the_error_names_limit_and_setting(limit: int, words: str) -> None:
    end = classify.Ending(exit_code=0, stop_reason=output_limit.REASON, max_output_bytes=limit)
    assert classify.classify_end(end) == ("output_limit", f"output exceeded {words} (GPUQ_MAX_OUTPUT)")


def test_a_killed_supervisor_leaves_word_of_it(tmp_path: Path) -> None:
    will = {"dir": str(tmp_path), "token": "t", "stop_reason": output_limit.REASON, "max_output_bytes": GIB}
    assert crash_record.recover(will, -9)
    record = bundle.read(str(tmp_path), bundle.EXIT)
    assert record is not None
    assert (record["outcome"], record["error"]) == ("output_limit", "output exceeded 1 GiB (GPUQ_MAX_OUTPUT)")

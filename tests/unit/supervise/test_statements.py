"""What is believed of what a supervisor, or who writes in its place, states of an attempt."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.supervise import bundle, reports, statements, stop_orders
from gpuq.supervise.launch import ForkServerLauncher
from gpuq.supervise.spawn import AttemptSpec

STARTED: dict[str, object] = {
    "token": "t", "supervisor_pid": 50, "supervisor_start": 60, "pid": 3, "pid_start": 4, "started_at": 5.5,
}  # fmt: skip
ENDED: dict[str, object] = {
    "token": "t", "outcome": "exit_nonzero", "exit_code": 3, "signal": None, "error": "e", "started_at": 5.5,
    "finished_at": 6.5, "stop_reason": None,
}  # fmt: skip

numbers = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 255, 256, 64, 65, 2**31, 2**63, 10**40, -(10**40)]),
    st.floats(allow_nan=True, allow_infinity=True),
)
texts = st.one_of(st.text(max_size=40), st.sampled_from(["\0", "\ud800", "x" * 9000, "succeeded", "lost", "cancel"]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


def records_like(whole: dict[str, object]) -> Any:
    """Of which some fields are anything at all, or are not there."""
    return st.fixed_dictionaries(
        {}, optional={name: st.one_of(st.just(value), st.just(value), values) for name, value in whole.items()}
    )


def assert_storable(result: Result) -> None:
    assert result.exit_code is None or 0 <= result.exit_code <= 255
    assert result.signal is None or 1 <= result.signal <= 64
    for moment in (result.started_at, result.finished_at):
        assert moment is None or 0 <= moment < 1e10
    if result.error is not None:
        assert len(result.error) <= 4096
        assert b"\0" not in result.error.encode()


@settings(deadline=None, max_examples=300)
@given(records_like(ENDED))
def test_an_end_is_one_that_a_database_takes_or_is_not_believed(record: dict[str, object]) -> None:
    with contextlib.suppress(bundle.BadRecord):
        assert_storable(statements.result(record))


@settings(deadline=None, max_examples=300)
@given(records_like(STARTED))
def test_a_start_names_processes_that_the_kernel_could_have_made(record: dict[str, object]) -> None:
    launched = statements.launched(record)
    if launched is not None:
        for pid in (launched.pid, launched.supervisor_pid):
            assert 1 <= pid < 2**31
        for start in (launched.pid_start, launched.supervisor_start):
            assert 0 <= start < 2**63


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([bundle.EXIT, bundle.STARTED, bundle.STOP, bundle.SPEC]),
    st.one_of(st.binary(max_size=300), records_like(ENDED), records_like(STARTED), values),
    st.integers(0, 300_000),
)
def test_whatever_stands_in_the_records_is_a_value_and_no_error(name: str, content: Any, deep: int) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    launcher = ForkServerLauncher()
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder, "1.records")
        records.mkdir(mode=0o700)
        run_dir = f"{folder}/1"
        for written in (data, b"[" * deep, b'{"token":"t","a":' * min(deep, 20_000)):
            (records / name).touch(0o600)
            (records / name).write_bytes(written)
            launcher.launched(run_dir, "t")
            launcher.alive(run_dir)
            result = launcher.outcome(run_dir, "t")
            assert (result is not None) == (name == bundle.EXIT and len(written) > 0)
            if result is not None:
                assert_storable(result)
            record = bundle.read(str(records), name) or {}
            stop_orders.of_record(record)
            try:
                spec = AttemptSpec(record)
            except ValueError:
                continue
            assert spec.time_limit_s is None or 0 <= spec.time_limit_s <= 1e18


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 50_000, "it is torn, or no JSON object"),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "it is nested too deep"),
        (b"{}" + b" " * 65_536, "it has more than 64 KiB"),
        (json.dumps({**ENDED, "token": "u"}).encode(), "it is that of another attempt"),
        (json.dumps({**ENDED, "exit_code": 10**40}).encode(), "its exit_code is none that a process can have"),
        (json.dumps({**ENDED, "exit_code": "3"}).encode(), "its exit_code is none that a process can have"),
        (json.dumps({**ENDED, "exit_code": 256}).encode(), "its exit_code is none that a process can have"),
        (json.dumps({**ENDED, "signal": 65}).encode(), "its signal is none that a process can have"),
        (json.dumps({**ENDED, "signal": 0}).encode(), "its signal is none that a process can have"),
    ],
)
def test_an_exit_record_that_is_not_believed_is_lost_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    records = tmp_path / "1.records"
    records.mkdir(mode=0o700)
    (records / bundle.EXIT).touch(0o600)
    (records / bundle.EXIT).write_bytes(content)
    result = ForkServerLauncher().outcome(str(tmp_path / "1"), "t")
    assert result == Result(Outcome.LOST, error=f"its exit record cannot be believed: {why}", swept=False)


# Reports.


def pipe_of(*lines: dict[str, object]) -> tuple[int, int]:
    read_end, write_end = os.pipe()
    for line in lines:
        os.write(write_end, bundle.line(line))
    return read_end, write_end


@pytest.mark.parametrize("together", [True, False])
def test_an_end_that_comes_with_the_report_or_after_it_is_told(tmp_path: Path, together: bool) -> None:
    launcher, run_dir = ForkServerLauncher(), str(tmp_path / "1")
    read_end, write_end = pipe_of(STARTED, ENDED) if together else pipe_of(STARTED)
    assert launcher.report(read_end) == Launched(50, 60, 3, 4, 5.5)
    if not together:
        assert launcher.told_end("t") is None
        os.write(write_end, bundle.line(ENDED))
        assert launcher.report(read_end) is None
    told = launcher.told_end("t")
    assert told is not None
    assert (told.outcome, told.exit_code, told.swept) == (Outcome.EXIT_NONZERO, 3, True)
    assert launcher.outcome(run_dir, "t") == told
    assert launcher.told_end("u") is None
    launcher.close()
    os.close(read_end)
    os.close(write_end)


def test_an_end_that_is_told_is_believed_before_a_record_that_is_not(tmp_path: Path) -> None:
    launcher = ForkServerLauncher()
    read_end, write_end = pipe_of(ENDED, {**ENDED, "token": "u", "exit_code": 1000}, {"outcome": "succeeded"})
    assert launcher.report(read_end) is None
    (tmp_path / "1.records").mkdir(mode=0o700)
    bundle.write(str(tmp_path / "1.records"), bundle.EXIT, {"token": "another"})
    assert launcher.outcome(str(tmp_path / "1"), "t") == launcher.told_end("t") != launcher.told_end("u")
    assert launcher.told_end("u") is launcher.told_end("") is None
    os.close(read_end)
    os.close(write_end)


def test_of_the_ends_that_were_told_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_TOLD", 2)
    pipes = reports.ReportPipes()
    read_end, write_end = pipe_of(*({**ENDED, "token": name} for name in "abc"))
    pipes.hear(read_end)
    assert [pipes.told(name) is not None for name in "abc"] == [False, True, True]
    os.close(read_end)
    os.close(write_end)


def test_a_report_is_heard_where_no_descriptor_is_left_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = ForkServerLauncher()
    read_end, write_end = pipe_of(STARTED)

    def full(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(reports.os, "dup", full)
        launched = launcher.report(read_end)
    assert launched == Launched(50, 60, 3, 4, 5.5)
    # Its supervisor may be at another attempt already: nothing but the lock tells of this one.
    assert launcher.watch(launched) is None
    os.close(read_end)
    os.close(write_end)


# Requests to stop.


def line_of(**fields: object) -> bytes:
    return json.dumps({"token": "t", "reason": "cancel", "grace_s": 5.0, "signal": None, **fields}).encode()


def test_a_line_with_the_token_is_a_request() -> None:
    order = stop_orders.of_line(line_of(signal="USR1"), "t")
    assert order is not None
    assert (order.reason, order.grace_s, order.signum) == ("cancel", 5.0, 10)
    again = stop_orders.of_line(line_of(grace_s=None), "t")
    assert again is not None
    assert (again.grace_s, again.signum) == (None, None)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"x", b"{}", b"[" * 4000, b'{"reason": 5}', b'{"reason": "cancel"}',
        line_of(token="u"), line_of(token=None), line_of(reason=5), line_of(reason=None), line_of(reason="boredom"),
        line_of(reason=""), line_of(grace_s="5"), line_of(grace_s=1e300), line_of(grace_s=[]), line_of(signal=9),
        line_of(signal="NONE"), line_of(more="x" * 4096),
    ],
)  # fmt: skip
def test_anything_else_in_the_pipe_is_no_request(line: bytes) -> None:
    assert stop_orders.of_line(line, "t") is None


def test_without_a_token_no_line_is_a_request() -> None:
    assert stop_orders.of_line(line_of(token=""), "") is None


def test_a_stop_record_of_a_newer_release_stops_and_one_without_a_reason_does_not() -> None:
    newer = stop_orders.of_record({"reason": "boredom", "grace_s": 1, "signal": "NONE"})
    assert newer is not None
    assert (newer.reason, newer.grace_s, newer.signum) == ("boredom", 1, None)
    for record in ({}, {"reason": 5}, {"reason": ""}, {"reason": "cancel", "grace_s": "soon"}):
        assert stop_orders.of_record(record) is None

"""The ladder on a clock that the test sets, the words for every end, and what a spec means: no process is started."""

from __future__ import annotations

import os
import resource
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuq.supervise import classify, kernel
from gpuq.supervise.classify import Ending, classify_end
from gpuq.supervise.ladder import Ladder
from gpuq.supervise.spawn import AttemptSpec, signal_number

USR1, TERM, KILL = int(signal.SIGUSR1), int(signal.SIGTERM), int(signal.SIGKILL)
OOM = f"a process of it was {classify.OOM_SENTENCE}"


def ladder(**changes: Any) -> Ladder:
    return Ladder(**{"started": 100.0, "time_limit_s": None, "kill_grace_s": 30.0, **changes})


def steps(ladder: Ladder, until: float = 1000.0) -> list[tuple[float, str]]:
    """All up to the first SIGKILL, each at the moment for which the ladder asks to be woken."""
    found: list[tuple[float, str]] = []
    while (at := ladder.next_at()) is not None and at <= until:
        due = ladder.due(at)
        assert due, "woken for nothing"
        found += [(at, step) for step in due]
        if "kill" in due:
            break
    return found


def test_nothing_is_due_before_a_stop_is_asked_for() -> None:
    calm = ladder()
    assert (calm.next_at(), calm.due(1e9), calm.reason) == (None, [], None)


def test_the_time_limit_is_announced_and_then_runs_its_grace() -> None:
    limited = ladder(time_limit_s=200.0, notice=USR1, notice_before_s=60.0)
    assert limited.next_at() == 240.0
    assert limited.due(239.9) == []
    assert steps(limited) == [(240.0, "notice"), (300.0, "terminate"), (330.0, "kill")]
    assert (limited.reason, limited.notice) == ("time_limit", USR1)


def test_a_notice_that_is_longer_than_the_time_limit_comes_at_the_start() -> None:
    assert steps(ladder(time_limit_s=20.0, notice=USR1, notice_before_s=60.0))[0] == (100.0, "notice")
    assert steps(ladder(time_limit_s=20.0))[0] == (120.0, "terminate")


@pytest.mark.parametrize(
    ("reason", "grace", "expected"),
    [
        ("cancel", None, [(110.0, "terminate"), (140.0, "kill")]),
        ("cancel", 5.0, [(110.0, "terminate"), (115.0, "kill")]),
        ("cancel", 0.0, [(110.0, "kill")]),
        ("cancel", -1.0, [(110.0, "kill")]),
        ("preempt", 20.0, [(110.0, "notice"), (120.0, "terminate"), (140.0, "kill")]),
        ("drain", 4.0, [(110.0, "notice"), (114.0, "terminate"), (118.0, "kill")]),
    ],
)
def test_a_stop_runs_notice_and_grace_and_forgets_the_time_limit(reason: str, grace: Any, expected: Any) -> None:
    asked = ladder(time_limit_s=15.0, notice=USR1, notice_before_s=10.0)
    asked.due(105.0)
    asked.request(110.0, reason, grace)
    assert steps(asked) == expected
    assert asked.reason == reason


def test_a_signal_that_a_stop_names_is_sent_first_in_place_of_the_jobs_own() -> None:
    asked = ladder(notice=USR1)
    asked.request(110.0, "cancel", 5.0, signum=2)
    assert steps(asked) == [(110.0, "notice"), (110.0, "terminate"), (115.0, "kill")]
    assert asked.notice == 2


@pytest.mark.parametrize(("grace", "kill_at"), [(600.0, 140.0), (5.0, 125.0), (0.0, 120.0)])
def test_asked_again_the_end_comes_sooner_and_never_later(grace: float, kill_at: float) -> None:
    asked = ladder()
    asked.request(110.0, "preempt")
    assert asked.due(110.0) == ["terminate"]
    asked.request(120.0, "preempt", grace)
    assert steps(asked) == [(kill_at, "kill")]


def test_asked_again_in_its_notice_the_notice_is_cut_short_too() -> None:
    asked = ladder(notice=USR1, notice_before_s=25.0)
    asked.request(110.0, "preempt", 30.0)
    assert asked.due(110.0) == ["notice"]
    asked.request(112.0, "cancel", 30.0)
    assert steps(asked) == [(112.0, "terminate"), (142.0, "kill")]
    assert asked.reason == "cancel"


@pytest.mark.parametrize(
    ("before", "later", "reason"),
    [
        ("preempt", "cancel", "cancel"),
        ("time_limit", "cancel", "cancel"),
        ("cancel", "preempt", "cancel"),
        ("preempt", "shutdown", "preempt"),
        ("strays", "shutdown", "shutdown"),
    ],
)
def test_the_first_reason_stands_unless_a_cancel_or_a_real_stop_takes_its_place(
    before: str, later: str, reason: str
) -> None:
    asked = ladder()
    asked.request(110.0, before)
    asked.request(111.0, later)
    assert asked.reason == reason


@pytest.mark.parametrize(("grace", "expected"), [(30.0, 152.0), (1.0, 151.0)])
def test_what_the_main_process_left_behind_has_two_seconds_or_the_shorter_grace(grace: float, expected: float) -> None:
    left = ladder(kill_grace_s=grace, time_limit_s=60.0)
    left.main_ended(150.0)
    assert steps(left) == [(150.0, "terminate"), (expected, "kill")]
    assert left.reason == "strays"


def test_what_is_left_of_a_stopped_job_has_the_rest_of_the_grace_without_the_notice() -> None:
    stopped = ladder(notice=USR1, notice_before_s=25.0)
    stopped.request(110.0, "preempt", 30.0)
    stopped.main_ended(120.0)
    assert steps(stopped) == [(120.0, "terminate"), (150.0, "kill")]
    late = ladder()
    late.request(110.0, "cancel", 30.0)
    assert late.due(110.0) == ["terminate"]
    late.main_ended(120.0)
    assert steps(late) == [(140.0, "kill")]


def test_sigkill_comes_again_ever_more_rarely_and_nothing_puts_it_off() -> None:
    stuck = ladder()
    stuck.request(0.0, "cancel", 0.0)
    pauses, at = [], 0.0
    for _ in range(10):
        assert stuck.due(at) == ["kill"]
        following = stuck.next_at()
        assert following is not None
        pauses.append(round(following - at, 6))
        stuck.request(at, "cancel", 100.0)
        at = following
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("end", "outcome", "error"),
    [
        ({"exit_code": 0}, "succeeded", None),
        ({"exit_code": 1}, "exit_nonzero", "ended with exit code 1"),
        ({"exit_code": 137}, "exit_nonzero", "ended with exit code 137"),
        ({"exit_code": 137, "oom_kills": 1}, "host_oom", f"ended with exit code 137: {OOM}"),
        ({"exit_code": 1, "oom_kills": 1}, "exit_nonzero", "ended with exit code 1"),
        ({"signum": KILL, "oom_kills": 1}, "host_oom", classify.OOM_SENTENCE),
        ({"signum": KILL}, "signal", "ended by SIGKILL"),
        ({"signum": TERM, "oom_kills": 1}, "signal", "ended by SIGTERM"),
        ({"signum": USR1, "noticed": USR1}, "time_limit", "ended by SIGUSR1, which was sent ahead of its time limit"),
        ({"signum": TERM, "noticed": USR1}, "signal", "ended by SIGTERM"),
        ({"signum": 200}, "signal", "ended by signal 200"),
        ({"exit_code": 0, "stop_reason": "cancel"}, "cancelled", "stopped: cancel"),
        ({"exit_code": 0, "stop_reason": "preempt"}, "preempted", "stopped: preempt"),
        ({"signum": TERM, "stop_reason": "drain"}, "preempted", "stopped: drain"),
        ({"signum": TERM, "stop_reason": "shutdown"}, "lost", classify.SHUT_DOWN),
        ({"stop_reason": "time_limit", "time_limit_s": 60.0}, "time_limit", "ran into its time limit of 60 s"),
        ({"signum": TERM, "stop_reason": "time_limit"}, "time_limit", "ran into its time limit"),
        ({"signum": TERM, "stop_reason": "whim"}, "cancelled", "stopped: whim"),
    ],
)  # fmt: skip
def test_every_end_has_its_outcome_and_its_sentence(end: dict[str, Any], outcome: str, error: str | None) -> None:
    assert classify_end(Ending(**end)) == (outcome, error)
    record = classify.exit_record(Ending(**end), token="t", started_at=4.5)
    assert record.pop("finished_at")
    assert record == {
        "schema": 1,
        "token": "t",
        "outcome": outcome,
        "exit_code": end.get("exit_code"),
        "signal": end.get("signum"),
        "error": error,
        "started_at": 4.5,
        "stop_reason": end.get("stop_reason"),
    }


@pytest.mark.parametrize(
    ("text", "kills"),
    [("low 1\noom 3\noom_kill 12\noom_group_kill 0\n", 12), ("oom 3\n", 0), ("a 1\noom_kill 0\n", 0), ("", 0)],
)
def test_the_kernels_count_of_oom_kills_is_read_from_its_own_line(tmp_path: Path, text: str, kills: int) -> None:
    (tmp_path / "events").write_text(text)
    assert classify.count_oom_kills(str(tmp_path / "events")) == kills
    assert classify.count_oom_kills(str(tmp_path / "absent")) == 0
    assert classify.count_oom_kills(str(tmp_path)) == 0


def test_a_spec_gives_every_field_and_the_absent_ones_their_defaults() -> None:
    least = vars(AttemptSpec({"argv": ["x", 1], "env": {"A": 2}}))
    assert least == {
        "token": "", "argv": ["x", "1"], "env": {"A": "2"}, "cwd": "/", "user": "", "uid": None, "gid": None,
        "umask": 0o022, "time_limit_s": None, "kill_grace_s": 30.0, "notice": None, "notice_before_s": 0.0,
        "hide_devices": [], "max_output_bytes": None, "max_result_bytes": None, "checkpoint_dir": "", "limits": {},
        "nice": None,
    }  # fmt: skip
    whole = {
        "token": "t", "argv": ["x"], "env": {}, "cwd": "/tmp", "user": "alice", "uid": 0, "gid": 7, "umask": 0o1077,
        "time_limit_s": 0, "kill_grace_s": 0, "signal": {"name": "usr1", "before_s": 12}, "hide_devices": ["/dev/x"],
        "max_output_bytes": 7, "max_result_bytes": 8, "checkpoint_dir": "/c", "limits": {"core": 0}, "nice": 3,
    }  # fmt: skip
    assert vars(AttemptSpec(whole)) == {
        **{name: value for name, value in whole.items() if name != "signal"},
        "umask": 0o077, "notice": USR1, "notice_before_s": 12.0, "limits": {resource.RLIMIT_CORE: 0},
    }  # fmt: skip


@pytest.mark.parametrize("bad", [True, -1, "60", float("nan"), None])
def test_what_is_no_number_of_seconds_counts_as_not_given(bad: object) -> None:
    spec = AttemptSpec({"argv": ["x"], "env": {}, "time_limit_s": bad, "kill_grace_s": bad, "uid": True, "umask": True})
    assert (spec.time_limit_s, spec.kill_grace_s, spec.uid, spec.umask) == (None, 30.0, None, 0o022)
    limits = {"core": bad, "nofile": -2, "stack": 2**63, "unknown": 1}
    assert AttemptSpec({"argv": ["x"], "env": {}, "limits": limits}).limits in ({}, {resource.RLIMIT_CORE: -1})
    assert AttemptSpec({"argv": ["x"], "env": {}, "limits": bad}).limits == {}


@pytest.mark.parametrize("record", [{}, {"argv": [], "env": {}}, {"argv": ["x"]}, {"argv": "x", "env": {}}])
def test_a_spec_without_a_program_or_an_environment_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no program or no environment"):
        AttemptSpec(record)


@pytest.mark.parametrize(
    ("name", "number"), [("USR1", USR1), ("SIGUSR1", USR1), ("term", TERM), ("_DFL", None), ("NONE", None), (10, None)]
)
def test_a_signal_is_known_with_and_without_its_prefix(name: object, number: int | None) -> None:
    assert signal_number(name) == number


def test_an_alarm_rings_when_its_moment_has_come_and_not_long_before() -> None:
    alarm = kernel.Alarm()
    try:
        alarm.set(kernel.since_boot() + 3600.0)
        assert select.select([alarm.fd], [], [], 0)[0] == []
        alarm.set(kernel.since_boot() - 1.0)
        assert select.select([alarm.fd], [], [], 20)[0] == [alarm.fd]
        alarm.clear()
        alarm.set(None)
        assert select.select([alarm.fd], [], [], 0)[0] == []
    finally:
        os.close(alarm.fd)


def test_a_changed_limit_counts_from_the_start_and_has_its_own_notice_and_grace() -> None:
    limited = ladder(time_limit_s=200.0, notice=USR1, notice_before_s=60.0)
    assert limited.change(150.0, 400.0, 10.0)
    assert steps(limited) == [(440.0, "notice"), (500.0, "terminate"), (510.0, "kill")]


def test_a_notice_that_was_given_is_given_again_for_a_later_limit_and_not_for_a_sooner_one() -> None:
    for limit, more in ((190.0, []), (400.0, [(440.0, "notice")])):
        limited = ladder(time_limit_s=200.0, notice=USR1, notice_before_s=60.0)
        assert limited.due(240.0) == ["notice"]
        assert limited.change(245.0, limit, 30.0)
        assert steps(limited) == [*more, (100.0 + limit, "terminate"), (130.0 + limit, "kill")]


def test_a_changed_limit_that_is_over_stops_the_job_now_and_none_never() -> None:
    late = ladder(time_limit_s=200.0, notice=USR1, notice_before_s=60.0)
    assert late.change(150.0, 20.0, 30.0)
    assert late.due(150.0) == ["notice", "terminate"]
    assert late.next_at() == 180.0
    endless = ladder(time_limit_s=200.0, notice=USR1, notice_before_s=60.0)
    assert endless.change(150.0, None, 30.0)
    assert endless.next_at() is None
    assert endless.change(160.0, 100.0, 30.0)
    assert endless.next_at() == 160.0


def test_a_stop_that_goes_on_is_not_put_off_by_a_changed_limit() -> None:
    stopped = ladder(time_limit_s=200.0)
    stopped.request(110.0, "cancel")
    assert not stopped.change(111.0, 4000.0, 90.0)
    assert steps(stopped) == [(110.0, "terminate"), (140.0, "kill")]

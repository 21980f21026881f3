"""Run-time expectations."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.ports.history import FinishedRun
from gpuq.scheduler.expect import BUCKETS, DEFAULT_S, RECENT, Expectation, Expectations, command_shape
from gpuq.scheduler.spread import Span

TRAIN = ("python", "/home/alice/train.py", "--lr", "0.1")


def run(
    run_s: float,
    *,
    user: str = "alice",
    command: tuple[str, ...] = TRAIN,
    outcome: str = "succeeded",
    limit: float | None = None,
) -> FinishedRun:
    return FinishedRun(
        job_id=1, user=user, gpus=1, command=command, time_limit_s=limit, outcome=outcome, run_s=run_s, finished_at=0.0
    )


def knowing(*runs: FinishedRun) -> Expectations:
    expectations = Expectations()
    for one in runs:
        expectations.learn(one)
    return expectations


def test_nothing_known_is_said() -> None:
    found = Expectations().expect("alice", TRAIN, 1, None)
    assert (found.seconds, found.samples, found.source) == (DEFAULT_S, 0, "nothing known yet")


def test_the_same_command_with_other_values_is_the_same_kind() -> None:
    known = knowing(run(100.0), run(300.0), run(9000.0, command=("python", "other.py")))
    found = known.expect("alice", ("/usr/bin/python", "train.py", "--lr=0.5"), 1, None)
    assert (found.seconds, found.samples) == (200.0, 2)
    assert found.source == "mean of the last 2 runs of this command by alice on 1 GPU with this --time"


@pytest.mark.parametrize(
    ("user", "command", "gpus", "seconds", "source"),
    [
        ("alice", TRAIN, 1, 20.0, "this command by alice on 1 GPU"),
        ("alice", TRAIN, 4, 20.0, "this command by alice"),
        ("alice", ("new",), 1, 20.0, "alice on 1 GPU"),
        ("alice", ("new",), 8, 20.0, "alice"),
        ("carol", ("new",), 1, 350.0, "everyone"),
    ],
)
def test_what_is_not_known_is_taken_from_a_wider_bucket(
    user: str, command: tuple[str, ...], gpus: int, seconds: float, source: str
) -> None:
    known = knowing(run(10.0), run(30.0), run(680.0, user="bob"), run(680.0, user="bob"))
    found = known.expect(user, command, gpus, None)
    assert found.seconds == seconds
    assert source in found.source


def test_one_run_is_not_enough_for_a_command_but_for_a_user() -> None:
    assert knowing(run(10.0)).expect("alice", TRAIN, 1, None).source == "the only run so far of alice on 1 GPU"


def test_a_declared_time_caps_the_expectation() -> None:
    found = knowing(run(1000.0), run(1000.0)).expect("alice", TRAIN, 1, 60.0)
    assert found.seconds == 60.0
    assert found.source.startswith("its --time")


def test_jobs_of_one_declared_time_are_a_kind() -> None:
    known = knowing(
        *[run(s, command=(), limit=900.0) for s in (10.0, 20.0)], *[run(5000.0, command=()) for _ in range(5)]
    )
    assert known.expect("alice", (), 1, 900.0).seconds == 15.0


def test_a_long_run_is_compared_with_the_long_ones_only() -> None:
    known = knowing(*[run(s) for s in (10.0, 20.0, 1000.0, 3000.0)])
    assert known.expect("alice", TRAIN, 1, None, elapsed_s=50.0).seconds == 2000.0


def test_what_people_are_told_is_the_median() -> None:
    known = knowing(*[run(s) for s in (10.0, 20.0, 60.0, 1000.0, 5000.0)])
    found = known.expect("alice", TRAIN, 1, None, use_median=True)
    assert found.seconds == 60.0
    assert found.source == "median of the last 5 runs of exactly this command by alice on 1 GPU"
    assert known.expect("alice", TRAIN, 1, None, 30.0, use_median=True).seconds == 1000.0


def test_a_run_longer_than_all_is_expected_to_last_as_long_again() -> None:
    known = knowing(run(10.0), run(20.0))
    assert known.expect("alice", TRAIN, 1, None, elapsed_s=5000.0).seconds == 10_000.0


def test_an_expectation_is_always_longer_than_what_has_passed() -> None:
    known = knowing(run(10.0), run(20.0))
    assert known.expect("alice", TRAIN, 1, 30.0, elapsed_s=31.0).seconds > 31.0


def test_failures_and_cancellations_count_and_what_gpuq_ended_does_not() -> None:
    known = knowing(run(10.0, outcome="exit_nonzero"), run(20.0, outcome="cancelled"))
    for outcome in ("preempted", "lost", "launch_error"):
        known.learn(run(1e6, outcome=outcome))
    assert known.expect("alice", TRAIN, 1, None).seconds == 15.0
    assert known.learned == 2


def test_only_recent_runs_count() -> None:
    known = knowing(*[run(1e6) for _ in range(100)], *[run(10.0) for _ in range(RECENT)])
    assert known.expect("alice", TRAIN, 1, None).seconds == pytest.approx(10.0)


def test_memory_is_bounded() -> None:
    known = Expectations()
    for n in range(BUCKETS):
        known.learn(run(1.0, user=f"user{n}"))
    assert len(known._known) == BUCKETS


@pytest.mark.parametrize(
    ("command", "shape"),
    [
        (("torchrun", "--nproc", "2", "train.py", "--epochs=3"), ("torchrun", "train.py", "--epochs", "--nproc")),
        (("python", "-m", "pkg.train", "--x", "1"), ("python", "pkg.train", "--x", "-m")),
        (("./run_12.sh",), ("run_12.sh",)),
        (("bash", "run_12.sh"), ("bash", "run_#.sh")),
        (("sleep", "60"), ("sleep",)),
    ],
)
def test_command_shapes(command: tuple[str, ...], shape: tuple[str, ...]) -> None:
    assert command_shape(command) == (shape[0], *shape[1:])


@pytest.mark.parametrize(
    ("elapsed", "use_median", "seconds", "samples"),
    [
        (0.0, False, 15.0, 4), (0.0, True, 10.0, 4), (0.5, False, 30.0, 2), (0.5, True, 3600.0, 0),
        (20.0, False, 40.0, 1),
        (19.9, False, 30.0, 2), (40.0, False, 3600.0, 0), (1800.0, False, 3600.0, 0), (1801.0, True, 3602.0, 0),
    ],
)  # fmt: skip
def test_only_runs_that_lasted_longer_count_once_a_job_runs(
    elapsed: float, use_median: bool, seconds: float, samples: int
) -> None:
    known = knowing(*[run(s) for s in (0.0, 0.0, 20.0, 40.0)])
    found = known.expect("alice", TRAIN, 1, None, elapsed, use_median=use_median)
    assert (found.seconds, found.samples) == (seconds, samples)


@pytest.mark.parametrize("user", ["alice", "carol"])
def test_nothing_is_expected_to_last_less_than_a_second(user: str) -> None:
    for run_s, seconds in ((0.0, 1.0), (1.0, 1.0), (1.5, 1.5)):
        assert knowing(run(run_s), run(run_s)).expect(user, ("new",), 1, None).seconds == seconds


def test_a_run_of_no_time_counts_and_one_of_less_does_not() -> None:
    known = knowing(run(0.0), run(-0.5))
    assert (known.learned, known.expect("alice", (), 1, None).samples) == (1, 1)


@pytest.mark.parametrize(
    ("limit", "elapsed", "seconds", "source", "samples"),
    [
        (99.0, 0.0, 99.0, "its --time; without it, mean of the last 2 runs of this command by alice on 1 GPU", 2),
        (100.0, 0.0, 100.0, "mean of the last 2 runs of this command by alice on 1 GPU", 2),
        (99.0, 98.0, 99.0, "its --time; without it, mean of the last 2 runs of this command by alice on 1 GPU", 2),
        (99.0, 99.0, 198.0, "it runs longer than its --time", 0),
        (50.0, 60.0, 120.0, "it runs longer than its --time", 0),
    ],
)
def test_a_limit_caps_and_is_named_until_it_is_over(
    limit: float, elapsed: float, seconds: float, source: str, samples: int
) -> None:
    found = knowing(run(100.0), run(100.0)).expect("alice", TRAIN, 1, limit, elapsed)
    assert (found.seconds, found.source, found.samples) == (seconds, source, samples)


def test_words_for_several_gpus_for_one_run_and_for_everyone() -> None:
    known = knowing(run(10.0, command=()), run(30.0, command=(), user="bob"))
    assert known.expect("alice", (), 2, None).source == "the only run so far of alice"
    assert known.expect("carol", (), 1, None).source == "mean of the last 2 runs of everyone"
    for elapsed in (0.5, 5.0):
        assert known.expect("carol", (), 1, None, elapsed).source == "nothing known yet"
    wide = Expectations()
    wide.learn(FinishedRun(1, "alice", 2, (), None, "succeeded", 7.0, 0.0))
    assert wide.expect("alice", (), 2, None).source == "the only run so far of alice on 2 GPUs"
    wide.learn(FinishedRun(1, "bob", 0, (), None, "succeeded", 7.0, 0.0))
    assert wide.expect("bob", (), 0, None).source == "the only run so far of bob on 0 GPUs"


@pytest.mark.parametrize(("runs", "mean"), [(49, 1.0), (50, 1.0), (51, 1.0), (99, 50.5)])
def test_the_last_fifty_are_recent(runs: int, mean: float) -> None:
    """Long ones first, then 50 short ones, as many as fit."""
    values = [100.0] * (runs - 50 if runs < 99 else 25) + [1.0] * (min(runs, 50) if runs < 99 else 25)
    assert knowing(*map(run, values)).expect("alice", TRAIN, 1, None).seconds == pytest.approx(mean)


def test_the_last_two_hundred_of_everyone_are_recent() -> None:
    known = knowing(*[run(100.0, user=f"u{n}") for n in range(100)], *[run(1.0, user=f"v{n}") for n in range(199)])
    found = known.expect("carol", (), 1, None)
    assert (found.seconds, found.samples) == (pytest.approx(299.0 / 200), 200)


def test_of_too_many_circles_the_one_unused_for_longest_is_forgotten() -> None:
    known = Expectations(default_s=5.0)
    known.learn(run(7.0, user="first", command=()))
    known.learn(run(8.0, user="second", command=()))
    for n in range(BUCKETS // 3 - 2):  # A user has three.
        known.learn(run(1.0, user=f"user{n}", command=()))
    known.learn(run(9.0, user="first", command=()))
    assert known.expect("second", (), 1, None).seconds == 8.0
    for n in range(2):
        known.learn(run(1.0, user=f"more{n}", command=()))
    assert known.expect("first", (), 1, None).seconds == 8.0
    assert "everyone" in known.expect("second", (), 1, None).source


@pytest.mark.parametrize(
    ("command", "shape"),
    [
        (("-x", "1.5", "a"), ("-x", "a")),
        (("p", "1.2.3", "5"), ("p", "#.#.#")),
        (("/a/b/p", "/c/d.py", "e.py"), ("p", "d.py")),
        (("p", "data", "x.sh", "--b", "--a=1", "--a=2"), ("p", "x.sh", "--a", "--b")),
        (("p", *[f"-{n:02d}" for n in range(40)]), ("p", *[f"-{n:02d}" for n in range(32)])),
        (("p",), ("p",)),
    ],
)
def test_a_shape_is_program_script_and_flags(command: tuple[str, ...], shape: tuple[str, ...]) -> None:
    assert command_shape(command) == shape


def told(known: Expectations, limit: float | None = None, elapsed: float = 0.0, **who: Any) -> Expectation:
    """What people are told of a run of TRAIN by alice."""
    asked: dict[str, Any] = {"user": "alice", "command": TRAIN, "gpus": 1, **who}
    return known.expect(time_limit_s=limit, elapsed_s=elapsed, use_median=True, **asked)


@pytest.mark.parametrize("runs", [0, 1, 2])
def test_people_are_told_the_limit_and_not_what_one_or_two_short_runs_say(runs: int) -> None:
    found = told(knowing(*[run(5.0)] * runs), limit=7200.0)
    assert (found.seconds, found.samples, found.span) == (7200.0, 0, Span(0.0, 7200.0))
    assert found.source == "its --time; too few such runs are known"
    unlimited = told(knowing(*[run(5.0)] * runs))
    assert (unlimited.seconds, unlimited.span) == (DEFAULT_S, Span(0.0, 4 * DEFAULT_S))


def test_the_same_arguments_come_first_then_the_same_command_then_others_of_it() -> None:
    other = ("python", "train.py", "--lr", "0.2")
    known = knowing(*[run(100.0)] * 3, *[run(900.0, command=other)] * 4)
    assert (told(known).seconds, told(known).samples) == (100.0, 3)
    assert "exactly this command" in told(known).source
    third = told(known, command=("python", "train.py", "--lr", "0.3"))
    assert (third.seconds, third.samples) == (900.0, 7)
    stranger = told(known, user="bob")
    assert (stranger.seconds, stranger.source) == (900.0, "median of the last 7 runs of this command by others")


def test_few_runs_have_a_wide_span_and_many_their_percentiles() -> None:
    alike = told(knowing(*[run(100.0)] * 3)).span
    assert alike == pytest.approx(Span(95.0, 105.0))
    few = told(knowing(*map(run, (50.0, 100.0, 200.0)))).span
    assert few is not None
    assert few.low < 50.0 < 200.0 < few.high
    many = told(knowing(*[run(float(n)) for n in range(1, 51)])).span
    assert many == Span(5.0, 46.0)


def test_a_limit_ends_the_span_and_what_has_passed_begins_it() -> None:
    known = knowing(*[run(float(n)) for n in range(10, 500, 10)])
    assert told(known, limit=300.0).span == Span(40.0, 300.0)
    late = told(known, elapsed=400.0).span
    assert late is not None
    assert late.low >= 400.0
    assert told(known, limit=300.0, elapsed=301.0).seconds == 602.0

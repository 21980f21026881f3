"""Run-time expectations."""

from __future__ import annotations

import pytest

from gpuq.ports.history import FinishedRun
from gpuq.scheduler.expect import BUCKETS, DEFAULT_S, RECENT, Expectations, command_shape

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
    assert found.source == "median of the last 5 runs of this command by alice on 1 GPU with this --time"
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

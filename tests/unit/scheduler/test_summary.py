"""What a replay of a trace comes to, worked out by hand."""

from __future__ import annotations

import pytest

from gpuq.domain.priority import Priority
from gpuq.scheduler.simulate import Placement, Replay, TraceJob, simulate, summary
from gpuq.scheduler.snapshot import Snapshot


def placed(row: int, submit_s: float, start_s: float, end_s: float, gpus: int) -> Placement:
    job = TraceJob(row, submit_s, end_s - start_s, gpus)
    return Placement(job, start_s, end_s, 0, tuple(range(gpus)))


def test_nothing_replayed_is_zero_everywhere() -> None:
    assert summary(Replay([], [], 8, 1)) == dict.fromkeys(
        [
            "jobs", "mean_wait_s", "median_wait_s", "p95_wait_s", "max_wait_s", "mean_jct_s", "utilisation",
            "makespan_s", "largest_max_wait_s",
        ],
        0.0,
    )  # fmt: skip


def test_waits_completion_times_and_utilisation() -> None:
    found = [placed(0, 10.0, 10.0, 110.0, 1), placed(1, 20.0, 40.0, 60.0, 2), placed(2, 30.0, 35.0, 45.0, 2)]
    assert summary(Replay(found, [], 2, 3)) == pytest.approx(
        {
            "jobs": 3,
            "mean_wait_s": 25.0 / 3,
            "median_wait_s": 5.0,
            "p95_wait_s": 20.0,
            "max_wait_s": 20.0,
            "mean_jct_s": (100.0 + 40.0 + 15.0) / 3,
            "utilisation": (100.0 + 40.0 + 20.0) / (100.0 * 6),
            "makespan_s": 100.0,
            "largest_max_wait_s": 20.0,
        }
    )


@pytest.mark.parametrize(("count", "p95"), [(1, 0.0), (19, 18.0), (20, 18.0), (21, 19.0), (100, 94.0), (101, 95.0)])
def test_nineteen_of_twenty_wait_at_most_the_95th_percentile(count: int, p95: float) -> None:
    found = [placed(n, 0.0, float(n), n + 1.0, 1) for n in range(count)]
    assert summary(Replay(found, [], 1, 1))["p95_wait_s"] == p95


def test_jobs_that_take_no_time_have_no_utilisation() -> None:
    assert summary(Replay([placed(0, 5.0, 5.0, 5.0, 1)], [], 1, 1))["utilisation"] == 0.0


def test_a_job_is_killed_at_its_limit_and_no_earlier() -> None:
    assert TraceJob(0, 0.0, 10.0, 1).run_s == 10.0
    assert TraceJob(0, 0.0, 10.0, 1, limit_s=5.0).run_s == 5.0
    assert TraceJob(0, 0.0, 10.0, 1, limit_s=15.0).run_s == 10.0


def starts(*jobs: TraceJob, **how: object) -> dict[int, tuple[float, int, tuple[int, ...]]]:
    replay = simulate(jobs, **{"gpus": 2, "expect": "exact", **how})  # type: ignore[arg-type]
    return {one.job.row: (one.start_s, one.node, one.gpus) for one in replay.placements}


BLOCKED = (
    TraceJob(0, 0.0, 100.0, 1),
    TraceJob(1, 1.0, 50.0, 2),
    TraceJob(2, 2.0, 98.0, 1),
    TraceJob(3, 2.0, 10.0, 1),
    TraceJob(4, 3.0, 5.0, 0),
)


@pytest.mark.parametrize(
    ("backfill", "wanted"),
    [
        ("none", {0: 0.0, 1: 100.0, 2: 150.0, 3: 150.0, 4: 3.0}),
        # The third ends exactly when the second has its GPUs.
        ("easy", {0: 0.0, 1: 100.0, 2: 2.0, 3: 150.0, 4: 3.0}),
        ("greedy", {0: 0.0, 1: 100.0, 2: 2.0, 3: 150.0, 4: 3.0}),
    ],
)
def test_each_way_of_backfilling_starts_the_jobs_when_it_should(backfill: str, wanted: dict[int, float]) -> None:
    found = starts(*BLOCKED, order="fifo", backfill=backfill)
    assert {row: start for row, (start, _, _) in found.items()} == wanted


def test_a_second_longer_and_the_reservation_would_be_pushed() -> None:
    longer = (*BLOCKED[:2], TraceJob(2, 2.0, 98.5, 1))
    assert starts(*longer, order="fifo")[2][0] == 150.0
    greedy = starts(*longer, order="fifo", backfill="greedy")
    assert (greedy[1][0], greedy[2][0]) == (100.5, 2.0)


def test_nodes_are_used_and_too_big_jobs_left_out() -> None:
    jobs = [TraceJob(n, 0.0, 10.0, 2) for n in range(3)] + [TraceJob(3, 0.0, 10.0, 3)]
    assert starts(*jobs, nodes=2) == {0: (0.0, 0, (0, 1)), 1: (0.0, 1, (0, 1)), 2: (10.0, 0, (0, 1))}
    replay = simulate(jobs, gpus=2, nodes=2)
    assert (replay.impossible, replay.gpus, replay.nodes) == ([jobs[3]], 2, 2)
    assert simulate(jobs[3:], gpus=3).impossible == []


def test_priority_ageing_and_spacing_order_the_line() -> None:
    busy = TraceJob(0, 0.0, 100.0, 2, user="x")
    low = TraceJob(1, 1.0, 10.0, 2, priority=Priority.LOW)
    high = TraceJob(2, 50.0, 10.0, 2, priority=Priority.HIGH)
    assert starts(busy, low, high)[2][0] == 100.0
    assert starts(busy, low, high, priority_aging_s=24.0)[2][0] == 110.0
    assert starts(busy, low, high, priority_aging_s=25.0)[2][0] == 100.0
    flood = [TraceJob(n, float(n), 10.0, 2, user="a") for n in (1, 2, 3)]
    other = TraceJob(4, 4.0, 10.0, 2, user="b")
    assert starts(busy, *flood, other)[4][0] == 130.0
    assert starts(busy, *flood, other, user_spacing_s=1.5)[4][0] == 120.0
    assert starts(busy, *flood, other, user_spacing_s=3.5)[4][0] == 110.0


def test_a_declared_time_moves_a_job_up_unless_the_order_is_by_submission() -> None:
    jobs = (
        TraceJob(0, 0.0, 100.0, 2, limit_s=100.0),
        TraceJob(1, 1.0, 10.0, 2, limit_s=60.0),
        TraceJob(2, 2.0, 10.0, 2, limit_s=20.0),
    )
    assert starts(*jobs)[2][0] == 100.0
    assert starts(*jobs, order="fifo")[2][0] == 110.0


def test_everything_that_arrives_is_shown_with_what_runs_then() -> None:
    seen: list[tuple[int, float, int, list[int]]] = []
    jobs = [TraceJob(0, 0.0, 10.0, 2), TraceJob(1, 5.0, 10.0, 2), TraceJob(2, 5.0, 10.0, 1)]

    def watch(job: TraceJob, view: Snapshot, now: float) -> None:
        seen.append((job.row, now, len(view.holdings), [one.id for one in view.waiting]))

    simulate(jobs, gpus=2, watch=watch)
    assert seen == [(0, 0.0, 0, [0]), (1, 5.0, 1, [1, 2]), (2, 5.0, 1, [1, 2])]


def test_what_has_ended_is_what_reservations_expect() -> None:
    """The user's runs took 10 s, so that a third is taken for short enough, though it is not."""
    past = [TraceJob(n, 0.0, 10.0, 1, user="a") for n in (0, 1)]
    busy = TraceJob(2, 20.0, 100.0, 1, user="b", limit_s=100.0)
    first = TraceJob(3, 21.0, 10.0, 2, user="b", limit_s=100.0)
    third = TraceJob(4, 22.0, 500.0, 1, user="a")
    assert starts(*past, busy, first, third, order="fifo", expect="history")[4][0] == 22.0
    assert starts(*past, busy, first, third, order="fifo")[4][0] > 100.0

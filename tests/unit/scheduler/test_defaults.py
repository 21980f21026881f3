"""What a plain value means when nothing is said, and turns of the plan that only its edges show."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.priority import Priority, Ranking
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.scheduler.decide import Decision, decide, run_time, yields_at
from gpuq.scheduler.explain import clock, explain
from gpuq.scheduler.fit import Machine, Room
from gpuq.scheduler.forecast import forecast
from gpuq.scheduler.limits import Usage
from gpuq.scheduler.order import Line
from gpuq.scheduler.plan import WAITS, plan
from gpuq.scheduler.snapshot import Candidate, Device, Holding, Policy, Preempt, Snapshot, Start, Wait

NOW = 1_700_000_000.0


def test_what_is_not_said_of_a_job_a_holder_a_gpu_and_a_policy_is_nothing() -> None:
    job = Candidate(1, 5.0, Priority.LOW, "ann", 1, 10.0)
    assert job == Candidate(
        1, 5.0, Priority.LOW, "ann", 1, 10.0, None, None, None, None, None, False, None, None, 0.0, 0, None
    )
    holding = Holding(1, "ann", (), 0.0, 10.0)
    assert holding == Holding(1, "ann", (), 0.0, 10.0, None, {}, Priority.NORMAL, None, None, False, False, 0)
    assert Device("g", 0, 10) == Device("g", 0, 10, "", None, {}, None, 0, 0)
    assert Policy() == Policy("easy", 0, 0, 0, {}, 300.0, 2, Ranking("aged", None, 0.0), {})
    assert Snapshot([], [], []) == Snapshot([], [], [], Policy(), None, None, None)
    assert Wait(1, Reason(ReasonCode.PRIORITY, "x")).reserved_at is None
    room = Room(Machine([]))
    assert not Decision(room, Line(), Usage(Policy(), ())).paused
    assert Ranking().score(Priority.CRITICAL, 7.0, 0.0) == 7.0


def test_a_limit_of_zero_is_no_limit(build: Any) -> None:
    assert Usage(Policy(), [build.held(9, array_id=3)]).reached(build.job(1, array_id=3, array_limit=0)) is None
    jobs = [build.job(1, 0, user="bob"), build.job(2, 9, user="bob")]
    assert {a.job_id for a in plan(build.seen(build.box(9), jobs, [build.held(8)]), NOW) if isinstance(a, Start)} == {
        1,
        2,
    }


@pytest.mark.parametrize(
    ("facts", "now", "end"),
    [
        ({}, 100.0, 1000.0),
        ({"preemptible": True}, 100.0, 300.0),
        ({"preemptible": True}, 299.0, 300.0),
        ({"preemptible": True}, 301.0, 301.0),
        ({"preemptible": True, "preemptions_last_hour": 1}, 100.0, 300.0),
        ({"preemptible": True, "preemptions_last_hour": 2}, 100.0, 1000.0),
        ({"preemptible": True, "until": 200.0}, 100.0, 200.0),
        ({"preemptible": True, "stopping": True}, 100.0, 100.0),
    ],
)
def test_a_holder_yields_from_its_least_run_on_or_at_its_end(
    build: Any, facts: dict[str, Any], now: float, end: float
) -> None:
    assert yields_at(build.held(1, 0, **facts), Policy(), now) == end


def test_a_preemptible_job_holds_gpus_for_its_least_run_only_while_it_may_be_asked(build: Any) -> None:
    seconds = run_time(build.seen([], []))
    assert seconds(build.job(1, 1, 900.0)) == 900.0
    assert seconds(build.job(1, 1, 900.0, preemptible=True)) == 300.0
    assert seconds(build.job(1, 1, 200.0, preemptible=True)) == 200.0
    assert seconds(build.job(1, 1, 900.0, preemptible=True, preemptions_last_hour=2)) == 900.0
    known = run_time(build.seen([], [], expected=lambda job: 7.0 * job.id))
    assert known(build.job(3)) == 21.0


@pytest.mark.parametrize(("since", "asked"), [(299.9, False), (300.0, True), (300.1, True)])
def test_a_holder_is_asked_to_yield_from_its_least_run_on(build: Any, since: float, asked: bool) -> None:
    cheap = build.held(9, 0, started_at=NOW - since, until=9000.0, preemptible=True)
    assert (Preempt(9, 1) in plan(build.seen(build.box(1), [build.job(1, submitted_at=NOW)], [cheap]), NOW)) is asked


def test_of_two_that_began_together_the_older_job_yields(build: Any) -> None:
    cheap = [build.held(n, at, started_at=NOW - 900.0, until=9e4, preemptible=True) for at, n in enumerate((8, 7))]
    actions = plan(build.seen(build.box(2), [build.job(1, submitted_at=NOW)], cheap), NOW)
    assert [action for action in actions if isinstance(action, Preempt)] == [Preempt(7, 1)]


@pytest.mark.parametrize(
    ("later", "text"), [(0.0, "22:13 UTC"), (86399.0, "22:13 UTC"), (86400.0, "2023-11-15 22:13 UTC")]
)
def test_a_time_has_its_date_from_a_day_ahead(later: float, text: str) -> None:
    assert clock(NOW + later, NOW) == text


def test_four_gpus_are_named_and_the_others_counted(build: Any) -> None:
    for count, more in ((4, ""), (5, "; and 1 more"), (7, "; and 3 more")):
        holdings = [build.held(10 + at, at, started_at=NOW, until=60.0 * (9 - at)) for at in range(count)]
        [reason] = explain(build.seen(build.box(count), [build.job(1, submitted_at=NOW)], holdings), 1, NOW)
        named = "; ".join(
            f"gpu {at} held by job {10 + at} until about {clock(NOW + 60.0 * (9 - at), NOW)}"
            for at in sorted(range(count), reverse=True)[:4]
        )
        assert reason == Reason(ReasonCode.RESOURCES, f"needs 1 GPU, 0 free; {named}{more}; first in line")


def test_a_lane_without_gpus_says_how_full_it_is(build: Any) -> None:
    snapshot = build.seen(build.box(1), [build.job(1, 0), build.job(2, 0)], [build.held(9)], policy=Policy(cpu_jobs=2))
    actions = plan(snapshot, NOW)
    text = "2 of at most 2 jobs without GPUs are running"
    assert actions == [Start(1, ()), Wait(2, Reason(ReasonCode.RESOURCES, text))]


def test_what_is_asked_for_is_said_whole(build: Any) -> None:
    job = build.job(1, 2, gpu_model="H100", gpu_ids=(0, 3), gpu_mem_mb=5)
    [reason] = explain(build.seen(build.box(2), [job]), 1, NOW)
    text = "needs 2 GPUs of model H100 out of 0,3 with 5 MiB each; this machine has 0"
    assert reason == Reason(ReasonCode.CONSTRAINT, text)


def test_what_is_out_of_service_is_counted_and_a_process_outside_the_queue_named_first(build: Any) -> None:
    down = Reason(ReasonCode.GPU_UNHEALTHY, "gpu 1 is down")
    taken = Reason(ReasonCode.EXTERNAL_PROCESS, "gpu 2 is taken")
    devices = [Device("a", 0, 10), Device("b", 1, 10, unavailable=down), Device("c", 2, 10, unavailable=taken)]
    [reason] = explain(build.seen(devices, [build.job(1, 3)]), 1, NOW)
    assert reason == Reason(ReasonCode.EXTERNAL_PROCESS, "needs 3 GPUs, 1 in service; gpu 1 is down; gpu 2 is taken")
    [reason] = explain(build.seen(devices[:2], [build.job(1, 2)]), 1, NOW)
    assert reason.code is ReasonCode.GPU_UNHEALTHY


def test_fifty_are_told_why_they_wait_and_the_first_in_line_besides(build: Any) -> None:
    jobs = [build.job(n, submitted_at=NOW + n) for n in range(1, 100)]
    waits = [a.job_id for a in plan(build.seen(build.box(1), jobs, [build.held(0, 0)]), NOW) if isinstance(a, Wait)]
    assert waits == list(range(1, WAITS + 2))
    assert WAITS == 50


def test_memory_seen_in_use_beyond_the_shares_leaves_less_for_one_more(build: Any) -> None:
    devices = [Device("gpu0", 0, 100, unaccounted_mb=30)]
    share = build.held(9, 0, mem_mb=20, peak_mb={"gpu0": 40}, started_at=NOW, until=60.0)
    for mem_mb, starts in ((30, True), (31, False)):
        decision = decide(build.seen(devices, [build.job(1, gpu_mem_mb=mem_mb)], [share]), NOW)
        assert bool(decision.starts) is starts


def test_a_forecast_gives_every_run_a_second_at_least_and_starts_with_now(build: Any) -> None:
    jobs = [build.job(1, 1, 0.0), build.job(2, 1, 1.0), build.job(3, 1, 5.0)]
    found = forecast(build.seen(build.box(1), jobs), 100.0)
    assert found.start == {1: 100.0, 2: 101.0, 3: 102.0}
    assert found.end == {1: 101.0, 2: 102.0, 3: 107.0}
    seen = build.seen(build.box(1), jobs, expected=lambda job: 10.0)
    assert forecast(seen, 100.0).start == {1: 100.0, 2: 110.0, 3: 120.0}
    assert forecast(seen, 100.0, most=0).start == {}


def test_a_forecast_promises_a_reservation_once(build: Any) -> None:
    """The slack of who declares nothing is counted from when it came first, and does not grow with the wait."""
    promises: dict[int, float] = {}
    first = build.job(1, 2, 10.0, submitted_at=0.0)
    snapshot = build.seen(build.box(2), [first], [build.held(9, 0, until=200.0)], promises=promises)
    assert forecast(snapshot, 100.0).start == {1: 200.0}
    assert promises == {}

"""What is told with an estimate: four of five starts, and ends, lie within the span that was told. Counted, on the
traces of a team and on made-up histories with a fixed seed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.commands.replay import read_trace
from gpuq.scheduler.forecast import Yielding, forecast
from gpuq.scheduler.making_room import with_preemptions
from gpuq.scheduler.simulate import TraceJob, simulate
from gpuq.scheduler.snapshot import Snapshot
from gpuq.scheduler.spread import COVERED, Span

DATA = Path(__file__).parent / "data"
# Who waits less than that needs no estimate; and what people are told is as exact as that.
SHORTEST_WAIT_S = 60.0
EXACT_S = 60.0


def made_up(seed: int, between_s: float, count: int = 800) -> list[TraceJob]:
    """Six users with jobs of their own kinds, of skewed lengths; some declare a limit."""
    chance = random.Random(seed)
    users = [f"u{number}" for number in range(6)]
    usual = {(user, gpus): chance.choice([300, 900, 3600, 7200]) for user in users for gpus in (1, 2, 4, 8)}
    jobs, time = [], 0.0
    for row in range(count):
        user, gpus = chance.choice(users), chance.choices([1, 2, 4, 8], [6, 3, 2, 0.5])[0]
        lasts = max(1.0, usual[user, gpus] * chance.lognormvariate(0, 0.8))
        limit = usual[user, gpus] * chance.choice([2.0, 4.0, 8.0]) if chance.random() < 0.5 else None
        jobs.append(TraceJob(row, time, lasts, gpus, user, limit))
        time += chance.expovariate(1 / between_s)
    return jobs


def starts_within(jobs: list[TraceJob], every: int) -> tuple[int, int]:
    """Of every `every`-th job that waits: how many started within the span that they were told when they came, and
    how many there are."""
    told: dict[int, tuple[float, Span]] = {}

    def watch(job: TraceJob, snapshot: Snapshot, now: float) -> None:
        if job.row % every == 0:
            foreseen = forecast(snapshot, now)
            told[job.row] = foreseen.start[job.row], foreseen.start_span[job.row]

    within = waited = 0
    for one in simulate(jobs, watch=watch).placements:
        if one.job.row not in told:
            continue
        start, (low, high) = told[one.job.row]
        assert low <= start <= high
        if max(one.wait_s, start - one.job.submit_s) >= SHORTEST_WAIT_S:
            waited += 1
            within += low - EXACT_S <= one.start_s <= high + EXACT_S
    return within, waited


def test_four_of_five_starts_are_within_what_was_told() -> None:
    traces = [read_trace(path) for path in sorted(DATA.glob("team-a-*.csv.gz"))]
    histories = [made_up(1, 1800.0), made_up(2, 1500.0), made_up(3, 1200.0)]
    counted = [starts_within(jobs, every=10) for jobs in (*traces, *histories)]
    within, waited = (sum(each) for each in zip(*counted, strict=True))
    assert waited > 400
    assert COVERED <= within / waited < 0.95
    # Nobody pays for the others.
    assert all(good / there >= COVERED - 0.1 for good, there in counted if there >= 30)


def test_four_of_five_runs_end_within_what_was_told_when_they_began() -> None:
    within = counted = 0
    running: dict[int, Span] = {}

    def watch(job: TraceJob, snapshot: Snapshot, now: float) -> None:
        spans = forecast(snapshot, now, most=0).end_span
        running.update({held.job_id: spans[held.job_id] for held in snapshot.holdings if held.job_id not in running})

    for one in simulate(made_up(5, 2400.0), watch=watch).placements:
        if one.job.row in running and one.job.row > 100:
            low, high = running[one.job.row]
            counted += 1
            within += low - EXACT_S <= one.end_s <= high + EXACT_S
    assert counted > 300
    assert COVERED <= within / counted < 0.95


def test_a_job_that_starts_now_is_certain_and_one_behind_it_is_not(build: Any) -> None:
    jobs = [build.job(1, 1, 100.0), build.job(2, 1, 100.0)]
    seen = build.seen(build.box(1), jobs, span=lambda job: Span(40.0, 190.0))
    found = forecast(seen, 1000.0)
    assert found.start_span[1] == Span(1000.0, 1000.0)
    assert found.end_span[1] == Span(1040.0, 1190.0)
    low, high = found.start_span[2]
    assert low < 1040.0 < 1190.0 < high
    # Their squares add up: 60 and 60 to the early side, 90 and 90 to the late.
    assert found.end_span[2] == pytest.approx(Span(1200.0 - 7200**0.5, 1200.0 + 16200**0.5))


def test_who_is_stopped_for_whom_is_foreseen_and_named(build: Any) -> None:
    cheap = build.held(9, 0, until=9000.0, started_at=0.0, preemptible=True)
    seen = build.seen(build.box(1), [build.job(1, 1, 50.0)], [cheap])
    found = forecast(seen, 100.0)
    assert found.yields == {9: Yielding(300.0, 1)}
    [reason] = with_preemptions([], seen, found, 1, 100.0)
    assert reason.text == "job 9 (normal, preemptible) will be stopped at 00:05 UTC to make room"
    assert with_preemptions([], seen, found, 2, 100.0) == []

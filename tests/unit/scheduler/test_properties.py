"""Safety of the plan in words, on machines and lines that nobody thought of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.domain.priority import Priority, score
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.scheduler.decide import decide
from gpuq.scheduler.forecast import forecast
from gpuq.scheduler.order import Line
from gpuq.scheduler.placement import positions
from gpuq.scheduler.plan import plan
from gpuq.scheduler.simulate import TraceJob, simulate
from gpuq.scheduler.snapshot import Candidate, Device, Holding, Policy, Snapshot, Start, Wait

NOW = 1000.0
MEMORY = 24_000
GONE = Reason(ReasonCode.GPU_UNHEALTHY, "gone")


@st.composite
def machines(draw: st.DrawFn) -> list[Device]:
    models = st.sampled_from(["A100", "RTX 4090"])
    return [
        Device(f"gpu{n}", n, MEMORY, draw(models), n // 2, unavailable=draw(st.sampled_from([None, None, None, GONE])))
        for n in range(draw(st.integers(1, 8)))
    ]


@st.composite
def jobs(draw: st.DrawFn, number: int) -> Candidate:
    gpus = draw(st.sampled_from([0, 1, 1, 2, 3, 4, 8]))
    limit = draw(st.sampled_from([None, 60.0, 3600.0]))
    priority = draw(st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.HIGH]))
    submitted = draw(st.floats(0, NOW))
    return Candidate(
        id=number,
        score=score(priority, submitted, limit),
        priority=priority,
        user=draw(st.sampled_from("abc")),
        gpus=gpus,
        expected_s=draw(st.floats(1, 5000)),
        gpu_mem_mb=draw(st.sampled_from([None, None, 6_000, 13_000])) if gpus else None,
        gpu_model=draw(st.sampled_from([None, None, "a100"])),
        time_limit_s=limit,
        preemptible=draw(st.sampled_from([False, False, False, True])),
        array_id=7,
        array_limit=draw(st.sampled_from([None, None, 2])),
        submitted_at=submitted,
    )


@st.composite
def holders(draw: st.DrawFn, devices: list[Device]) -> list[Holding]:
    found = []
    for device in devices:
        shares = draw(st.sampled_from([[], [], [None], [6_000], [6_000, 13_000]]))
        for mem in shares:
            found.append(
                Holding(
                    job_id=10_000 + len(found),
                    user=draw(st.sampled_from("abc")),
                    gpu_uuids=(device.uuid,),
                    started_at=draw(st.floats(0, NOW)),
                    expected_s=draw(st.floats(1, 5000)),
                    mem_mb=mem,
                    preemptible=draw(st.booleans()),
                    stopping=draw(st.sampled_from([False, False, True])),
                )
            )
    return found


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    devices = draw(machines())
    waiting = [draw(jobs(number)) for number in range(draw(st.integers(0, 12)))]
    limits = {"user_max_gpus": draw(st.sampled_from([0, 0, 3])), "user_max_running": draw(st.sampled_from([0, 0, 2]))}
    return Snapshot(
        devices,
        draw(holders(devices)),
        sorted(waiting, key=lambda job: (job.score, job.id)),
        Policy(
            backfill=draw(st.sampled_from(["easy", "easy", "greedy", "none"])),
            cpu_jobs=draw(st.integers(0, 3)),
            **limits,
        ),
        promises=draw(st.sampled_from([None, {}])),
    )


def used(snapshot: Snapshot, starts: list[tuple[Candidate, tuple[str, ...]]]) -> dict[str, list[int | None]]:
    on: dict[str, list[int | None]] = defaultdict(list)
    for held in snapshot.holdings:
        for uuid in held.gpu_uuids:
            on[uuid].append(held.mem_mb)
    for job, uuids in starts:
        for uuid in uuids:
            on[uuid].append(job.gpu_mem_mb)
    return on


def starts_of(snapshot: Snapshot) -> list[tuple[Candidate, tuple[str, ...]]]:
    by_id = {job.id: job for job in snapshot.waiting}
    return [(by_id[a.job_id], a.gpu_uuids) for a in plan(snapshot, NOW) if isinstance(a, Start)]


@given(snapshots())
def test_no_gpu_has_two_exclusive_holders_and_shares_fit_its_memory(snapshot: Snapshot) -> None:
    for shares in used(snapshot, starts_of(snapshot)).values():
        assert len(shares) == 1 or None not in shares
        assert sum(mem or 0 for mem in shares) <= MEMORY


@given(snapshots())
def test_every_start_has_all_its_gpus_of_the_right_kind_in_service(snapshot: Snapshot) -> None:
    by_uuid = {device.uuid: device for device in snapshot.devices}
    for job, uuids in starts_of(snapshot):
        assert len(set(uuids)) == len(uuids) == job.gpus
        for uuid in uuids:
            assert by_uuid[uuid].unavailable is None
            assert job.gpu_model is None or job.gpu_model in by_uuid[uuid].model.lower()


@given(snapshots())
def test_every_waiting_job_starts_or_is_told_why_not_and_none_does_both(snapshot: Snapshot) -> None:
    actions = plan(snapshot, NOW, waits=None)
    told = [action.job_id for action in actions if isinstance(action, (Start, Wait))]
    assert sorted(told) == sorted(job.id for job in snapshot.waiting)


@given(snapshots())
def test_limits_of_users_and_arrays_hold(snapshot: Snapshot) -> None:
    gpus: dict[str, int] = defaultdict(int)
    running: dict[str, int] = defaultdict(int)
    for held in snapshot.holdings:
        gpus[held.user] += len(held.gpu_uuids)
        running[held.user] += 1
    cpu = 0
    for elements, (job, uuids) in enumerate(starts_of(snapshot), start=1):
        gpus[job.user] += len(uuids)
        running[job.user] += 1
        cpu += not uuids
        policy = snapshot.policy
        assert not (policy.user_max_gpus and uuids) or gpus[job.user] <= policy.user_max_gpus
        assert not policy.user_max_running or running[job.user] <= policy.user_max_running
        assert not policy.cpu_jobs or cpu <= policy.cpu_jobs
        assert job.array_limit is None or elements <= job.array_limit


@given(snapshots())
def test_a_backfill_never_pushes_back_the_reservation_of_the_first_in_line(snapshot: Snapshot) -> None:
    decision = decide(snapshot, NOW)
    first = decision.first
    if first is None:
        return
    late: dict[int, list[int | None]] = defaultdict(list)
    at_of = {device.uuid: at for at, device in enumerate(snapshot.devices)}
    policy = snapshot.policy

    def leaves(end: float, started_at: float, preemptible: bool) -> float:
        """A preemptible job goes when it is asked, after its minimum."""
        return min(end, max(NOW, started_at + policy.preempt_min_run_s)) if preemptible else end

    for held in snapshot.holdings:
        total = held.expected_s
        while total <= NOW - held.started_at:
            total *= 2
        end = NOW if held.stopping else leaves(held.started_at + total, held.started_at, held.preemptible)
        for uuid in held.gpu_uuids:
            if end > first.at:
                late[at_of[uuid]].append(held.mem_mb)
    for job, mask in decision.starts:
        if leaves(NOW + job.expected_s, NOW, job.preemptible) > first.at:
            for at in positions(mask):
                late[at].append(job.gpu_mem_mb)
    room = 0
    for at, device in enumerate(snapshot.devices):
        wanted = first.job
        if device.unavailable or (wanted.gpu_model and wanted.gpu_model not in device.model.lower()):
            continue
        if wanted.gpu_mem_mb is None:
            room += not late[at]
        else:
            room += None not in late[at] and sum(mem or 0 for mem in late[at]) + wanted.gpu_mem_mb <= MEMORY
    assert room >= first.job.gpus


@given(snapshots())
def test_a_paused_queue_starts_nothing(snapshot: Snapshot) -> None:
    paused = Snapshot(snapshot.devices, snapshot.holdings, snapshot.waiting, snapshot.policy, paused="stop")
    assert not any(isinstance(action, Start) for action in plan(paused, NOW))


@given(snapshots())
def test_the_same_snapshot_gives_the_same_plan_also_from_a_line_that_is_kept(snapshot: Snapshot) -> None:
    kept = Snapshot(
        snapshot.devices,
        snapshot.holdings,
        Line(reversed(snapshot.waiting), snapshot.policy),
        snapshot.policy,
        promises=snapshot.promises,
    )
    assert plan(snapshot, NOW) == plan(snapshot, NOW) == plan(kept, NOW)


@given(snapshots())
def test_jobs_without_gpus_start_as_if_no_others_waited(snapshot: Snapshot) -> None:
    policy = Policy(backfill=snapshot.policy.backfill, cpu_jobs=snapshot.policy.cpu_jobs)
    light = [job for job in snapshot.waiting if job.gpus == 0]

    def lane(waiting: list[Candidate]) -> list[int]:
        view = Snapshot(snapshot.devices, snapshot.holdings, waiting, policy)
        return [job.id for job, _ in starts_of(view) if job.gpus == 0]

    assert lane(list(snapshot.waiting)) == lane(light)


@given(snapshots())
def test_what_fits_an_idle_machine_in_service_has_an_estimated_start(snapshot: Snapshot) -> None:
    view = Snapshot(snapshot.devices, snapshot.holdings, snapshot.waiting, Policy(backfill=snapshot.policy.backfill))
    start = forecast(view, NOW).start
    for job in snapshot.waiting:
        alone = Snapshot(snapshot.devices, (), [job])
        fits = any(isinstance(action, Start) for action in plan(alone, NOW))
        assert (job.id in start) == (fits and (job.array_limit is None or job.array_limit > 0))


@st.composite
def traces(draw: st.DrawFn) -> list[TraceJob]:
    return [
        TraceJob(
            row=row,
            submit_s=draw(st.floats(0, 500)),
            duration_s=draw(st.floats(0, 300)),
            gpus=draw(st.sampled_from([0, 1, 1, 2, 3, 4])),
            user=draw(st.sampled_from("ab")),
            limit_s=draw(st.sampled_from([None, 50.0, 400.0])),
            priority=draw(st.sampled_from([Priority.NORMAL, Priority.LOW])),
        )
        for row in range(draw(st.integers(0, 40)))
    ]


@settings(max_examples=60)
@given(
    traces(),
    st.sampled_from(["aged", "fifo"]),
    st.sampled_from(["easy", "greedy", "none"]),
    st.sampled_from(["history", "exact"]),
    st.integers(1, 2),
)
def test_in_a_finite_trace_everything_starts_once_and_no_gpu_runs_two(
    trace: list[TraceJob], order: str, backfill: str, expect: str, nodes: int
) -> None:
    replay = simulate(trace, gpus=4, nodes=nodes, order=order, backfill=backfill, expect=expect)  # type: ignore[arg-type]
    assert [one.job.row for one in replay.placements] == [job.row for job in trace]
    spans: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for one in replay.placements:
        assert one.start_s >= one.job.submit_s
        assert len(set(one.gpus)) == one.job.gpus
        assert one.end_s == one.start_s + one.job.run_s
        for gpu in one.gpus:
            spans[one.node, gpu].append((one.start_s, one.end_s))
    for taken in spans.values():
        taken.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(taken))


def test_a_stream_of_small_jobs_does_not_starve_a_big_one() -> None:
    stream = [TraceJob(row, row * 1.0, 7.0, 1, "small") for row in range(2000)]
    big = TraceJob(2000, 100.5, 10.0, 4, "big")
    for expect in ("history", "exact"):
        replay = simulate([*stream, big], gpus=4, order="fifo", expect=expect)  # type: ignore[arg-type]
        ahead = sum(1 for one in replay.placements if one.job.submit_s < big.submit_s)
        waited = replay.placements[-1].wait_s
        assert waited <= ahead * 7.0 / 4 + 7.0 * 2


@settings(max_examples=200, deadline=None)
@given(snapshots(), st.integers(0, 11), st.booleans())
def test_a_job_alone_in_line_is_decided_as_the_whole_walk_would(snapshot: Snapshot, which: int, old: bool) -> None:
    alone = [job for place, job in enumerate(snapshot.waiting) if place == which % len(snapshot.waiting)]
    if old:
        alone = [replace(job, submitted_at=NOW - 90 * 86400) for job in alone]
    snapshot = replace(snapshot, waiting=alone)
    short = decide(snapshot, NOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpuq.scheduler.decide._Turn._starts_alone", lambda turn: False)
        long = decide(snapshot, NOW)
    assert (short.starts, short.first) == (long.starts, long.first)
    assert (short.room.holders, short.room.free, short.room.shared) == (
        long.room.holders, long.room.free, long.room.shared,
    )  # fmt: skip
    assert plan(snapshot, NOW) == plan(replace(snapshot, waiting=Line(alone, snapshot.policy)), NOW)

"""The line and the limits, against a sorted list and plain counting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.domain.priority import Priority, score
from gpuq.scheduler.decide import DEPTH, walk
from gpuq.scheduler.limits import Limit, Usage
from gpuq.scheduler.order import Line, Shape, line_of
from gpuq.scheduler.snapshot import Candidate, Holding, Policy


def candidate(job_id: int, gpus: int = 1, *, submitted_at: float = 0.0, **facts: Any) -> Candidate:
    priority = facts.pop("priority", Priority.NORMAL)
    place = score(priority, submitted_at, None)
    plain = {"user": "alice", "expected_s": 100.0, "submitted_at": submitted_at}
    return Candidate(id=job_id, score=place, priority=priority, gpus=gpus, **{**plain, **facts})


def held(job_id: int, *indices: int, user: str = "bob", **facts: Any) -> Holding:
    return Holding(job_id, user, tuple(f"gpu{index}" for index in indices), 0.0, 1000.0, **facts)


LIMITED = Policy(user_max_gpus=4, group_limits={"lab": 2})


@st.composite
def jobs(draw: Any) -> list[Candidate]:
    return [
        candidate(
            number,
            draw(st.integers(0, 3)),
            submitted_at=float(draw(st.integers(0, 3))),
            priority=draw(st.sampled_from(Priority)),
            user=draw(st.sampled_from(["ann", "bob"])),
            group=draw(st.sampled_from([None, "lab", "other"])),
            preemptible=draw(st.booleans()),
            array_id=draw(st.sampled_from([None, 1, 2])),
            array_limit=draw(st.sampled_from([None, 3])),
        )
        for number in draw(st.permutations(range(1, draw(st.integers(1, 9)))))
    ]


def place(job: Candidate) -> tuple[float, int]:
    return job.score, job.id


@given(jobs(), st.data())
def test_a_line_is_its_jobs_by_score_and_id_whatever_was_added_and_removed(found: list[Candidate], data: Any) -> None:
    line = Line(found, LIMITED)
    assert list(line) == sorted(found, key=place)
    present, absent = list(found), []
    for _ in range(data.draw(st.integers(0, 6))):
        least = data.draw(st.integers(1, 3))
        old = [job for job in present if job.gpus >= least and not job.preemptible]
        assert line.oldest(least) == min(old, key=lambda job: (job.submitted_at, job.id), default=None)
        if absent and data.draw(st.booleans()):
            job = absent.pop()
            line.add(job)
            present.append(job)
        elif present:
            job = data.draw(st.sampled_from(present))
            line.remove(job)
            present.remove(job)
            absent.append(job)
            with pytest.raises(ValueError, match=f"job {job.id} is not in the line"):
                line.remove(job)
        assert list(line) == line.ordered() == sorted(present, key=place)
        assert len(line) == len(present)
        assert line.top_priority() == min((job.priority for job in present if job.gpus), default=99)
        assert all(bucket for bucket in line.shapes.values())
    if present:
        assert line[0] == min(present, key=place)
        assert line[-1:] == sorted(present, key=place)[-1:]


def test_the_shape_has_the_user_group_and_array_only_where_a_limit_can_stop_them() -> None:
    job = candidate(1, 2, gpu_mem_mb=5, gpu_model="a", gpu_ids=(1, 2), group="lab", array_id=7, preemptible=True)
    limited = candidate(1, 2, group="lab", array_id=7, array_limit=1)
    assert Line().shape_of(job) == Shape(2, 5, "a", (1, 2), True, None, None, None)
    assert Line().shape_of(limited) == Shape(2, array_id=7)
    for policy in (Policy(user_max_gpus=1), Policy(user_max_running=1)):
        assert Line((), policy).shape_of(limited) == Shape(2, user="alice", array_id=7)
        assert list(Line([limited], policy).shapes) == [Shape(2, user="alice", array_id=7)]
    policy = Policy(group_limits={"lab": 1})
    assert list(Line([limited], policy).shapes) == [Shape(2, group="lab", array_id=7)]
    assert Line((), policy).shape_of(candidate(1, 2, group="other")) == Shape(2)


def test_a_line_that_is_kept_is_used_as_it_is() -> None:
    line = Line([candidate(1)])
    assert line_of(line, Policy()) is line
    assert list(line_of([candidate(1), candidate(2)], Policy())) == list(Line([candidate(2), candidate(1)]))


def test_jobs_that_differ_in_their_order_only_keep_it_inside_a_shape() -> None:
    line = Line([candidate(3), candidate(1), candidate(2)])
    assert [job.id for job in line.shapes[Shape(1)]] == [1, 2, 3]
    given = Line([candidate(3), candidate(1)], in_order=True)
    assert [job.id for job in given.shapes[Shape(1)]] == [3, 1]


@given(jobs(), st.integers(0, 20), st.integers(0, 8))
def test_a_walk_merges_the_shapes_in_line_order_and_drops_a_shape_when_told(
    found: list[Candidate], threshold: int, drops: int
) -> None:
    line = Line(found)
    dropped: set[Shape] = set()
    wanted = []
    for job in [job for job in sorted(found, key=place) if job.id <= threshold]:
        if line.shape_of(job) not in dropped:
            wanted.append(job)
            if job.id % 9 == drops:
                dropped.add(line.shape_of(job))
    seen = []
    for shape, job, drop in walk(list(line.shapes.items()), lambda _, job: job.id <= threshold):
        assert shape == line.shape_of(job)
        seen.append(job)
        if job.id % 9 == drops:
            drop()
    assert seen == wanted
    assert [job for _, job, _ in walk(list(line.shapes.items()))] == sorted(found, key=place)
    assert list(walk([])) == []


@pytest.mark.parametrize(("behind", "reached"), [(DEPTH, True), (DEPTH + 1, False)])
def test_a_thousand_of_a_shape_are_looked_at_for_a_short_one(behind: int, reached: bool) -> None:
    """After the first, which is looked at anyway."""
    many = [candidate(number) for number in range(behind + 1)]
    seen = [job.id for _, job, _ in walk([(Shape(1), many)], lambda _, job: job.id in {0, behind})]
    assert seen == ([0, behind] if reached else [0])


@pytest.mark.parametrize(
    ("policy", "job", "wanted"),
    [
        (Policy(), candidate(1, 9), None),
        (Policy(user_max_gpus=4), candidate(1, 1), None),
        (
            Policy(user_max_gpus=4),
            candidate(1, 2),
            Limit("user", "alice", "alice holds 3 of at most 4 GPUs and asks for 2"),
        ),
        (Policy(user_max_gpus=1), candidate(1, 0), None),
        (Policy(user_max_gpus=4), candidate(1, 4, user="carol"), None),
        (
            Policy(user_max_gpus=4),
            candidate(1, 5, user="carol"),
            Limit("user", "carol", "carol holds 0 of at most 4 GPUs and asks for 5"),
        ),
        (Policy(user_max_running=4), candidate(1), None),
        (
            Policy(user_max_running=3),
            candidate(1),
            Limit("user", "alice", "alice has 3 of at most 3 jobs running"),
        ),
        (Policy(user_max_running=1), candidate(1, user="carol"), None),
        (Policy(group_limits={"lab": 3}), candidate(1, group="lab"), None),
        (
            Policy(group_limits={"lab": 2}),
            candidate(1, group="lab"),
            Limit("group", "lab", "group lab has 2 of at most 2 jobs running"),
        ),
        (Policy(group_limits={"lab": 0}), candidate(1, group="lab"), None),
        (Policy(group_limits={"lab": 1}), candidate(1, group="other"), None),
        (Policy(group_limits={"lab": 1}), candidate(1), None),
        (Policy(), candidate(1, array_id=7, array_limit=2), None),
        (
            Policy(),
            candidate(1, array_id=7, array_limit=1),
            Limit("array", 7, "array 7 has 1 of at most 1 elements running"),
        ),
        (Policy(), candidate(1, array_id=8, array_limit=1), None),
        (Policy(), candidate(1, array_id=7, array_limit=None), None),
    ],
)
def test_a_limit_is_reached_by_the_one_that_would_exceed_it(policy: Policy, job: Candidate, wanted: Limit) -> None:
    holdings = [
        held(11, 0, user="alice", group="lab"),
        held(12, 1, 2, user="alice", group="lab", array_id=7),
        held(13, user="alice"),
        held(14, 3, user="bob"),
    ]
    usage = Usage(policy, holdings)
    assert usage.reached(job) == wanted
    assert usage.cpu_jobs == 1


def test_a_start_counts_for_its_user_group_array_and_lane_and_not_in_the_original_of_a_copy() -> None:
    policy = Policy(cpu_jobs=2, user_max_running=2, user_max_gpus=3, group_limits={"lab": 1})
    usage = Usage(policy, [held(11)])
    trial = usage.copy()
    assert (usage.cpu_jobs, usage.cpu_lane_full, trial.cpu_jobs) == (1, False, 1)
    for job in (
        candidate(1, 0, group="lab", array_id=5, array_limit=1, user="ann"),
        candidate(2, 3, user="ann"),
    ):
        assert trial.reached(job) is None
        trial.start(job)
    assert (trial.cpu_jobs, trial.cpu_lane_full) == (2, True)
    reached = [
        trial.reached(candidate(3, 1, user="ann")),
        trial.reached(candidate(3, 0, user="ann")),
        trial.reached(candidate(3, 0, group="lab")),
        trial.reached(candidate(3, 0, array_id=5, array_limit=1)),
    ]
    assert [limit.kind for limit in reached if limit is not None] == ["user", "user", "group", "array"]
    assert usage.reached(candidate(3, 1, user="ann", group="lab", array_id=5, array_limit=1)) is None
    assert (usage.cpu_jobs, usage.cpu_lane_full) == (1, False)
    assert trial.copy().reached(candidate(3, 1, user="ann")) == reached[0]
    assert not Usage(Policy(), [held(11)]).cpu_lane_full


def test_the_oldest_is_known_whatever_comes_and_goes_after_it_was_asked_for() -> None:
    line = Line([candidate(5, 2, submitted_at=50.0), candidate(6, 1, submitted_at=40.0)])
    for _ in range(3):
        assert [job.id for job in map(line.oldest, (1, 2)) if job is not None] == [6, 5]
    older = candidate(7, 2, submitted_at=30.0)
    others = [candidate(8, 3, submitted_at=20.0, preemptible=True), candidate(9, 1, submitted_at=35.0)]
    for job in (older, *others):
        line.add(job)
    assert [line.oldest(least) for least in (1, 2, 3)] == [older, older, None]
    line.remove(older)
    assert [job.id for job in map(line.oldest, (1, 2)) if job is not None] == [9, 5]
    # It comes back, and of two of one age the lower number was first.
    line.add(older)
    line.add(candidate(3, 2, submitted_at=30.0))
    assert [job.id for job in map(line.oldest, (1, 2)) if job is not None] == [3, 3]

"""Limits of users and groups inside a plan: never exceeded, and nobody else is kept waiting by them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuq.domain.limits import UNLIMITED, LimitBook, Limits
from gpuq.domain.reasons import ReasonCode
from gpuq.scheduler.budget import NOBODY, Over, behind_others, over_hours, yielding
from gpuq.scheduler.decide import decide
from gpuq.scheduler.explain import explain
from gpuq.scheduler.forecast import forecast
from gpuq.scheduler.limits import Limit, Usage
from gpuq.scheduler.plan import plan
from gpuq.scheduler.snapshot import Candidate, Device, Holding, Policy, Preempt, Snapshot, Start

NOW = 1_700_000_000.0
OVER = Over({"bob": "bob has used 12.0 of 10 GPU-hours"}, {})


def box(count: int) -> list[Device]:
    return [Device(f"gpu{at}", at, 24_000) for at in range(count)]


def started(snapshot: Snapshot) -> list[int]:
    return [action.job_id for action in plan(snapshot, NOW, waits=0) if isinstance(action, Start)]


bounds = st.none() | st.just(UNLIMITED) | st.integers(0, 5)
limits = st.builds(Limits, gpus=bounds, running=bounds)
names = st.sampled_from(["ann", "bob", "cid"])
groups = st.sampled_from([None, "night", "day"])
books = st.builds(
    LimitBook,
    users=st.dictionaries(names, limits, max_size=2),
    groups=st.dictionaries(st.sampled_from(["night", "day"]), limits, max_size=2),
    default=limits,
)
asked = st.lists(st.tuples(names, groups, st.integers(0, 3), st.booleans(), st.booleans()), max_size=12)


@given(book=books, jobs=asked, held=st.lists(st.tuples(names, groups), max_size=3), setting=st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_a_plan_never_exceeds_a_limit_of_a_user_or_a_group(
    book: LimitBook, jobs: list[Any], held: list[Any], setting: int
) -> None:
    holdings = [
        Holding(100 + at, user, (f"gpu{at}",), NOW - 10, 50.0, group=group) for at, (user, group) in enumerate(held)
    ]
    waiting = [
        Candidate(
            at, float(at), 2, user, gpus, 60.0, group=group, preemptible=cheap or last, submitted_at=NOW,
            over_hours=f"{user} is over" if last else None,
        )  # type: ignore[arg-type]
        for at, (user, group, gpus, cheap, last) in enumerate(jobs)
    ]  # fmt: skip
    rules = Policy(limits=book, user_max_gpus=setting, user_max_running=setting)
    snapshot = Snapshot(box(6), holdings, waiting, rules)
    begun = [job for job in waiting if job.id in started(snapshot)]
    gpus: Counter[Any] = Counter()
    running: Counter[Any] = Counter()
    for user, group, count in [(h.user, h.group, 1) for h in holdings] + [(j.user, j.group, j.gpus) for j in begun]:
        for owner in (("user", user), ("group", group)):
            gpus[owner] += count
            running[owner] += 1
    for job in begun:
        for what, used in (("gpus", gpus), ("running", running)):
            own = book.of_user(job.user, what)
            most = setting if own is None and setting else -1 if own is None else own.most
            if what == "running" or job.gpus:
                assert most < 0 or used["user", job.user] <= most
            of_group = book.of_group(job.group, what)
            if of_group is not None and of_group.most >= 0 and (what == "running" or job.gpus):
                assert used["group", job.group] <= of_group.most
    decision = decide(snapshot, NOW)
    if decision.first is not None:
        # Whoever is at a limit, or over his hours, has no reservation that others would have to wait for.
        assert Usage(rules, holdings).reached(decision.first.job) is None
        assert decision.first.job.over_hours is None


def test_the_own_limit_counts_before_the_default_and_that_before_the_setting(build: Any) -> None:
    book = LimitBook({"ann": Limits(gpus=1), "cid": Limits(gpus=UNLIMITED)}, {}, Limits(gpus=2, by="root"))
    usage = Usage(Policy(limits=book, user_max_gpus=3), [])
    text = "ann holds 0 of at most 1 GPUs and asks for 2 (`gpuq limit user ann`)"
    assert usage.reached(build.job(1, 2, user="ann")) == Limit("user", "ann", text)
    text = "bob holds 0 of at most 2 GPUs and asks for 3 (`gpuq limit default`, set by root)"
    assert usage.reached(build.job(1, 3, user="bob")) == Limit("user", "bob", text)
    assert usage.reached(build.job(1, 9, user="cid")) is None
    text = "bob holds 0 of at most 3 GPUs and asks for 4"
    assert Usage(Policy(user_max_gpus=3), []).reached(build.job(1, 4, user="bob")) == Limit("user", "bob", text)


def test_a_limit_of_no_gpus_keeps_jobs_without_gpus_going(build: Any) -> None:
    usage = Usage(Policy(limits=LimitBook(default=Limits(gpus=0))), [])
    assert usage.reached(build.job(1, 1)) is not None
    assert usage.reached(build.job(1, 0)) is None


def test_a_group_at_its_gpus_waits_and_leaves_them_to_others(build: Any) -> None:
    rules = Policy(limits=LimitBook({}, {"night": Limits(gpus=2, by="root")}))
    jobs = [build.job(1, 2, group="night"), build.job(2, 1, group="night"), build.job(3, 2, user="bob")]
    snapshot = build.seen(build.box(4), jobs, policy=rules)
    assert started(snapshot) == [1, 3]
    [reason] = explain(snapshot, 2, NOW)
    assert reason.code is ReasonCode.USER_LIMIT
    assert reason.text == (
        "group night holds 2 of at most 2 GPUs and asks for 1 (`gpuq limit group night`, set by root)"
    )


@pytest.mark.parametrize(
    ("seconds", "over"),
    [(35_999.0, False), (36_000.0, True)],
)
def test_who_has_used_as_much_as_he_may_is_over_it(seconds: float, over: bool) -> None:
    book = LimitBook({"bob": Limits(gpu_hours=10, window_s=86400.0, by="root")})
    found = over_hours(book, lambda kind, name, window_s: seconds, [("bob", "night"), ("ann", None)])
    told = "bob has used 10.0 of 10 GPU-hours within 1d (`gpuq limit user bob`, set by root)"
    assert found == (Over({"bob": told}, {}) if over else NOBODY)
    assert found.of("ann", None) is None


def test_a_group_and_everybody_have_windows_of_their_own() -> None:
    book = LimitBook(
        {"cid": Limits(gpu_hours=UNLIMITED)},
        {"night": Limits(gpu_hours=1, window_s=7200.0)},
        Limits(gpu_hours=2, window_s=3600.0),
    )
    assert book.windows == {7200.0, 3600.0}
    used = {("user", "ann", 3600.0): 7200.0, ("group", "night", 7200.0): 3600.0}
    owners = [("ann", None), ("bob", "night"), ("cid", None)]
    found = over_hours(book, lambda *asked: used.get(asked, 0.0), owners)
    assert (set(found.users), set(found.groups)) == ({"ann"}, {"night"})
    assert found.of("bob", "night") is not None
    assert found.of("bob", None) is None


def test_jobs_over_the_hours_start_on_idle_gpus_and_behind_all_others(build: Any) -> None:
    jobs = [behind_others(build.job(1, user="bob"), OVER), build.job(2, preemptible=True), build.job(3)]
    assert started(build.seen(build.box(1), jobs)) == [3]
    assert started(build.seen(build.box(2), jobs)) == [3, 2]
    assert started(build.seen(build.box(3), jobs)) == [3, 2, 1]
    [reason] = explain(build.seen(build.box(2), jobs), 1, NOW)
    assert reason.code is ReasonCode.USER_LIMIT
    assert reason.text.startswith("bob has used 12.0 of 10 GPU-hours: it runs when nobody else wants the GPUs; needs")


def test_a_running_job_over_the_hours_yields_before_others_that_are_preemptible(build: Any) -> None:
    holdings = [
        build.held(7, 0, user="ann", started_at=NOW - 400.0, until=9e4, preemptible=True),
        build.held(8, 1, user="bob", started_at=NOW - 900.0, until=9e4),
    ]
    waiting = [build.job(1, submitted_at=NOW)]
    before = plan(build.seen(build.box(2), waiting, holdings), NOW, waits=0)
    assert [action for action in before if isinstance(action, Preempt)] == [Preempt(7, 1)]
    after = plan(build.seen(build.box(2), waiting, [yielding(held, OVER) for held in holdings]), NOW, waits=0)
    assert [action for action in after if isinstance(action, Preempt)] == [Preempt(8, 1)]


def test_jobs_without_gpus_know_no_gpu_hours(build: Any) -> None:
    job, held = build.job(1, 0, user="bob"), build.held(2, user="bob")
    assert behind_others(job, OVER) is job
    assert yielding(held, OVER) is held


def test_whoever_is_over_the_hours_hides_nobody_behind_the_heads(build: Any) -> None:
    usage = Usage(Policy(over_users=OVER.users, over_groups={"night": "night is over"}), [])
    assert usage.behind(build.job(1, user="bob")) == Limit("user", "bob", OVER.users["bob"])
    assert usage.behind(build.job(1, group="night")) == Limit("group", "night", "night is over")
    assert usage.behind(build.job(1, 0, user="bob")) is None
    assert usage.behind(build.job(1)) is None
    assert usage.reached(build.job(1, user="bob")) is None


def test_the_forecast_keeps_those_over_the_hours_last(build: Any) -> None:
    jobs = [replace(build.job(1, user="bob"), preemptible=True, over_hours="over"), build.job(2), build.job(3)]
    assert forecast(build.seen(build.box(1), jobs), 100.0).start == {2: 100.0, 3: 200.0, 1: 300.0}

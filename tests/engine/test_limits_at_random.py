"""Limits and drains that change at random while jobs come, run and end and agents start anew: no start exceeds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.limits import UNLIMITED
from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.drain_window import cancel_drain, plan_drain
from gpuq.engine.actions.limits import set_limits
from gpuq.engine.switches import read_switches

USERS = {"ann": Caller("ann", uid=2001, gid=2001), "bob": Caller("bob", uid=2002, gid=2002)}
GROUPS = (None, "night")

OWNERS = (("default", ""), ("user", "ann"), ("user", "bob"), ("group", "night"))


def steps(random: Random, count: int) -> Iterator[tuple[Any, ...]]:
    """Mostly jobs that come and end; a limit now and then, and seldom a drain or a new agent."""
    for kind in random.choices(
        ("submit", "end", "limit", "wait", "drain", "undrain", "restart"), (9, 6, 4, 2, 1, 2, 1), k=count
    ):
        yield {
            "submit": ("submit", random.choice(sorted(USERS)), random.choice(GROUPS), random.choice((0, 1, 1, 2))),
            "limit": (
                *("limit", random.choice(OWNERS), random.choice(("gpus", "running"))),
                random.choice((None, UNLIMITED, 0, 1, 1, 2, 3)),
            ),
            "drain": ("drain", random.choice((-10.0, 50.0)), random.choice((None, 60.0))),
        }.get(kind, (kind,))


def live(world: Any) -> dict[int, Any]:
    with world.ctx.records.read() as tx:
        return {job.id: job for job, _ in tx.live_attempts()}


def check(world: Any, before: set[int]) -> None:
    """Of what has started since: with all that runs, it is within every limit, and in no drain."""
    now = live(world)
    with world.ctx.records.read() as tx:
        switches = read_switches(tx, "box")
    used: Counter[Any] = Counter()
    for job in now.values():
        for owner in (("user", job.user), ("group", job.group)):
            used[owner, "gpus"] += job.gpus
            used[owner, "running"] += 1
    for job in (job for job_id, job in now.items() if job_id not in before):
        for what in ("gpus", "running"):
            bounds = (
                (("user", job.user), switches.limits.of_user(job.user, what)),
                (("group", job.group), switches.limits.of_group(job.group, what)),
            )
            for owner, bound in bounds:
                if bound is not None and bound.most >= 0 and (job.gpus or what == "running"):
                    assert used[owner, what] <= bound.most, (job.id, owner, what)
        window, at = switches.window, world.clock.now()
        assert window is None or window.over(at) or at + job.time_limit_s <= window.at


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_set_no_start_exceeds_a_limit_or_runs_into_a_drain(make_world: Any, seed: int) -> None:
    world = make_world("sim:3")
    agent = world.agent()
    for step in steps(Random(seed), 60):
        match step:
            case ("submit", user, group, gpus):
                world.submit("a", gpus=gpus, group=group, time_limit_s=20.0, by=USERS[user])
            case ("limit", (kind, name), what, value):
                set_limits(world.ctx, kind, name, {what: value}, world.admin)
            case ("drain", later, length):
                at = world.clock.now() + later
                plan_drain(world.ctx, world.admin, at, until=None if length is None else at + length)
            case ("undrain",):
                cancel_drain(world.ctx, world.admin)
            case ("end",):
                for job_id in sorted(live(world))[:1]:
                    if world.state(job_id) == "starting":
                        world.launcher.run(job_id)
                    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
            case ("restart",):
                agent.stop()
                agent = world.agent()
            case ("wait",):
                world.clock.forward(15.0)
        before = set(live(world))
        agent.wake()
        agent.run_once()
        check(world, before)
    # And nobody is locked out: without limits and drains everything that was submitted comes to its end.
    for kind, name in (("default", ""), ("user", "ann"), ("user", "bob"), ("group", "night")):
        set_limits(world.ctx, kind, name, {"gpus": None, "running": None}, world.admin)
    cancel_drain(world.ctx, world.admin)
    for _ in range(60):
        agent.wake()
        agent.run_once()
        if not (running := live(world)):
            break
        for job_id in running:
            if world.state(job_id) == "starting":
                world.launcher.run(job_id)
            world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    with world.ctx.records.read() as tx:
        assert not list(tx.queued())
    agent.stop()

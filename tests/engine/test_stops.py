"""What supervisors are asked for when a job is stopped, and that SQL promises the same end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.domain.stopping import MARGIN_S
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.maintenance.reap import reap
from gpuq.server.process import stop_all
from gpuq.supervise.ladder import KILL, NOTICE, TERMINATE, Ladder
from gpuq.supervise.spawn import AttemptSpec, signal_number

MIN_RUN_S = 300.0
# Of the setting.
GRACE_S = 30.0


def turn(world: Any, agent: Any, forward: float = 0.0) -> None:
    world.clock.forward(forward)
    agent.wake()
    agent.run_once()


def running(world: Any, agent: Any, **fields: Any) -> int:
    job_id: int = world.submit("train", **fields)
    turn(world, agent)
    world.launcher.run(job_id)
    agent.run_once()
    assert world.state(job_id) == "running"
    return job_id


def preempted(world: Any, agent: Any, **fields: Any) -> int:
    """A job that was just asked to make room. It has the only GPU."""
    job_id = running(world, agent, preemptible=True, **fields)
    world.submit("train")
    turn(world, agent, MIN_RUN_S + 1)
    assert world.state(job_id) == "stopping"
    return job_id


def restart(world: Any) -> Any:
    world.agents.pop().stop()
    world.ctx = world.open()
    return world.agent()


def asked(world: Any, job_id: int) -> list[dict[str, Any]]:
    """The requests to the supervisor of this job."""
    run_dir = world.launcher.order_of(job_id).run_dir
    found = [dict(stop) for stop in world.launcher.stops if stop["run_dir"] == run_dir]
    for stop in found:
        del stop["run_dir"]
    return found


def stop(reason: str, grace_s: float, signal: str | None = None) -> dict[str, Any]:
    return {"reason": reason, "grace_s": grace_s, "signal": signal}


def seconds_left(world: Any, job_id: int) -> float:
    left: float = world.job(job_id).stop_deadline - world.clock.now()
    return left


def ladder_of(world: Any, job_id: int) -> Ladder:
    """That of a supervisor which was started with what the engine wrote for it, now."""
    spec = AttemptSpec(world.launcher.order_of(job_id).spec)
    return Ladder(
        started=0.0,
        time_limit_s=spec.time_limit_s,
        kill_grace_s=spec.kill_grace_s,
        notice=spec.notice,
        notice_before_s=spec.notice_before_s,
    )


def climb(ladder: Ladder) -> dict[str, float]:
    taken: dict[str, float] = {}
    while KILL not in taken:
        at = ladder.next_at()
        assert at is not None
        taken.update((step, at) for step in ladder.due(at))
    return taken


def climbed(world: Any, job_id: int) -> dict[str, float]:
    """Step → after how many seconds, by a supervisor that now hears the last request and none before it."""
    ladder, request = ladder_of(world, job_id), asked(world, job_id)[-1]
    ladder.request(0.0, request["reason"], request["grace_s"], signal_number(request["signal"]))
    return climb(ladder)


# -- the supervisor and SQL say the same --------------------------------------------------------------------------


@pytest.mark.parametrize("own_grace", [None, 0.5, 40.0, 600.0])
@pytest.mark.parametrize(("signal", "before_s"), [(None, 0.0), ("USR1@20", 20.0), ("USR1@60", 60.0), ("USR1", 60.0)])
def test_a_preempted_job_has_its_notice_and_then_its_whole_grace(
    make_world: Any, own_grace: float | None, signal: str | None, before_s: float
) -> None:
    world = make_world("sim:1")
    job_id = preempted(world, world.agent(), signal=signal, kill_grace_s=own_grace)
    grace = GRACE_S if own_grace is None else own_grace
    lead = min(before_s, grace)
    assert asked(world, job_id) == [stop("preempt", grace, "USR1" if signal else None)]
    assert seconds_left(world, job_id) == pytest.approx(lead + grace, abs=0.001)
    notice = {NOTICE: 0.0} if signal else {}
    assert climbed(world, job_id) == {**notice, TERMINATE: lead, KILL: lead + grace}


@pytest.mark.parametrize("own_grace", [None, 0.5, 600.0])
@pytest.mark.parametrize("asked_for", [None, 0.0, 90.0])
def test_a_cancelled_job_has_its_grace_and_no_notice(
    world: Any, own_grace: float | None, asked_for: float | None
) -> None:
    job_id = running(world, world.agent(), signal="USR1@60", kill_grace_s=own_grace)
    cancel(world.ctx, job_id, world.user, grace_s=asked_for)
    own = GRACE_S if own_grace is None else own_grace
    grace = own if asked_for is None else asked_for
    assert asked(world, job_id) == [stop("cancel", grace)]
    assert seconds_left(world, job_id) == pytest.approx(grace, abs=0.001)
    assert climbed(world, job_id)[KILL] == grace


@pytest.mark.parametrize("own_grace", [None, 0.5, 600.0])
def test_a_job_at_its_time_limit_has_its_own_grace(world: Any, own_grace: float | None) -> None:
    agent = world.agent()
    # So long a grace is for administrators.
    job_id = running(world, agent, time_limit_s=60.0, kill_grace_s=own_grace, by=world.admin)
    turn(world, agent, 60.0)
    assert (world.state(job_id), world.job(job_id).stop_reason) == ("stopping", "time_limit")
    # Its supervisor knows by itself.
    assert asked(world, job_id) == []
    taken = climb(ladder_of(world, job_id))
    assert seconds_left(world, job_id) == pytest.approx(taken[KILL] - 60.0, abs=0.001)
    assert seconds_left(world, job_id) == pytest.approx(GRACE_S if own_grace is None else own_grace, abs=0.001)


# -- asked for again: never later ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("grace_s", "left_s"), [(None, 590.0), (900.0, 590.0), (5.0, 5.0)])
def test_a_cancel_at_the_time_limit_leaves_the_job_its_own_grace_and_not_more(
    world: Any, grace_s: float | None, left_s: float
) -> None:
    agent = world.agent()
    job_id = running(world, agent, time_limit_s=60.0, kill_grace_s=600.0, by=world.admin)
    turn(world, agent, 60.0)
    world.clock.forward(10)
    cancel(world.ctx, job_id, world.admin, grace_s=grace_s)
    assert world.job(job_id).stop_reason == "cancel"
    assert seconds_left(world, job_id) == pytest.approx(left_s, abs=0.001)
    assert asked(world, job_id) == [stop("cancel", pytest.approx(left_s, abs=0.001))]
    assert f"SIGKILL after {left_s:g} s" in last_detail(world, job_id)


def test_a_cancel_does_not_put_off_the_end_of_a_preempted_job(make_world: Any) -> None:
    world = make_world("sim:1")
    job_id = preempted(world, world.agent(), signal="USR1@20")
    world.clock.forward(15)
    cancel(world.ctx, job_id, world.user, grace_s=600.0)
    assert seconds_left(world, job_id) == pytest.approx(35.0, abs=0.001)
    assert asked(world, job_id) == [stop("preempt", GRACE_S, "USR1"), stop("cancel", pytest.approx(35.0, abs=0.001))]


def test_a_second_cancel_leaves_no_grace_whatever_it_asks_for(world: Any) -> None:
    job_id = running(world, world.agent())
    cancel(world.ctx, job_id, world.user, grace_s=20.0)
    world.clock.forward(5)
    cancel(world.ctx, job_id, world.user, grace_s=600.0)
    assert asked(world, job_id) == [stop("cancel", 20.0), stop("cancel", 0.0)]
    assert seconds_left(world, job_id) == 0.0


def last_detail(world: Any, job_id: int) -> str:
    with world.ctx.records.read() as tx:
        return str(list(tx.events(job_id=job_id))[-1].detail)


@pytest.mark.parametrize("elapsed_s", [0.0, 5.0, 19.0, 21.0, 49.0])
def test_a_preemption_asked_for_again_by_the_next_agent_ends_at_the_same_moment(
    make_world: Any, elapsed_s: float
) -> None:
    world = make_world("sim:1")
    job_id = preempted(world, world.agent(), signal="USR1@20")
    kill_at = world.job(job_id).stop_deadline
    heard = ladder_of(world, job_id)
    heard.request(0.0, "preempt", GRACE_S, signal_number("USR1"))
    heard.due(elapsed_s)
    world.launcher.stops.clear()
    world.clock.forward(elapsed_s)
    restart(world)
    [again] = asked(world, job_id)
    assert (again["reason"], again["signal"]) == ("preempt", None)
    assert world.job(job_id).stop_deadline == kill_at
    # Whether the supervisor had heard of it or not.
    assert climbed(world, job_id)[KILL] == pytest.approx(50.0 - elapsed_s, abs=0.01)
    heard.request(elapsed_s, again["reason"], again["grace_s"])
    rest = climb(heard)
    assert rest[KILL] == pytest.approx(50.0, abs=0.01)
    assert rest.get(TERMINATE, 20.0) == pytest.approx(20.0, abs=0.01)


def test_the_next_agent_does_not_ask_for_the_stop_of_a_time_limit(world: Any) -> None:
    agent = world.agent()
    job_id = running(world, agent, time_limit_s=60.0)
    turn(world, agent, 60.0)
    assert world.state(job_id) == "stopping"
    restart(world)
    assert world.launcher.stops == []


def test_the_reaper_gives_a_preempted_job_its_notice_and_its_grace(make_world: Any) -> None:
    world = make_world("sim:1")
    job_id = preempted(world, world.agent(), signal="USR1@40", kill_grace_s=40.0)
    world.clock.forward(80.0 + MARGIN_S - 0.1)
    reap(world.ctx)
    assert asked(world, job_id) == [stop("preempt", 40.0, "USR1")]
    world.clock.forward(0.2)
    reap(world.ctx)
    assert asked(world, job_id)[1:] == [stop("preempt", 0.0)]


def test_a_halt_waits_for_notice_and_grace(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = running(world, world.agent(), signal="USR1@40", kill_grace_s=50.0)
    now = [1000.0]

    class Nothing:
        """A poll in which nothing happens but time passing."""

        def register(self, fd: int, events: int) -> None: ...

        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            now[0] += milliseconds / 1000
            return []

    monkeypatch.setattr(stop_all, "select", SimpleNamespace(poll=Nothing, POLLIN=0))
    monkeypatch.setattr(stop_all, "time", SimpleNamespace(monotonic=lambda: now[0]))
    assert stop_all.stop_jobs(world.ctx) == 1
    assert asked(world, job_id) == [stop("drain", 50.0)]
    assert now[0] - 1000.0 == climbed(world, job_id)[KILL] + MARGIN_S == 95.0

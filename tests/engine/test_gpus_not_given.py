"""When a GPU is not free: whoever or whatever is on it, no job gets it until that is over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from world import World

from gpuq.domain.gpu import IDLE_THRESHOLD_MB, GpuState
from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.drain import drain, undrain
from gpuq.engine.agent import Agent
from gpuq.engine.claim.dispatcher import FOREIGN_S, POLL_S
from gpuq.engine.queries.gpu_report import report
from gpuq.engine.snapshot import gpu_processes
from gpuq.engine.snapshot.builder import READING_MAX_AGE_S
from gpuq.errors import Forbidden, NotFound

SICK = "Xid 79: GPU has fallen off the bus"


@pytest.fixture
def one_gpu(make_world: Callable[..., World]) -> World:
    return make_world("sim:1x24G")


def look(world: World, agent: Agent) -> None:
    """A turn with a new reading of the driver."""
    world.clock.forward(2 * READING_MAX_AGE_S)
    agent.wake()
    agent.run_once()


def not_given_until(world: World, text: str, over: Callable[[], None], code: str = "ExternalProcess") -> None:
    """The GPU goes to no job, neither alone nor shared, and both are told why; after `over` it does."""
    alone, shares = world.submit("train"), world.submit("train", gpu_mem_mb=100)
    agent = world.agent()
    look(world, agent)
    assert world.launcher.orders == []
    for job_id in (alone, shares):
        assert world.state(job_id) == "queued"
        told = world.queries.why(job_id)["reason"]
        assert (told["code"], text in told["text"]) == (code, True), told
    over()
    look(world, agent)
    assert [world.state(alone), world.state(shares)] == ["starting", "queued"]


@contextmanager
def process(*, session: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A child of the test that lives until the end of the block."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=session)
    try:
        yield child
    finally:
        child.communicate()


def on_the_gpu(world: World, *pids: int, mem_mb: int = 10) -> None:
    world.driver_says({0: {"processes": [{"pid": pid, "mem_mb": mem_mb} for pid in pids]}})


def empty(world: World) -> None:
    world.driver_says({})


@pytest.mark.parametrize("problem", [SICK, "3 uncorrectable memory errors since the driver was loaded; reset the GPU"])
def test_a_sick_gpu_is_given_to_no_job(one_gpu: World, problem: str) -> None:
    one_gpu.driver_says({0: {"problem": problem}})
    not_given_until(one_gpu, problem, lambda: empty(one_gpu), "GpuUnhealthy")


def test_a_gpu_whose_processes_the_driver_hides_is_given_to_no_job(one_gpu: World) -> None:
    one_gpu.driver_says({0: {"processes": None}})
    not_given_until(one_gpu, "does not tell who uses gpu 0", lambda: empty(one_gpu))


def test_memory_in_use_that_nobody_owns_keeps_a_gpu_from_being_given(one_gpu: World) -> None:
    one_gpu.driver_says({0: {"used_mb": IDLE_THRESHOLD_MB + 1}})
    idle = {0: {"used_mb": IDLE_THRESHOLD_MB}}
    not_given_until(one_gpu, "by a process that cannot be seen", lambda: one_gpu.driver_says(idle))


def test_a_foreign_process_keeps_a_gpu_however_little_memory_it_uses(one_gpu: World) -> None:
    on_the_gpu(one_gpu, os.getpid(), mem_mb=1)
    not_given_until(one_gpu, f"pid {os.getpid()}", lambda: empty(one_gpu))


def test_a_drained_gpu_is_given_to_no_job(one_gpu: World) -> None:
    drain(one_gpu.ctx, 0, one_gpu.admin, "fan is loud")
    not_given_until(one_gpu, "fan is loud", lambda: undrain(one_gpu.ctx, 0, one_gpu.admin), "GpuUnhealthy")


def test_a_process_that_is_gone_and_lingers_in_the_drivers_list_is_nobodys(one_gpu: World) -> None:
    with process() as child:
        on_the_gpu(one_gpu, child.pid)
        job_id, agent = one_gpu.submit("train"), one_gpu.agent()
        look(one_gpu, agent)
        assert one_gpu.state(job_id) == "queued"
        assert child.stdin is not None
        child.stdin.close()
        # Ended, and not even collected by its parent.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert report(one_gpu.ctx)[0]["state"] == GpuState.FREE
        look(one_gpu, agent)
        assert one_gpu.state(job_id) == "starting"


def proc_hides_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a /proc that is mounted with hidepid hides other users' processes from a daemon that is not root."""
    monkeypatch.setattr(gpu_processes, "look", lambda pid: None)


@pytest.mark.parametrize("answer", [None, PermissionError], ids=["may_be_signalled", "may_not_be_signalled"])
def test_a_living_process_that_proc_hides_is_foreign(
    one_gpu: World, monkeypatch: pytest.MonkeyPatch, answer: type[OSError] | None
) -> None:
    proc_hides_everybody(monkeypatch)
    if answer is not None:

        def refuse(pid: int, signum: int) -> None:
            raise answer

        monkeypatch.setattr(os, "kill", refuse)
    with process() as child:
        on_the_gpu(one_gpu, child.pid)
        not_given_until(one_gpu, f"pid {child.pid}", lambda: empty(one_gpu))


def test_a_process_that_is_gone_is_nobodys_where_proc_hides_others(
    one_gpu: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc_hides_everybody(monkeypatch)
    with process() as child:
        on_the_gpu(one_gpu, child.pid)
    job_id, agent = one_gpu.submit("train"), one_gpu.agent()
    look(one_gpu, agent)
    assert one_gpu.state(job_id) == "starting"


def test_a_foreign_process_keeps_further_shares_off_a_gpu_too(one_gpu: World) -> None:
    first = one_gpu.submit("train", gpu_mem_mb=5_000)
    agent = one_gpu.agent()
    agent.run_once()
    one_gpu.launcher.run(first)
    on_the_gpu(one_gpu, os.getpid())
    second = one_gpu.submit("train", gpu_mem_mb=5_000)
    look(one_gpu, agent)
    assert [one_gpu.state(first), one_gpu.state(second)] == ["running", "queued"]
    [row] = report(one_gpu.ctx)
    assert (row["state"], [found["pid"] for found in row["processes"]]) == (GpuState.EXTERNAL, [os.getpid()])
    empty(one_gpu)
    look(one_gpu, agent)
    assert one_gpu.state(second) == "starting"


def test_processes_of_our_own_jobs_are_not_foreign(one_gpu: World) -> None:
    """Of the session that a supervisor made for its job, or descended from the supervisor."""
    first, second = one_gpu.submit("train", gpu_mem_mb=5_000), one_gpu.submit("train", gpu_mem_mb=5_000)
    agent = one_gpu.agent()
    agent.run_once()
    with process(session=True) as leader, process() as descendant:
        one_gpu.launcher.run(first, pid=leader.pid)
        one_gpu.launcher.run(second, supervisor_pid=os.getpid())
        on_the_gpu(one_gpu, leader.pid, descendant.pid)
        third = one_gpu.submit("train", gpu_mem_mb=5_000)
        look(one_gpu, agent)
        assert [one_gpu.state(job) for job in (first, second, third)] == ["running", "running", "starting"]
        [row] = report(one_gpu.ctx)
        assert (row["state"], row["processes"]) == (GpuState.SHARED, [])
        # Once they have ended, what is left of them is somebody's.
        for job in (first, second, third):
            one_gpu.launcher.end(job, Outcome.SUCCEEDED, exit_code=0)
        after = one_gpu.submit("train")
        look(one_gpu, agent)
        look(one_gpu, agent)
        assert [one_gpu.state(first), one_gpu.state(after)] == ["completed", "queued"]


def test_a_share_that_has_grown_since_the_last_sample_meets_no_other_share(one_gpu: World) -> None:
    """Also where another share is not used up yet, so that the sum of what is in use tells nothing."""
    grown, small = one_gpu.submit("train", gpu_mem_mb=6_000), one_gpu.submit("train", gpu_mem_mb=10_000)
    agent = one_gpu.agent()
    agent.run_once()
    with process(session=True) as first, process(session=True) as second:
        for job_id, child in ((grown, first), (small, second)):
            one_gpu.launcher.run(job_id, pid=child.pid)
        on_the_gpu(one_gpu, first.pid, second.pid, mem_mb=1_000)
        look(one_gpu, agent)
        other = one_gpu.submit("train", gpu_mem_mb=8_000)
        users = [{"pid": first.pid, "mem_mb": 12_000}, {"pid": second.pid, "mem_mb": 1_000}]
        one_gpu.driver_says({0: {"processes": users}})
        look(one_gpu, agent)
        assert one_gpu.state(other) == "queued"
        one_gpu.launcher.end(small, Outcome.SUCCEEDED, exit_code=0)
        on_the_gpu(one_gpu, first.pid, mem_mb=12_000)
        look(one_gpu, agent)
        assert one_gpu.state(other) == "starting"


def test_a_reading_of_the_driver_is_not_trusted_for_long(make_world: Callable[..., World]) -> None:
    world = make_world("sim:2")
    first = world.submit("train")
    agent = world.agent()
    agent.run_once()
    assert world.state(first) == "starting"
    world.driver_says({1: {"problem": SICK}})
    second = world.submit("train")
    world.clock.forward(READING_MAX_AGE_S + 0.1)
    agent.run_once()
    assert world.state(second) == "queued"


def test_a_gpu_that_a_foreign_process_has_left_is_noticed_soon(one_gpu: World) -> None:
    """Nobody tells of it, so the agent looks again by itself, long before its slow look."""
    on_the_gpu(one_gpu, os.getpid())
    job_id, agent = one_gpu.submit("train"), one_gpu.agent()
    agent.turn(0.0)
    assert one_gpu.state(job_id) == "queued"
    empty(one_gpu)
    assert 2 * FOREIGN_S < POLL_S
    one_gpu.clock.forward(1.5 * FOREIGN_S)
    agent.turn(0.0)
    assert one_gpu.state(job_id) == "starting"


def test_gpus_are_drained_by_administrators_and_by_their_number(one_gpu: World) -> None:
    with pytest.raises(Forbidden):
        drain(one_gpu.ctx, 0, one_gpu.user)
    with pytest.raises(NotFound, match="no gpu 1"):
        drain(one_gpu.ctx, 1, one_gpu.admin)
    drain(one_gpu.ctx, 0, one_gpu.admin)
    with pytest.raises(Forbidden):
        undrain(one_gpu.ctx, 0, one_gpu.user)
    assert report(one_gpu.ctx)[0]["state"] == GpuState.DRAINED

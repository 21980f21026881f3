"""Sharing GPUs by memory: running out of it, and using more than was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpuq.domain.outcome import Outcome
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.queries.gpu_report import report

OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"


def uses(world: Any, *shares: tuple[int, int | None], gpu: int = 0, used_mb: int | None = None) -> None:
    """The driver's reading from now on: (job id, MiB of its process) on that GPU."""
    processes = [{"pid": world.launcher.launched_of(job).supervisor_pid, "mem_mb": mem} for job, mem in shares]
    state: dict[str, Any] = {"processes": processes}
    if used_mb is not None:
        state["used_mb"] = used_mb
    (world.settings.home / "sim-gpus.json").write_text(json.dumps({str(gpu): state}))
    world.clock.forward(10)


def run(world: Any, agent: Any, *jobs: int) -> None:
    agent.wake()
    agent.run_once()
    for job in jobs:
        world.launcher.run(job)
    agent.run_once()
    assert [world.state(job) for job in jobs] == ["running"] * len(jobs)


def runs_out(world: Any, agent: Any, job_id: int) -> None:
    order = world.launcher.order_of(job_id)
    Path(order.run_dir).mkdir(parents=True)
    Path(order.log_path).write_text(OUT_OF_MEMORY)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()


def details(world: Any, job_id: int) -> list[str]:
    with world.ctx.records.read() as tx:
        return [event.detail or "" for event in tx.events(job_id=job_id)]


def again(world: Any, agent: Any) -> None:
    world.clock.forward(60)
    promote(world.ctx)
    agent.wake()
    agent.run_once()


def test_after_running_out_of_memory_it_asks_for_more(make_world: Any) -> None:
    world = make_world("sim:1x24G")
    job_id = world.submit("train", gpu_mem_mb=9000)
    agent = world.agent()
    run(world, agent, job_id)
    uses(world, (job_id, 10_000))
    agent.run_once()
    runs_out(world, agent, job_id)
    job = world.job(job_id)
    assert (job.state, job.gpu_mem_mb) == ("delayed", 12_500)
    assert "asks for 12500 MiB on each GPU instead of 9000, 10000 seen in use" in details(world, job_id)[-1]
    uses(world)
    again(world, agent)
    with world.ctx.records.read() as tx:
        assert [attempt.gpu_mem_mb for attempt in tx.attempts(job_id)] == [9000, 12_500]
    # Two of the old size would have fitted beside it, of the new one only one more of 12,000 does not.
    other = world.submit("train", gpu_mem_mb=12_100)
    agent.wake()
    agent.run_once()
    assert world.state(other) == "queued"


def test_a_job_that_no_gpu_can_satisfy_gets_one_to_itself(make_world: Any) -> None:
    world = make_world("sim:1x24G")
    job_id = world.submit("train", gpu_mem_mb=20_000)
    agent = world.agent()
    run(world, agent, job_id)
    uses(world, (job_id, 22_000))
    agent.run_once()
    runs_out(world, agent, job_id)
    assert world.job(job_id).gpu_mem_mb is None
    assert "no longer shares its GPUs" in details(world, job_id)[-1]
    uses(world)
    again(world, agent)
    small = world.submit("train", gpu_mem_mb=100)
    agent.wake()
    agent.run_once()
    assert [world.state(job_id), world.state(small)] == ["starting", "queued"]


def test_only_memory_raises_the_request_and_only_of_a_job_that_shares(make_world: Any) -> None:
    world = make_world("sim:2x24G", retry_quick=True)
    shares, alone = world.submit("train", gpu_mem_mb=9000), world.submit("train")
    agent = world.agent()
    run(world, agent, shares, alone)
    world.launcher.end(shares, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    runs_out(world, agent, alone)
    assert (world.state(shares), world.job(shares).gpu_mem_mb) == ("delayed", 9000)
    assert (world.state(alone), world.job(alone).gpu_mem_mb) == ("delayed", None)


def test_the_last_failure_leaves_the_request_as_it_was(make_world: Any) -> None:
    world = make_world("sim:1x24G")
    job_id = world.submit("train", gpu_mem_mb=9000, max_retries=0)
    agent = world.agent()
    run(world, agent, job_id)
    runs_out(world, agent, job_id)
    assert (world.state(job_id), world.job(job_id).gpu_mem_mb) == ("failed", 9000)


def test_a_job_that_outgrows_its_request_is_flagged_at_once_and_only_once(make_world: Any) -> None:
    world = make_world("sim:1x24G")
    job_id = world.submit("train", gpu_mem_mb=6000)
    agent = world.agent()
    run(world, agent, job_id)
    uses(world, (job_id, 5_900))
    agent.run_once()
    assert world.job(job_id).peak_gpu_mem_mb is None
    for used in (20_000, 20_000, 20_500):
        uses(world, (job_id, used))
        agent.run_once()
    told = [text for text in details(world, job_id) if "asked for 6000" in text]
    assert told == ["uses 20000 MiB of a GPU and asked for 6000; 20000 are reserved for it from now on"]
    assert world.job(job_id).peak_gpu_mem_mb == 20_000
    [row] = report(world.ctx)
    assert [(job["gpu_mem_mb"], job["peak_gpu_mem_mb"]) for job in row["jobs"]] == [(6000, 20_000)]
    uses(world, (job_id, 23_000))
    agent.run_once()
    assert world.job(job_id).peak_gpu_mem_mb == 23_000


def test_memory_that_an_outgrown_job_uses_is_not_given_to_another(make_world: Any) -> None:
    world = make_world("sim:1x24G")
    job_id = world.submit("train", gpu_mem_mb=6000)
    agent = world.agent()
    run(world, agent, job_id)
    uses(world, (job_id, 20_000))
    other = world.submit("train", gpu_mem_mb=6000)
    agent.wake()
    agent.run_once()
    assert world.state(other) == "queued"
    # It has let go of it, and may want it again.
    uses(world, (job_id, 1_000))
    agent.wake()
    agent.run_once()
    assert world.state(other) == "queued"
    # Neither does an agent forget it that is started anew.
    world.agents.pop().stop()
    world.ctx = world.open()
    agent = world.agent()
    agent.run_once()
    assert world.state(other) == "queued"
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    uses(world)
    agent.run_once()
    assert world.state(other) == "starting"


def test_memory_whose_owner_the_driver_does_not_tell_is_not_given_away_either(make_world: Any) -> None:
    world = make_world("sim:1x24G")
    jobs = [world.submit("train", gpu_mem_mb=5000) for _ in range(2)]
    agent = world.agent()
    run(world, agent, *jobs)
    uses(world, (jobs[0], None), (jobs[1], None), used_mb=18_000)
    other = world.submit("train", gpu_mem_mb=8000)
    agent.wake()
    agent.run_once()
    assert world.state(other) == "queued"
    uses(world, (jobs[0], None), (jobs[1], None), used_mb=10_500)
    agent.wake()
    agent.run_once()
    assert world.state(other) == "starting"


def test_a_gpus_only_holder_has_what_is_in_use_on_it(make_world: Any) -> None:
    world = make_world("sim:1x24G")
    job_id = world.submit("train", gpu_mem_mb=5000)
    agent = world.agent()
    run(world, agent, job_id)
    uses(world, (job_id, None), used_mb=9_600)
    agent.run_once()
    assert world.job(job_id).peak_gpu_mem_mb == 9_000

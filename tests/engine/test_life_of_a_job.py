"""From submission to history, with a launcher that the test plays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.hold import hold, release
from gpuq.engine.actions.pause import pause, resume
from gpuq.engine.actions.retry import retry
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.queries.health import readyz
from gpuq.errors import Forbidden, WrongState
from gpuq.user_files import OverQuota


def test_a_job_runs_on_its_gpus_and_ends_in_history(world: Any) -> None:
    job_id = world.submit("train", gpus=2)
    agent = world.agent()
    agent.run_once()
    assert world.state(job_id) == "starting"
    assert len(world.holders()) == 2
    world.launcher.run(job_id)
    agent.run_once()
    job = world.job(job_id)
    assert (job.state, job.gpu_indices, job.attempt) == (JobState.RUNNING, (0, 1), 1)
    world.clock.forward(60)
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    job = world.job(job_id)
    assert (job.state, job.outcome, job.exit_code) == (JobState.COMPLETED, Outcome.SUCCEEDED, 0)
    assert job.finished_at - job.started_at == pytest.approx(60)
    assert world.holders() == {}
    assert world.story(job_id) == ["queued", "starting", "running", "completed"]


def test_a_job_sees_its_gpus_and_its_own_facts(world: Any) -> None:
    job_id = world.submit("train", gpus=2, env={"MINE": "1", "CUDA_VISIBLE_DEVICES": "7"}, time_limit_s=60)
    world.agent().run_once()
    spec = world.launcher.order_of(job_id).spec
    assert spec["env"]["CUDA_VISIBLE_DEVICES"] == spec["env"]["GPUQ_GPUS"] == "0,1"
    assert spec["env"]["MINE"] == "1"
    assert spec["env"]["GPUQ_JOB_ID"] == str(job_id)
    assert float(spec["env"]["GPUQ_TIME_LIMIT_END"]) == pytest.approx(world.clock.now() + 60, abs=1)
    assert spec["token"] not in spec["env"].values()


def test_a_job_without_gpus_sees_none(world: Any) -> None:
    job_id = world.submit("prepare", gpus=0)
    world.agent().run_once()
    assert world.launcher.order_of(job_id).spec["env"]["CUDA_VISIBLE_DEVICES"] == ""


def test_two_jobs_never_hold_the_same_gpu(world: Any) -> None:
    jobs = [world.submit("train", gpus=3), world.submit("train", gpus=3)]
    agent = world.agent()
    agent.run_once()
    agent.run_once()
    assert [world.state(job) for job in jobs] == ["starting", "queued"]
    world.launcher.run(jobs[0])
    agent.run_once()
    world.launcher.end(jobs[0], Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert [world.state(job) for job in jobs] == ["completed", "starting"]


def test_jobs_without_gpus_do_not_wait_behind_gpu_jobs(world: Any) -> None:
    world.submit("big", gpus=4)
    blocked = world.submit("big", gpus=4)
    cpu = world.submit("prepare", gpus=0)
    world.agent().run_once()
    assert (world.state(blocked), world.state(cpu)) == ("queued", "starting")


def test_a_failing_job_is_retried_with_backoff_and_then_becomes_a_dead_letter(world: Any) -> None:
    job_id = world.submit("fail", max_retries=1)
    agent = world.agent()
    for attempt in (1, 2):
        agent.wake()
        agent.run_once()
        assert world.launcher.order_of(job_id).number == attempt
        world.launcher.run(job_id)
        agent.run_once()
        world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=3)
        agent.run_once()
        if attempt == 1:
            job = world.job(job_id)
            assert (job.state, job.retries_used) == (JobState.DELAYED, 1)
            assert 1.5 <= job.eligible_at - world.clock.now() <= 2.5
            world.clock.forward(3)
            promote(world.ctx)
    job = world.job(job_id)
    assert (job.state, job.exit_code, job.outcome) == (JobState.FAILED, 3, Outcome.EXIT_NONZERO)
    with world.ctx.records.read() as tx:
        [letter] = tx.dead_letters()
        assert (letter.job_id, letter.attempts) == (job_id, 2)
        assert [attempt.outcome for attempt in tx.attempts(job_id)] == [Outcome.EXIT_NONZERO] * 2
    again = retry(world.ctx, job_id, world.user)
    assert (again.state, again.retries_used, again.attempt) == (JobState.QUEUED, 0, 2)
    with world.ctx.records.read() as tx:
        assert tx.dead_letters() == []


def test_a_full_disk_at_the_launch_is_no_jobs_fault_and_costs_no_retries(world: Any) -> None:
    jobs = [world.submit("train", max_retries=0, gpus=4) for _ in range(3)]
    agent = world.agent()
    for seconds in (1, 2, 4):
        world.launcher.fail_next = OSError(28, "No space left on device")
        agent.run_once()
        world.launcher.fail_next = None
        agent.run_once()
        assert [world.state(job_id) for job_id in jobs] == ["queued"] * 3
        told = world.queries.why(jobs[0])
        assert told["reason"]["code"] == "LaunchTrouble"
        assert "No space left on device" in told["reason"]["text"]
        ready = readyz(world.ctx, AgentLiveness(world.ctx))
        assert not ready["ready"]
        assert "No space left on device" in ready["checks"]["agent"]["detail"]
        agent.wake()
        agent.run_once()
        assert world.state(jobs[0]) == "queued", "nothing is tried before the pause is over"
        world.clock.forward(seconds)
        agent.wake()
    agent.run_once()
    assert [world.state(job_id) for job_id in jobs] == ["starting", "queued", "queued"]
    assert [(world.job(job_id).retries_used, world.job(job_id).attempt) for job_id in jobs] == [(0, 4), (0, 0), (0, 0)]
    world.launcher.run(jobs[0])
    agent.run_once()
    assert readyz(world.ctx, AgentLiveness(world.ctx))["checks"]["agent"] == {"ok": True, "detail": "runs"}


def test_a_job_that_cannot_be_launched_is_a_launch_error_and_retried(world: Any) -> None:
    job_id = world.submit("train")
    world.launcher.fail_next = OverQuota(1, "user 1000 has used up the disk quota")
    agent = world.agent()
    agent.run_once()
    agent.run_once()
    assert world.state(job_id) == "delayed"
    with world.ctx.records.read() as tx:
        [attempt] = tx.attempts(job_id)
    assert attempt.outcome is Outcome.LAUNCH_ERROR
    assert "disk quota" in attempt.error
    assert world.holders() == {}


def test_job_cancelled_while_waiting_never_starts(world: Any) -> None:
    job_id = world.submit("train")
    cancel(world.ctx, job_id, world.user)
    world.agent().run_once()
    assert world.state(job_id) == "cancelled"
    assert world.launcher.orders == []


def test_job_cancelled_while_starting_is_told_to_stop_and_ends_cancelled(world: Any) -> None:
    job_id = world.submit("train")
    agent = world.agent()
    agent.run_once()
    assert cancel(world.ctx, job_id, world.user).state is JobState.STOPPING
    assert world.launcher.stops[0]["reason"] == "cancel"
    world.launcher.end(job_id, Outcome.CANCELLED)
    agent.run_once()
    assert world.state(job_id) == "cancelled"
    assert "running" not in world.story(job_id)


def test_a_second_cancel_kills_at_once(world: Any) -> None:
    job_id = world.submit("train")
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    cancel(world.ctx, job_id, world.user, grace_s=20)
    cancel(world.ctx, job_id, world.user)
    assert [stop["grace_s"] for stop in world.launcher.stops] == [20, 0]


def test_a_final_job_cannot_be_cancelled(world: Any) -> None:
    job_id = world.submit("train")
    cancel(world.ctx, job_id, world.user)
    with pytest.raises(WrongState, match="already cancelled"):
        cancel(world.ctx, job_id, world.user)


@pytest.mark.parametrize("verb", [cancel, hold, release, retry])
def test_another_users_job_is_left_alone(world: Any, verb: Callable[..., Any]) -> None:
    from gpuq.domain.caller import Caller

    job_id = world.submit("train")
    with pytest.raises(Forbidden, match="belongs to alice"):
        verb(world.ctx, job_id, Caller("mallory", uid=1001))


def test_a_held_job_waits_until_it_is_released(world: Any) -> None:
    job_id = world.submit("train")
    hold(world.ctx, job_id, world.user)
    agent = world.agent()
    agent.run_once()
    assert world.state(job_id) == "held"
    release(world.ctx, job_id, world.user)
    agent.wake()
    agent.run_once()
    assert world.state(job_id) == "starting"


def test_what_an_administrator_holds_the_owner_cannot_release(world: Any) -> None:
    job_id = world.submit("train")
    hold(world.ctx, job_id, world.admin)
    with pytest.raises(Forbidden, match="administrator"):
        release(world.ctx, job_id, world.user)


def test_pause_keeps_jobs_waiting_also_after_a_restart(world: Any) -> None:
    pause(world.ctx, world.admin, "upgrade")
    job_id = world.submit("train")
    world.agent().run_once()
    world.agents.pop().stop()
    agent = world.agent()
    agent.run_once()
    assert world.state(job_id) == "queued"
    resume(world.ctx, world.admin)
    agent.wake()
    agent.run_once()
    assert world.state(job_id) == "starting"


def test_dependents_start_only_after_success(world: Any) -> None:
    first = world.submit("prepare")
    then = world.submit("train", after=[first], keep_waiting=True)
    anyway = world.submit("tidy", after_any=[first])
    assert {world.state(then), world.state(anyway)} == {"blocked"}
    agent = world.agent()
    agent.run_once()
    world.launcher.run(first)
    agent.run_once()
    cancel(world.ctx, first, world.user)
    world.launcher.end(first, Outcome.CANCELLED)
    agent.run_once()
    assert world.state(then) == "blocked"
    assert world.state(anyway) in {"queued", "starting"}
    retry(world.ctx, first, world.user)
    agent.wake()
    agent.run_once()
    world.launcher.run(first)
    agent.run_once()
    world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(then) in {"queued", "starting"}


def test_the_same_key_returns_the_live_job(world: Any) -> None:
    first = world.submit("train", key="nightly")
    assert world.submit("train", key="nightly") == first
    cancel(world.ctx, first, world.user)
    assert world.submit("train", key="nightly") != first


def test_gpu_out_of_memory_is_recognised_in_the_log(world: Any) -> None:
    job_id = world.submit("train")
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    order = world.launcher.order_of(job_id)
    from pathlib import Path

    Path(order.run_dir).mkdir(parents=True)
    Path(order.log_path).write_text(
        "epoch 1\nTraceback (most recent call last):\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    )
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    with world.ctx.records.read() as tx:
        [attempt] = tx.attempts(job_id)
    assert attempt.outcome is Outcome.GPU_OOM
    # Everybody sees the error, and the line is the program's own.
    assert attempt.error == "out of GPU memory"


def test_the_line_that_tells_of_it_is_kept_with_the_end_of_the_output(world: Any) -> None:
    job_id = world.submit("train", max_retries=0)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    order = world.launcher.order_of(job_id)
    from pathlib import Path

    Path(order.run_dir).mkdir(parents=True)
    line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB; key=hidden"
    Path(order.log_path).write_text("\n".join([line, *(f"frame {n}" for n in range(30))]))
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    with world.ctx.records.read() as tx:
        letter = tx.dead_letter(job_id)
        told = str([tx.job(job_id), *tx.attempts(job_id), *tx.events(job_id=job_id)])
    assert letter.error == "out of GPU memory"
    assert letter.log_tail.splitlines() == [line, *(f"frame {n}" for n in range(10, 30))]
    assert "hidden" not in told


@pytest.mark.parametrize("begin", [1e308, -5, "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", 253402300800])
def test_a_begin_time_that_no_calendar_has_is_refused(world: Any, begin: float | str) -> None:
    from gpuq.errors import UsageError

    with pytest.raises(UsageError, match="begin"):
        world.submit("train", begin=begin)
    with world.ctx.records.read() as tx:
        assert sum(tx.count_by_state().values()) == 0


def test_a_late_begin_is_waited_for(world: Any) -> None:
    job_id = world.submit("train", begin=world.clock.now() + 3600)
    agent = world.agent()
    promote(world.ctx)
    agent.run_once()
    assert world.state(job_id) == "delayed"
    world.clock.forward(3601)
    promote(world.ctx)
    agent.run_once()
    assert world.state(job_id) == "starting"


def test_a_short_job_tells_of_its_start_too(world: Any) -> None:
    job_id = world.submit("true")
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.turn(0.0, write_after_s=60.0)
    agent.turn(0.0, write_after_s=60.0)
    assert world.story(job_id) == ["queued", "starting", "running", "completed"]

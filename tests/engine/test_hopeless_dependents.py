"""Who was to run after a job that did not succeed."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.change import update
from gpuq.engine.actions.hold import hold, release
from gpuq.engine.actions.retry import retry
from gpuq.engine.intake.submit import submit
from gpuq.errors import Refused

AFTER = "and this job was to run only after its success"


def fail(world: Any, job_id: int, agent: Any) -> None:
    """Its program ends with 3."""
    agent.wake()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=3)
    agent.run_once()


def test_who_was_to_run_after_a_job_that_failed_for_good_is_cancelled_and_told_why(world: Any) -> None:
    first = world.submit("prepare", max_retries=0)
    then = world.submit("train", after=[first])
    last = world.submit("report", after=[then, first])
    anyway = world.submit("tidy", after_any=[last])
    patient = world.submit("train", after=[first], keep_waiting=True)
    held = world.submit("train", after=[first], hold=True)
    fail(world, first, world.agent())
    told = f"job {first} failed (exit code 3), {AFTER}"
    for job_id, why in ((then, told), (last, told), (held, told)):
        job = world.job(job_id)
        assert (str(job.state), job.outcome, job.error) == ("cancelled", Outcome.CANCELLED, why)
        assert job.finished_at is not None
        with world.ctx.records.read() as tx:
            assert tx.events(job_id=job_id)[-1].detail == why
    assert world.state(patient) == "blocked"
    assert world.queries.why(patient)["reason"]["code"] == "DependencyNeverSatisfied"
    assert world.state(anyway) == "queued", "whoever waits for any end waits for no success"


def test_a_job_that_may_be_retried_by_itself_cancels_nobody(world: Any) -> None:
    first = world.submit("prepare", max_retries=1)
    then = world.submit("train", after=[first])
    fail(world, first, world.agent())
    assert (world.state(first), world.state(then)) == ("delayed", "blocked")


def test_a_chain_is_cancelled_to_its_end_each_job_for_the_one_before(world: Any) -> None:
    chain = [world.submit("a")]
    for _ in range(20):
        chain.append(world.submit("b", after=[chain[-1]]))
    cancel(world.ctx, chain[0], world.user)
    assert {world.state(job_id) for job_id in chain} == {"cancelled"}
    assert [world.job(job_id).error for job_id in chain[1:]] == [
        f"job {before} was cancelled, {AFTER}" for before in chain[:-1]
    ]


def test_one_that_keeps_waiting_runs_once_the_other_was_retried_and_succeeded(world: Any) -> None:
    first = world.submit("prepare", max_retries=0)
    patient = world.submit("train", after=[first], keep_waiting=True)
    behind = world.submit("report", after=[patient])
    agent = world.agent()
    fail(world, first, agent)
    assert world.state(behind) == "blocked", "what it waits for may still succeed"
    retry(world.ctx, first, world.user)
    agent.wake()
    agent.run_once()
    world.launcher.run(first)
    agent.run_once()
    world.launcher.end(first, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert world.state(patient) in {"queued", "starting"}


def test_one_that_is_retried_before_the_other_waits_for_it_and_goes_when_it_fails_again(world: Any) -> None:
    first = world.submit("prepare", max_retries=0)
    then = world.submit("train", after=[first])
    agent = world.agent()
    fail(world, first, agent)
    retry(world.ctx, then, world.user)
    assert world.state(then) == "blocked"
    retry(world.ctx, first, world.user)
    fail(world, first, agent)
    assert world.state(then) == "cancelled"


def test_what_a_database_of_the_past_made_held_is_left_to_a_person(world: Any) -> None:
    first = world.submit("prepare")
    then = world.submit("train", after=[first])
    hold(world.ctx, then, world.user)
    with world.ctx.records.write() as tx:
        tx.update_job(then, {"held_by": "past"}, expect=frozenset({world.job(then).state}))
    cancel(world.ctx, first, world.user)
    assert world.state(then) == "held"
    release(world.ctx, then, world.user)
    assert world.state(then) == "blocked"


def test_a_job_that_could_only_wait_in_vain_is_refused_when_it_is_submitted(world: Any) -> None:
    first = world.submit("prepare")
    cancel(world.ctx, first, world.user)
    with pytest.raises(Refused, match=f"cannot run after job {first}, which was cancelled") as refused:
        world.submit("train", after=[first])
    assert "--keep-waiting" in (refused.value.hint or "")
    assert world.state(world.submit("train", after=[first], keep_waiting=True)) == "blocked"
    assert world.state(world.submit("tidy", after_any=[first])) == "queued"


def test_ten_thousand_dependents_are_cancelled_by_as_many_statements_as_two(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statements(number: int) -> int:
        first = world.submit("prepare")
        specs = [JobSpec(command=["a"], cwd="/", after=[first])] * number
        ids = [job.id for job in submit(world.ctx, specs, world.user)]
        with world.ctx.records.write() as tx:
            calls: list[str] = []
            kind = type(tx)
            of = kind._rows
            each = kind._change_rows
            monkeypatch.setattr(kind, "_rows", lambda *a, **k: (calls.append("read"), of(*a, **k))[1])
            monkeypatch.setattr(
                kind, "_change_rows", lambda self, rows: (calls.extend("write" for _ in rows), each(self, rows))[1]
            )
        cancel(world.ctx, first, world.user)
        monkeypatch.undo()
        assert {world.state(ids[0]), world.state(ids[-1])} == {"cancelled"}
        with world.ctx.records.read() as tx:
            assert tx.count_by_state().get("blocked", 0) == 0
        return len(calls)

    few, many = statements(2), statements(10_000)
    assert many == few


def test_more_gpus_than_a_user_may_ever_hold_are_refused_with_the_limit(make_world: Any) -> None:
    world = make_world("sim:4", user_max_gpus=2)
    with pytest.raises(Refused, match=r"asks for 3 GPUs; one user may hold at most 2 at once \(GPUQ_USER_MAX_GPUS\)"):
        world.submit("train", gpus=3)
    job_id = world.submit("train", gpus=2)
    with pytest.raises(Refused, match="GPUQ_USER_MAX_GPUS"):
        update(world.ctx, job_id, world.user, {"gpus": 4})
    assert update(world.ctx, job_id, world.user, {"gpus": 1}).gpus == 1

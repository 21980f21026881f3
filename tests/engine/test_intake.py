"""What a submission becomes: rows, words to others, and refusals that name the job they are for."""

from __future__ import annotations

import os
import pwd
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.domain.times import iso
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.intake.request import Asked
from gpuq.engine.intake.submit import check, store, submit
from gpuq.engine.intake.to_agent import tell
from gpuq.errors import Constraint, GpuqError, NotFound, Refused, UsageError
from gpuq.ports.records import Waiting


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"command": ["a"], "cwd": "/", **fields})


def topics_of(world: Any) -> list[str]:
    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    return topics


def test_whoever_waits_for_news_hears_of_a_submission_by_its_state(world: Any) -> None:
    topics = topics_of(world)

    def heard(*specs: JobSpec) -> list[str]:
        topics.clear()
        submit(world.ctx, specs, world.user)
        return list(topics)

    later = world.clock.now() + 100
    assert heard(spec()) == ["queue", "events"]
    assert heard(spec(hold=True)) == ["events"]
    assert heard(spec(begin=later)) == ["delayed", "events"]
    assert heard(spec(begin=later), spec()) == ["queue", "delayed", "events"]
    assert heard(spec(key="k")) == ["queue", "events"]
    assert heard(spec(key="k")) == []
    assert len(world.ctx.queue.heads(9)) == 3


def test_what_is_stored_is_not_told_before_it_is_asked_to_be(world: Any) -> None:
    topics = topics_of(world)
    done = store(world.ctx, Asked([spec(gpus=2), spec(hold=True)], world.user))
    assert (topics, world.ctx.queue.heads(9)) == ([], [])
    tell(world.ctx, done)
    [entry] = world.ctx.queue.heads(9)
    assert (entry.job_id, entry.gpus, entry.score) == (done.ids[0], 2, world.job(done.ids[0]).score)


def test_a_row_says_who_where_what_and_how_often(make_world: Any) -> None:
    world = make_world("sim:4", default_max_retries=4)
    now = world.clock.now()
    [plain] = submit(world.ctx, [spec(command=["/opt/bin/train.sh", "x"])], world.user)
    assert (plain.name, plain.user, plain.cwd, plain.max_retries) == ("train.sh", "alice", "/", 4)
    assert (plain.submitted_at, plain.eligible_at, plain.held_by) == (now, None, None)
    [own] = submit(world.ctx, [spec(name="n", max_retries=0, hold=True, begin=now + 5)], world.user)
    assert (own.name, own.max_retries, own.held_by, own.eligible_at) == ("n", 0, "user", None)
    [later] = submit(world.ctx, [spec(begin=now + 5)], world.user)
    assert (str(later.state), later.eligible_at, later.held_by) == ("delayed", now + 5, None)
    [folder] = submit(world.ctx, [spec(command=["/opt/bin/"])], world.user)
    assert folder.name == "/opt/bin/"
    with world.ctx.records.read() as tx:
        assert tx.spec(plain.id)[1:] == (1000, 1000)


@pytest.mark.parametrize(
    ("uid", "home"), [(0, pwd.getpwuid(0).pw_dir), (None, "/"), (4_000_000_000, "/")], ids=["root", "nobody", "unknown"]
)
def test_a_job_without_a_folder_runs_in_the_home_of_its_user(world: Any, uid: int | None, home: str) -> None:
    [job] = submit(world.ctx, [JobSpec.parse({"command": ["a"]})], Caller("u", uid=uid))
    assert job.cwd == home
    assert os.path.isabs(job.cwd)


def test_an_array_is_a_job_for_each_index(make_world: Any) -> None:
    world = make_world("sim:4", user_spacing=7.0)
    jobs = submit(world.ctx, [spec(array="3-9:2%2", name="fold-{index}")], world.user)
    assert [job.name for job in jobs] == ["fold-3", "fold-5", "fold-7", "fold-9"]
    assert [job.array_index for job in jobs] == [3, 5, 7, 9]
    assert {job.array_id for job in jobs} == {jobs[0].id}
    assert [job.score - jobs[0].score for job in jobs] == [0, 7, 14, 21]
    with world.ctx.records.read() as tx:
        assert {facts.array_limit for facts in tx.waiting([job.id for job in jobs]).values()} == {2}
    # The next one stands behind all of them.
    [after] = submit(world.ctx, [spec()], world.user)
    assert after.score - jobs[0].score == 28
    both = submit(world.ctx, [spec(), spec()], Caller("bob"))
    assert both[1].score - both[0].score == 7


def test_a_job_waits_for_others_as_it_asks_to(make_world: Any) -> None:
    world = make_world("sim:4")
    good, bad, runs = world.submit("a"), world.submit("a", max_retries=0), world.submit("a")
    agent = world.agent()
    agent.run_once()
    for job_id in (good, bad, runs):
        world.launcher.run(job_id)
    agent.run_once()
    world.launcher.end(good, Outcome.SUCCEEDED, exit_code=0)
    world.launcher.end(bad, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    gone = world.submit("a")
    cancel(world.ctx, gone, world.user)

    def state(**fields: Any) -> str:
        return world.state(world.submit("a", **fields))

    for job_id in (bad, gone):
        with pytest.raises(Refused, match=f"cannot run after job {job_id}"):
            state(after=[job_id])
    kept = [state(after=[job_id], keep_waiting=True) for job_id in (good, bad, gone, runs)]
    assert kept == ["queued", "blocked", "blocked", "blocked"]
    assert [state(after_any=[job_id]) for job_id in (good, bad, gone, runs)] == ["queued"] * 3 + ["blocked"]
    assert state(after=[good], after_any=[bad]) == "queued"
    assert state(after=[good], after_any=[runs]) == "blocked"
    assert state(after=[good, runs]) == "blocked"
    with pytest.raises(NotFound, match="cannot wait for job 999: no such job"):
        state(after_any=[good, 999])


def test_a_key_is_of_one_live_or_successful_job(world: Any) -> None:
    [first] = submit(world.ctx, [spec(key="k")], world.user)
    assert [job.id for job in submit(world.ctx, [spec(), spec(key="k")], world.user)] == [first.id + 1, first.id]
    [others] = submit(world.ctx, [spec(key="k")], Caller("bob"))
    assert others.id != first.id
    with pytest.raises(UsageError, match="used twice in one submission") as refused:
        submit(world.ctx, [spec(), spec(key="l"), spec(key="l")], world.user)
    assert refused.value.index == 2
    with pytest.raises(UsageError, match="an array cannot carry one"):
        submit(world.ctx, [spec(key="m", array="1-2")], world.user)
    cancel(world.ctx, first.id, world.user)
    [again] = submit(world.ctx, [spec(key="k")], world.user)
    assert again.id != first.id


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"cwd": "here"}, UsageError, "'here' is not an absolute path"),
        ({"gpus": 5}, Constraint, "asks for 5 GPUs; this machine has 4"),
        ({"gpus": 2, "gpu_ids": [1, 9]}, Constraint, "this machine has 4, 1 of them as asked for; there is no GPU 9"),
        ({"gpus": 1, "gpu_model": "H100"}, Constraint, "asks for 1 GPU; this machine has 4, 0 of them as asked for"),
        ({"gpu_mem_mb": 25_000}, Constraint, "0 of them as asked for$"),
        ({"after": [99]}, NotFound, "no such job"),
        ({"begin": "soon"}, UsageError, "is not a time"),
        ({"array": "5-1"}, UsageError, "bad array"),
    ],
)
def test_a_refusal_names_the_job_that_it_is_for_and_nothing_is_stored(
    world: Any, fields: dict[str, Any], error: type[GpuqError], told: str
) -> None:
    with pytest.raises(error, match=told) as refused:
        submit(world.ctx, [spec(), spec(gpus=0), spec(**fields), spec()], world.user)
    assert refused.value.index == 2
    with world.ctx.records.read() as tx:
        assert sum(tx.count_by_state().values()) == 0


def test_what_just_fits_is_taken(world: Any) -> None:
    world.submit("a", gpus=4)
    world.submit("a", gpus=1, gpu_ids=[3])
    world.submit("a", gpu_mem_mb=24 * 1024)
    world.submit("a", gpus=0)


def test_on_a_machine_without_gpus_the_refusal_says_how_to_go_on(make_world: Any, monkeypatch: Any) -> None:
    world = make_world("sim:0")
    with pytest.raises(Constraint, match="this machine has no GPU, the job asks for 1") as refused:
        submit(world.ctx, [spec()], world.user)
    assert "GPUQ_GPUS=sim:0 asks for no GPU at all" in str(refused.value.hint)
    monkeypatch.setattr(world.ctx.gpus, "why_empty", lambda: None)
    with pytest.raises(Constraint) as refused:
        submit(world.ctx, [spec()], world.user)
    assert "submit with -g 0" in str(refused.value.hint)
    submit(world.ctx, [spec(gpus=0)], world.user)


def test_a_full_queue_takes_no_more_than_it_may_hold(make_world: Any) -> None:
    world = make_world("sim:4", max_waiting=4, user_max_waiting=2)
    bob, carol = Caller("bob"), Caller("carol")
    with pytest.raises(Refused, match=r"3 more jobs are too many: at most 2 may wait, and you have 0 waiting"):
        submit(world.ctx, [spec(array="1-3")], world.user)
    first, _ = submit(world.ctx, [spec(), spec(hold=True)], world.user)
    with pytest.raises(Refused, match=r"you have as many waiting jobs as it may \(2\)"):
        submit(world.ctx, [spec()], world.user)
    with pytest.raises(Refused, match=r"you have as many"):
        check(world.ctx, spec(), world.user, lambda _: None)
    submit(world.ctx, [spec(key="k"), spec()], bob)
    with pytest.raises(Refused, match=r"the queue holds as many waiting jobs as it may \(4\)"):
        submit(world.ctx, [spec()], carol)
    # Nothing new: the job is there.
    assert len(submit(world.ctx, [spec(key="k")], bob)) == 1
    cancel(world.ctx, first.id, world.user)
    submit(world.ctx, [spec()], carol)


def test_a_request_that_is_repeated_has_the_same_answer_and_another_one_none(world: Any) -> None:
    def ask(fingerprint: str | None, *specs: JobSpec) -> list[int]:
        return store(world.ctx, Asked(specs or [spec()], world.user, request_key="r", fingerprint=fingerprint)).ids

    first = ask("f")
    assert ask("f") == first
    assert ask(None) == first
    with pytest.raises(Refused, match=rf"used for another submission \(job {first[0]}\)"):
        ask("g")
    assert store(world.ctx, Asked([spec()], Caller("bob"), request_key="r")).ids != first
    plain = store(world.ctx, Asked([spec()], world.user, request_key="s")).ids
    # Noted by a release that kept no fingerprints.
    assert store(world.ctx, Asked([spec()], world.user, request_key="s", fingerprint="f")).ids == plain
    again = store(world.ctx, Asked([spec()], world.user, request_key="r", fingerprint="f"))
    assert again.stored == {}


def test_a_check_asks_for_the_estimate_of_the_job_as_it_would_stand_and_stores_nothing(world: Any) -> None:
    asked: list[Waiting] = []

    def estimate(job: Waiting) -> float:
        asked.append(job)
        return world.clock.now() + 60

    fields = {
        "gpus": 2, "gpu_mem_mb": 500, "gpu_ids": [1, 2], "gpu_model": "sim", "group": "g", "time_limit_s": 60.0,
        "preemptible": True, "priority": "high", "array": "1-4%3",
    }  # fmt: skip
    now = world.clock.now()
    assert check(world.ctx, spec(**fields), world.user, estimate) == iso(now + 60)
    [job] = asked
    assert (job.gpus, job.gpu_mem_mb, job.gpu_ids, job.gpu_model, job.group) == (2, 500, (1, 2), "sim", "g")
    assert (job.time_limit_s, job.preemptible, job.priority.name, job.array_limit) == (60.0, True, "HIGH", 3)
    assert (job.user, job.submitted_at, job.command, job.attempt, job.array_id) == ("alice", now, ("a",), 0, None)
    stored = submit(world.ctx, [spec(**fields)], world.user)[0]
    assert job.score == stored.score
    assert job.id > stored.id
    with world.ctx.records.read() as tx:
        assert sum(tx.count_by_state().values()) == 4
    assert check(world.ctx, spec(gpus=1), world.user, lambda job: None if job.gpu_ids is None else 0.0) is None
    for waits in ({"hold": True}, {"after": [stored.id]}):
        assert check(world.ctx, spec(**waits), world.user, estimate) is None
    assert check(world.ctx, spec(begin=now + 5), world.user, estimate) == iso(now + 5)
    assert len(asked) == 1
    with pytest.raises(Constraint):
        check(world.ctx, spec(gpus=9), world.user, estimate)

"""What people are told: GPUs, health, the line, reasons and estimates, whole and exact."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.domain.times import iso
from gpuq.engine.actions import dead_letters, groups
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.drain import drain, undrain
from gpuq.engine.actions.pause import pause, resume
from gpuq.engine.intake.submit import check
from gpuq.engine.queries import group_report, health
from gpuq.engine.queries.gpu_report import report
from gpuq.engine.snapshot.gpu_processes import belongs_to, exists
from gpuq.errors import Forbidden, NotFound


def started(world: Any, *jobs: int) -> Any:
    agent = world.agent()
    agent.wake()
    agent.run_once()
    for job_id in jobs:
        world.launcher.run(job_id)
    agent.run_once()
    return agent


def test_report_of_the_gpus_is_exact(make_world: Any) -> None:
    world = make_world("sim:5x24G")
    alone, shares = world.submit("train", name="big"), world.submit("train", gpu_mem_mb=5000)
    started(world, alone, shares)
    held = {job: world.job(job).gpu_indices[0] for job in (alone, shares)}
    sick, hidden, drained = sorted(set(range(5)) - set(held.values()))
    world.driver_says({sick: {"problem": "Xid 79"}, hidden: {"used_mb": 700}})
    drain(world.ctx, drained, world.admin, "a new fan")
    rows = {row["index"]: row for row in report(world.ctx)}
    since = iso(world.job(alone).started_at)
    assert [rows[index]["state"] for index in (held[alone], held[shares], sick, hidden, drained)] == [
        "leased", "shared", "unhealthy", "external", "drained",
    ]  # fmt: skip
    row = rows[held[alone]]
    assert row["jobs"] == [
        {"id": alone, "name": "big", "user": "alice", "gpu_mem_mb": None, "peak_gpu_mem_mb": None, "since": since}
    ]
    assert (row["job"], row["reason"], row["processes"], row["memory_mb"]) == (alone, None, [], 24 * 1024)
    assert rows[sick]["reason"] == {"code": "GpuUnhealthy", "text": f"gpu {sick}: Xid 79"}
    assert rows[hidden]["reason"]["text"] == f"700 MiB of gpu {hidden} are in use by a process that cannot be seen"
    assert rows[drained]["reason"]["text"] == f"gpu {drained} is drained by root: a new fan"
    assert (rows[drained]["job"], rows[drained]["jobs"], rows[hidden]["used_mb"]) == (None, [], 700)
    undrain(world.ctx, drained, world.admin)
    assert {row["index"]: row["state"] for row in report(world.ctx)}[drained] == "free"


def test_only_an_administrator_drains_and_only_a_gpu_that_is_there(world: Any) -> None:
    for verb in (drain, undrain):
        with pytest.raises(Forbidden):
            verb(world.ctx, 0, world.user)
        with pytest.raises(NotFound, match="this machine has no gpu 4"):
            verb(world.ctx, 4, world.admin)


def test_health_says_what_is_there_and_what_is_missing(world: Any) -> None:
    assert health.healthz(world.ctx) == {"status": "ok", "node": "box", "at": iso(world.clock.now())}
    found = health.readyz(world.ctx, world.queries.agent)
    disk = found["checks"].pop("disk")
    assert disk["ok"]
    assert disk["detail"].endswith("MiB are free")
    assert found["checks"] == {
        "database": {"ok": True, "detail": "answers"},
        "redis": {"ok": True, "detail": "answers"},
        "agent": {"ok": False, "detail": "no agent runs on this home; start one with `gpuq up`"},
    }
    assert found["ready"] is False
    world.agent()
    found = health.readyz(world.ctx, world.queries.agent)
    assert (found["ready"], found["checks"]["agent"]) == (True, {"ok": True, "detail": "runs"})
    world.ctx.maintenance_runs.note_start("reap", 5.0)
    assert health.maintenance(world.ctx) == [
        {"task": "reap", "last_start": iso(5.0), "last_ok": None, "last_error": None, "error": None}
    ]


def test_counts_cover_every_state_and_add_up(make_world: Any) -> None:
    world = make_world("sim:2")
    ends, runs = world.submit("a", max_retries=0), world.submit("a")
    agent = started(world, ends, runs)
    world.launcher.end(ends, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    world.submit("a", hold=True)
    world.submit("a", gpus=2, group="g")
    counts = dict.fromkeys(map(str, JobState), 0)
    assert health.stats(world.ctx) == {
        "jobs": {**counts, "failed": 1, "running": 1, "held": 1, "queued": 1},
        "running": 1, "waiting": 2, "finished": 1, "dead_letters": 1, "gpus": 2, "paused": None, "node": "box",
    }  # fmt: skip
    groups.limit_group(world.ctx, "h", 3, world.admin)
    assert group_report.report(world.ctx) == [
        {"group": "g", "running": 0, "waiting": 1, "limit": None, "limited_by": None},
        {"group": "h", "running": 0, "waiting": 0, "limit": 3, "limited_by": "root"},
    ]
    groups.limit_group(world.ctx, "h", 0, world.admin)
    assert [row["group"] for row in group_report.report(world.ctx)] == ["g"]
    with world.ctx.records.read() as tx:
        view = world.queries.queue(tx)
    assert (view.running, view.queued, view.waiting, view.total) == (1, 1, 2, 3)


def test_a_dead_letter_tells_the_whole_failure_and_can_be_dropped(make_world: Any) -> None:
    world = make_world("sim:1")
    job_id = world.submit("a", name="n", max_retries=0)
    agent = started(world, job_id)
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=3, error="ended with exit code 3")
    agent.run_once()
    letter = {
        "job_id": job_id, "name": "n", "user": "alice", "failed_at": iso(world.clock.now()),
        "outcome": "exit_nonzero", "error": "ended with exit code 3", "attempts": 1, "log_tail": None,
    }  # fmt: skip
    shown = dead_letters.show_letter(world.ctx, job_id, world.user)
    assert {**shown, "log_tail": shown["log_tail"] or None} == letter
    assert dead_letters.list_letters(world.ctx, world.user) == [shown]
    topics: list[str] = []
    world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
    dead_letters.remove(world.ctx, job_id, world.user)
    assert topics == ["events"]
    for again in (dead_letters.remove, dead_letters.retry):
        with pytest.raises(NotFound, match="is not in the dead-letter queue"):
            again(world.ctx, job_id, world.user)
    with pytest.raises(NotFound):
        dead_letters.show_letter(world.ctx, job_id, world.user)


def test_the_line_is_cut_into_pages_without_a_gap_and_without_a_repetition(make_world: Any) -> None:
    world = make_world("sim:1")
    running = world.submit("a")
    started(world, running)
    queued = [world.submit("a") for _ in range(3)]
    held = [world.submit("a", hold=True) for _ in range(2)]
    whole = [running, *queued, *held]
    with world.ctx.records.read() as tx:

        def ids(**page: Any) -> list[int]:
            return [job.id for jobs in world.queries.queue_pages(tx, **page) for job, _ in jobs]

        for user in (None, "alice"):
            assert world.queries.queue(tx, user).total == 6
            for size in range(1, 7):
                assert [job for at in range(0, 6, size) for job in ids(limit=size, offset=at, user=user)] == whole
            for place, job in enumerate(whole, start=1):
                assert ids(limit=2, after_id=job, user=user) == whole[place : place + 2]
        [everything] = world.queries.queue_pages(tx, limit=None)
        assert [status.position for _, status in everything] == [None, 1, 2, 3, None, None]
        assert world.queries.queue(tx, "bob").total == 0


def test_why_a_job_waits_in_each_state(make_world: Any) -> None:
    world = make_world("sim:1")
    queries = world.queries
    waits = world.submit("a")
    assert queries.why(waits)["reason"]["code"] == "NoAgent"
    runs = waits
    started(world, runs)
    waits = world.submit("a", time_limit_s=60)
    held = world.submit("a", hold=True)
    later = world.submit("a", begin=world.clock.now() + 90)
    behind = world.submit("a", after=[waits, runs], keep_waiting=True)
    world.clock.forward(40)

    def why(job_id: int) -> tuple[str, str]:
        reason = queries.why(job_id)["reason"]
        return reason["code"], reason["text"]

    assert why(held) == ("HeldByUser", f"held by alice; `gpuq release {held}` puts it back in line")
    assert why(later)[0] == "BeginTime"
    assert why(later)[1].startswith("begins in 50s, at ")
    assert why(behind) == ("Dependency", f"waits for job {runs} (running), job {waits} (queued)")
    assert queries.why(runs)["reason"] is None
    found = queries.why(waits)
    assert (found["state"], found["position"], found["outcome"], found["error"]) == ("queued", 1, None, None)
    assert found["estimated_start"] is not None
    assert found["reason"] == found["reasons"][0]
    wide = world.submit("a")
    assert [reason["code"] for reason in queries.why(wide)["reasons"]] == ["Priority", "Resources"]
    assert why(wide)[0] == "Priority"
    pause(world.ctx, world.admin, "a move")
    assert why(waits) == ("QueuePaused", "the queue is paused by root: a move")
    assert queries.why(waits)["estimated_start"] is None
    resume(world.ctx, world.admin)
    cancel(world.ctx, waits, world.user)
    assert why(behind) == (
        "DependencyNeverSatisfied",
        f"job {waits} cancelled; it runs only after `gpuq retry {waits}` succeeds",
    )
    assert queries.why(waits)["outcome"] == "cancelled"


def test_a_supposed_job_starts_now_where_nobody_waits_and_a_gpu_is_free(make_world: Any) -> None:
    world = make_world("sim:1")
    world.agent().run_once()
    queries = world.queries
    spec = JobSpec.parse({"command": ["a"], "cwd": "/"})
    assert check(world.ctx, spec, world.user, queries.estimate) == iso(world.clock.now())
    world.driver_says({0: {"problem": "Xid 79"}})
    world.clock.forward(60)
    assert check(world.ctx, spec, world.user, queries.estimate) is None


def test_a_supposed_job_starts_behind_those_that_stand_before_it(make_world: Any) -> None:
    world = make_world("sim:1")
    queries = world.queries

    def supposed(**fields: Any) -> str | None:
        spec = JobSpec.parse({"command": ["a"], "cwd": "/", **fields})
        return check(world.ctx, spec, world.user, queries.estimate)

    assert supposed() is None
    runs = world.submit("a", time_limit_s=600)
    started(world, runs)
    now = world.clock.now()
    world.submit("a", time_limit_s=1200)
    assert supposed(begin=now + 5) == iso(now + 5)
    first, second = supposed(priority="high"), supposed(time_limit_s=2400)
    assert first is not None
    assert second is not None
    assert iso(now) < first < second


@pytest.mark.parametrize(
    ("written", "progress"),
    [
        ({"progress": 0.25}, 0.25), ({"progress": 0}, 0.0), ({"progress": 1}, 1.0), ({"progress": 1.01}, None),
        ({"progress": -0.1}, None), ({"progress": True}, None), ({"progress": "x"}, None), ({}, None), (None, None),
    ],
)  # fmt: skip
def test_progress_is_what_the_program_says_between_nothing_and_all(
    world: Any, monkeypatch: pytest.MonkeyPatch, written: Any, progress: float | None
) -> None:
    runs = world.submit("a")
    started(world, runs)
    monkeypatch.setattr(world.launcher, "progress", lambda *_: written)
    [(_, status)] = world.queries.describe([world.job(runs)])
    assert (status.progress, status.reason, status.position) == (progress, None, None)


def test_a_process_belongs_to_its_session_and_to_all_above_it_and_a_dead_one_to_nobody() -> None:
    child = subprocess.Popen(["sleep", "100"])
    me = os.getpid()
    try:
        assert belongs_to(child.pid, {me}, ())
        assert belongs_to(child.pid, {child.pid}, ())
        assert belongs_to(child.pid, {os.getppid()}, ())
        assert belongs_to(child.pid, (), {os.getsid(0)})
        assert not belongs_to(child.pid, (), ())
    finally:
        child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    # A zombie is in /proc still.
    assert Path(f"/proc/{child.pid}").exists()
    assert (exists(child.pid), belongs_to(child.pid, {me}, ())) == (False, False)
    child.wait()
    assert not exists(child.pid)


def test_a_job_that_waits_for_many_names_five_and_counts_the_others(world: Any) -> None:
    jobs = [world.submit("a", hold=True) for _ in range(7)]

    def why(*others: int) -> str:
        return str(world.queries.why(world.submit("a", after_any=list(others)))["reason"]["text"])

    named = ", ".join(f"job {job_id} (held)" for job_id in jobs[:5])
    assert why(*jobs[:5]) == f"waits for {named}"
    assert why(*jobs[:6]) == f"waits for {named} and 1 more"
    assert why(*jobs) == f"waits for {named} and 2 more"

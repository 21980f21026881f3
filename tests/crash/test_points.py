"""SIGKILL at every named point, one test a point; what the jobs wrote down themselves is believed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import gpuq
from gpuq.client.calls import Calls
from gpuq.domain import failpoints
from gpuq.errors import GpuqError

SUBMISSION = ["submit.before_commit", "submit.committed", "submit.hinted"]
DIRECT = ["submit.claimed"]
STARTS = [
    "lease.taken",
    "claim.before_commit",
    "claim.committed",
    "launch.folder_made",
    "launch.lock_taken",
    "launch.before_send",
    "launch.sent",
    "start.heard",
    "start.committed",
]
ENDS = ["end.heard", "finish.before_commit", "finish.committed", "finish.released"]
SUPERVISOR = ["supervisor.before_spawn", "supervisor.spawned", "supervisor.started"]
REBUILD = ["rehydrate.begun", "rehydrate.rebuilt", "rehydrate.opened"]
ALONE = [
    "supervisor.main_ended",
    "supervisor.job_ended",
    "supervisor.end_recorded",
    "promote.committed",
    "cancel.committed",
    "preempt.committed",
    "retry.committed",
    "update.committed",
    "reap.proved",
    "mark.taken_on",
]
MARK = ["mark.named", "mark.drafted"]


def test_every_point_is_called_in_one_place_and_has_a_test() -> None:
    called: list[str] = []
    for path in sorted(Path(gpuq.__file__).parent.rglob("*.py")):
        called += re.findall(r"^ +failpoints\.point\((.*)\)$", path.read_text(), re.MULTILINE)
    # Each in one place, so that a test which arms it knows where it ends the process.
    assert sorted(called) == sorted(f'"{name}"' for name in failpoints.POINTS)
    assert sorted(SUBMISSION + DIRECT + STARTS + ENDS + SUPERVISOR + REBUILD + MARK + ALONE) == sorted(
        failpoints.POINTS
    )


@pytest.mark.parametrize("point", SUBMISSION)
def test_a_submission_repeated_after_the_daemon_died_is_queued_once(site: Any, point: str) -> None:
    before = {row["id"] for row in site.rows("select id from jobs")}
    site.arm(point)
    # The command line asks again, under the same request key and without the daemon.
    answered = site.try_submit(site.diary.script(), "--array", "0-3")
    site.until_dead_at(point)
    assert {row["id"] for row in site.rows("select id from jobs")} - before == set(answered)
    assert len(answered) == 4
    site.settle()
    assert {site.job(job_id)["state"] for job_id in answered} == {"completed"}


@pytest.mark.parametrize("point", SUBMISSION)
def test_a_submission_cut_off_is_there_whole_or_not_at_all(site: Any, point: str) -> None:
    before = {row["id"] for row in site.rows("select id from jobs")}
    site.box.kill_daemon()
    site.arm(point)
    answered = site.try_submit(site.diary.script(), "--array", "0-3")
    site.until_reached(point)
    new = [row["id"] for row in site.rows("select id from jobs") if row["id"] not in before]
    assert len(new) == (0 if point == "submit.before_commit" else 4)
    # The answer goes out as soon as the jobs are durable, and the hot queue hears of them behind it.
    assert answered == [] or (point == "submit.hinted" and answered == new), "nobody was left to answer"
    site.settle()
    assert {site.job(job_id)["state"] for job_id in new} <= {"completed"}


@pytest.mark.parametrize(
    "point", ["lease.taken", "submit.before_commit", "submit.committed", *DIRECT, "launch.folder_made", "launch.sent"]
)
def test_a_job_that_was_to_start_with_its_submission_runs_once_wherever_the_daemon_dies(site: Any, point: str) -> None:
    before = {row["id"] for row in site.rows("select id from jobs")}
    site.arm(point)
    body = {"command": site.diary.script("sleep 0.05", 3), "cwd": "/", "max_retries": 0}
    with Calls(server=f"unix://{site.box.home}/gpuq.sock") as client:
        ask = partial(client.post_jobs, body, request_key=f"once {point}")
        with contextlib.suppress(GpuqError):
            ask()
        site.until_dead_at(point)
        site.revive()
        job_id = ask()["id"]
    site.diary.answered.append(job_id)
    site.settle()
    assert {row["id"] for row in site.rows("select id from jobs")} - before == {job_id}
    assert (site.job(job_id)["exit_code"], len(site.diary.lines("start", job_id))) == (3, 1)


def some_jobs(site: Any) -> dict[int, int]:
    """Job id → the exit code that it will have. Submissions that nobody answers are left out. None starts with its
    submission: they have keys, and might be there already."""
    jobs: dict[int, int] = {}
    for gpus, code in ((1, 0), (2, 3), (4, 0), (0, 5)):
        options = ("-g", str(gpus), "--retries", "0", "--key", uuid4().hex)
        for job_id in site.try_submit(site.diary.script("sleep 0.05", code), *options):
            jobs[job_id] = code
    return jobs


@pytest.mark.parametrize("point", STARTS + ENDS)
def test_a_daemon_killed_on_a_jobs_way_loses_nothing_and_runs_nothing_twice(site: Any, point: str) -> None:
    site.arm(point, "kill@2")
    jobs = some_jobs(site)
    site.until_dead_at(point)
    site.settle()
    assert {job_id: site.job(job_id)["exit_code"] for job_id in jobs} == jobs


@pytest.mark.parametrize("point", SUPERVISOR)
def test_a_killed_supervisor_takes_its_job_along_and_the_job_runs_again(site: Any, point: str) -> None:
    site.arm(point)
    job_id = site.submit(site.diary.script("sleep 0.2"), "--retries", "0")
    site.until_reached(point)
    site.settle(unknown=[job_id])
    assert site.outcomes(job_id) == ["lost", "succeeded"]
    assert site.job(job_id)["retries_used"] == 0


@pytest.mark.parametrize("without_daemon", [False, True])
@pytest.mark.parametrize("code", [0, 7])
@pytest.mark.parametrize("point", ["supervisor.main_ended", "supervisor.job_ended"])
def test_a_supervisor_killed_before_the_exit_record_loses_no_exit_code(
    site: Any, point: str, code: int, without_daemon: bool
) -> None:
    site.arm(point)
    stray = "(setsid sleep 600 &)" if point == "supervisor.main_ended" else ":"
    job_id = site.submit(
        site.diary.script(f"{stray}; while [ ! -e gate ]; do sleep 0.02; done", code), "--retries", "0"
    )
    site.until_started(job_id)
    site.until_state(job_id, "running")
    if without_daemon:
        site.box.kill_daemon()
    site.diary.open_gate()
    site.until_reached(point)
    site.settle()
    row = site.job(job_id)
    assert (site.outcomes(job_id), row["exit_code"]) == (["exit_nonzero" if code else "succeeded"], code)


def test_a_supervisor_killed_after_the_exit_record_changes_nothing(site: Any) -> None:
    site.arm("supervisor.end_recorded")
    job_id = site.submit(site.diary.script(code=7), "--retries", "0")
    site.until_reached("supervisor.end_recorded")
    site.settle()
    assert (site.outcomes(job_id), site.job(job_id)["exit_code"]) == (["exit_nonzero"], 7)


@pytest.mark.parametrize("point", REBUILD)
def test_a_rebuild_cut_off_is_begun_anew_and_keeps_the_order(site: Any, point: str) -> None:
    running = site.submit(site.diary.gated(), "-g", "4")
    site.until_started(running)
    waiting = [site.submit(site.diary.script(), "-g", "4", "-p", priority) for priority in ("low", "high", "normal")]
    site.box.kill_daemon()
    site.arm(point)
    done = site.box.gpuq("up", "-d", code=1)
    assert "the daemon ended at once" in done.stderr
    assert site.reached(point)
    site.diary.open_gate()
    site.settle()
    starts = {job_id: site.diary.lines("start", job_id)[0][4] for job_id in waiting}
    assert sorted(waiting, key=starts.__getitem__) == [waiting[1], waiting[2], waiting[0]]


@pytest.mark.parametrize("point", MARK)
def test_a_first_start_cut_off_is_never_taken_for_a_database_of_the_past(
    make_site: Callable[..., Any], point: str
) -> None:
    site = make_site()
    site.arm(point)
    assert "the daemon ended at once" in site.box.gpuq("up", "-d", code=1).stderr
    assert site.reached(point)
    site.box.up()
    site.submit(site.diary.script())
    site.settle()


def test_a_database_of_the_past_that_was_taken_on_in_half_is_still_refused(make_site: Callable[..., Any]) -> None:
    site = make_site()
    box = site.box
    box.gpuq("db", "upgrade")
    database, copy = box.home / "gpuq.db", box.home / "copy.db"
    copy.write_bytes(database.read_bytes())
    lost = box.submit("--", "true")
    database.write_bytes(copy.read_bytes())
    box.gpuq("up", "-d", code=4)
    site.arm("mark.taken_on")
    box.gpuq("db", "adopt", "--yes", code=-9)
    assert site.reached("mark.taken_on")
    assert "another installation" in box.gpuq("up", "-d", code=4).stderr
    box.gpuq("db", "adopt", "--yes")
    box.up()
    assert site.submit(site.diary.script()) > lost
    site.settle()


def test_a_retry_whose_time_had_come_is_not_forgotten(site: Any) -> None:
    site.arm("promote.committed")
    job_id = site.submit(site.diary.script(code=9), "--retries", "1")
    site.until_dead_at("promote.committed")
    site.settle()
    assert site.outcomes(job_id) == ["exit_nonzero", "exit_nonzero"]


def test_a_cancel_that_was_only_written_down_is_carried_out(site: Any) -> None:
    job_id = site.submit(site.diary.gated(), "--kill-grace", "0.5s")
    site.until_started(job_id)
    site.arm("cancel.committed")
    assert not site.cancel(job_id)
    site.until_dead_at("cancel.committed")
    site.settle()
    assert (site.job(job_id)["state"], site.outcomes(job_id)) == ("cancelled", ["cancelled"])


def test_a_retry_by_hand_that_was_only_written_down_is_carried_out(site: Any) -> None:
    job_id = site.submit(site.diary.script(code=9), "--retries", "0")
    site.until_state(job_id, "failed")
    site.arm("retry.committed")
    site.box.gpuq("retry", str(job_id), code=None)
    site.until_dead_at("retry.committed")
    site.settle()
    assert site.outcomes(job_id) == ["exit_nonzero", "exit_nonzero"]


def test_a_new_time_limit_that_was_only_written_down_reaches_the_supervisor(site: Any) -> None:
    job_id = site.submit(site.diary.gated(), "-t", "1h", "--kill-grace", "0.5s", "--retries", "0")
    site.until_started(job_id)
    site.until_state(job_id, "running")
    site.arm("update.committed")
    # Not by the command line, which would ask again without the daemon.
    with Calls(server=f"unix://{site.box.home}/gpuq.sock") as client, contextlib.suppress(GpuqError):
        client.update(job_id, time_limit_s=0.5)
    site.until_dead_at("update.committed")
    assert (site.job(job_id)["state"], site.job(job_id)["time_limit_s"]) == ("running", 0.5)
    # Nothing has told the supervisor, and nobody opens the gate.
    site.settle()
    assert site.outcomes(job_id) == ["time_limit"]
    assert "time limit of 0.5 s" in site.job(job_id)["error"]


def test_a_reaper_killed_in_its_work_is_followed_by_the_next(site: Any) -> None:
    job_id = site.submit(site.diary.gated())
    site.until_started(job_id)
    site.box.kill_daemon()
    reboot(site)
    site.arm("reap.proved")
    # Maintenance alone: no agent is there to find the dead attempt first.
    with pytest.raises(AssertionError, match="gpuq maintain: -9"):
        site.box.gpuq("maintain")
    assert site.reached("reap.proved")
    site.diary.open_gate()
    site.settle(unknown=[job_id])
    assert site.outcomes(job_id) == ["lost", "succeeded"]


def reboot(site: Any) -> None:
    """Nothing of the jobs is left, and the machine has another boot id."""
    import signal

    import psutil

    for pid in site.leftovers():
        # The job of a killed supervisor goes at once, all of it.
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor = psutil.Process(pid).parent()
            if supervisor is not None and supervisor.pid != 1:
                supervisor.send_signal(signal.SIGKILL)
    site.box.until(lambda: not site.leftovers(), "every job is gone")
    (site.faults / failpoints.BOOT_ID).write_text("after-the-reboot")


def test_a_preemption_that_was_only_written_down_is_asked_for_again(
    make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world("sim:1")
    modest = world.submit("train", preemptible=True)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(modest)
    agent.run_once()
    world.clock.forward(4000)
    urgent = world.submit("train", priority="critical")

    def die(name: str) -> None:
        if name == "preempt.committed":
            raise failpoints.Injected(name)

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "point", die)
        agent.wake()
        with pytest.raises(failpoints.Injected):
            agent.run_once()
    assert (world.state(modest), world.launcher.stops) == ("stopping", [])
    world.agents.pop().stop()
    world.ctx = world.open()
    agent = world.agent()
    assert [stop["reason"] for stop in world.launcher.stops] == ["preempt"]
    from gpuq.domain.outcome import Outcome

    world.launcher.end(modest, Outcome.PREEMPTED)
    agent.run_once()
    agent.wake()
    agent.run_once()
    assert (world.state(modest), world.state(urgent)) == ("queued", "starting")

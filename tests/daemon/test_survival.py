"""Whatever dies, nothing is lost and nothing runs twice. The jobs keep their own diary; gpuq's view is not asked."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

# A job that writes when it began and ended and on which GPU, waits for a file, and ends with a code.
DIARY = """
echo "start $GPUQ_JOB_ID $GPUQ_ATTEMPT $GPUQ_GPUS $(date +%s%N)" >> {diary}
while [ ! -e {gate} ]; do sleep 0.02; done
echo "end $GPUQ_JOB_ID $GPUQ_ATTEMPT $GPUQ_GPUS $(date +%s%N)" >> {diary}
exit {code}
"""


def diary_job(box: Any, tmp_path: Path, *options: str, code: int = 0) -> int:
    script = DIARY.format(diary=tmp_path / "diary", gate=tmp_path / "gate", code=code)
    return box.submit(*options, "--", "bash", "-c", script)


def lines(tmp_path: Path) -> list[list[str]]:
    diary = tmp_path / "diary"
    return [line.split() for line in diary.read_text().splitlines()] if diary.exists() else []


def started(box: Any, tmp_path: Path, count: int = 1) -> None:
    box.until(lambda: sum(line[0] == "start" for line in lines(tmp_path)) >= count, f"{count} jobs have begun")


def test_a_job_outlives_its_killed_daemon_and_its_true_exit_code_is_recorded(box: Any, tmp_path: Path) -> None:
    job_id = diary_job(box, tmp_path, "--retries", "0", code=42)
    started(box, tmp_path)
    box.kill_daemon()
    (tmp_path / "gate").touch()
    box.until(lambda: any(line[0] == "end" for line in lines(tmp_path)), "the job ends by itself")
    box.up()
    job = box.until_state(job_id, "failed", "completed")
    assert (job["state"], job["exit_code"], job["attempt"]) == ("failed", 42, 1)
    assert [line[0] for line in lines(tmp_path)] == ["start", "end"]


def test_a_running_job_is_adopted_by_the_next_daemon(box: Any, tmp_path: Path) -> None:
    job_id = diary_job(box, tmp_path)
    started(box, tmp_path)
    pid = box.show(job_id)["pid"]
    box.kill_daemon()
    box.up()
    job = box.show(job_id)
    assert (job["state"], job["pid"]) == ("running", pid)
    (tmp_path / "gate").touch()
    assert box.until_state(job_id, "completed")["attempt"] == 1


def test_a_stopped_daemon_leaves_jobs_running(box: Any, tmp_path: Path) -> None:
    job_id = diary_job(box, tmp_path)
    started(box, tmp_path)
    pid = box.show(job_id)["pid"]
    box.down()
    assert psutil.pid_exists(pid)
    (tmp_path / "gate").touch()
    box.up()
    assert box.until_state(job_id, "completed")["exit_code"] == 0


def test_two_jobs_for_the_same_gpus_never_overlap_through_kills(make_box: Callable[..., Any], tmp_path: Path) -> None:
    box = make_box(GPUQ_GPUS="sim:2")
    box.up()
    script = DIARY.replace("while [ ! -e {gate} ]; do sleep 0.02; done", "sleep 0.6")
    script = script.format(diary=tmp_path / "diary", gate="", code=0)
    jobs = [box.submit("-g", "2" if n % 2 else "1", "--", "bash", "-c", script) for n in range(8)]
    for _ in range(3):
        # A slow machine may have run them all by now.
        started(box, tmp_path, min(len(jobs), len(lines(tmp_path)) // 2 + 1))
        box.kill_daemon()
        box.up()
    for job_id in jobs:
        assert box.until_state(job_id, "completed", "failed")["state"] == "completed"
    spans: dict[str, list[tuple[int, int]]] = {"0": [], "1": []}
    runs: dict[tuple[str, str], int] = {}
    for kind, job, attempt, gpus, at in lines(tmp_path):
        if kind == "start":
            runs[job, attempt] = int(at)
        else:
            for gpu in gpus.split(","):
                spans[gpu].append((runs[job, attempt], int(at)))
    assert len(runs) == 8, "every job ran exactly once"
    for found in spans.values():
        ordered = sorted(found)
        for (_, end), (begin, _) in itertools.pairwise(ordered):
            assert begin > end, "two jobs on one GPU at a time"


def test_a_killed_supervisor_takes_the_job_with_it_and_the_job_is_retried_as_lost(box: Any, tmp_path: Path) -> None:
    job_id = diary_job(box, tmp_path, "--retries", "0")
    started(box, tmp_path)
    job = psutil.Process(box.show(job_id)["pid"])
    supervisor = job.parent()
    assert supervisor is not None
    supervisor.send_signal(signal.SIGKILL)
    job.wait(10)
    started(box, tmp_path, 2)
    (tmp_path / "gate").touch()
    done = box.until_state(job_id, "completed")
    assert [attempt["outcome"] for attempt in done["attempts"]] == ["lost", "succeeded"]
    assert done["retries_used"] == 0


def test_a_killed_redis_comes_back_by_itself_and_the_queue_with_it(box: Any, tmp_path: Path) -> None:
    running = [diary_job(box, tmp_path, "-g", "4")]
    started(box, tmp_path)
    waiting = [box.submit("-g", "4", "-p", p, "--", "true") for p in ("low", "normal", "high")]
    before = [job["id"] for job in box.json("status", "-s", "queued")]
    [redis] = [child for child in box.daemon().children() if "redis-server" in " ".join(child.cmdline())]
    redis.send_signal(signal.SIGKILL)
    late = box.submit("-g", "4", "-p", "critical", "--", "true")
    assert [job["id"] for job in box.json("status", "-s", "queued")] == [late, *before]
    (tmp_path / "gate").touch()
    finished = [box.until_state(job_id, "completed") for job_id in [*running, late, *reversed(waiting)]]
    starts = [job["started_at"] for job in finished]
    assert starts == sorted(starts), "order was kept"


def test_a_flushed_redis_is_rebuilt_in_mid_run(box: Any, tmp_path: Path) -> None:
    import redis

    from gpuq.stores.redis import private_url

    job_id = diary_job(box, tmp_path, "-g", "4")
    started(box, tmp_path)
    waiting = box.submit("-g", "1", "--", "true")
    client = redis.Redis.from_url(private_url(box.home))
    client.flushall()
    client.close()
    (tmp_path / "gate").touch()
    assert box.until_state(job_id, "completed")["attempt"] == 1
    box.until_state(waiting, "completed")


def test_cancel_takes_every_descendant_with_it(box: Any, tmp_path: Path) -> None:
    script = f"setsid bash -c 'echo $$ > {tmp_path}/stray; trap \"\" TERM; sleep 1000' & trap '' TERM; sleep 1000"
    job_id = box.submit("--kill-grace", "0.3s", "--", "bash", "-c", script)
    stray_file = tmp_path / "stray"
    box.until(lambda: stray_file.exists() and stray_file.read_text().strip(), "the stray runs")
    stray = int(stray_file.read_text())
    box.gpuq("cancel", str(job_id))
    job = box.until_state(job_id, "cancelled")
    assert job["outcome"] == "cancelled"
    assert not psutil.pid_exists(stray)
    assert {gpu["state"] for gpu in box.json("gpus")} == {"free"}


def test_cancel_without_a_daemon_reaches_the_supervisor(box: Any, tmp_path: Path) -> None:
    job_id = diary_job(box, tmp_path)
    started(box, tmp_path)
    pid = box.show(job_id)["pid"]
    box.down()
    box.gpuq("cancel", str(job_id))
    box.until(lambda: not psutil.pid_exists(pid), "the job is gone")
    box.up()
    assert box.until_state(job_id, "cancelled")["attempt"] == 1


def test_a_submission_without_a_daemon_waits_for_the_next_one(make_box: Callable[..., Any]) -> None:
    box = make_box()
    done = box.gpuq("submit", "--", "true")
    assert "gpuq up" in done.stderr
    [job] = box.json("status")
    assert job["reason"]["code"] == "NoAgent"
    box.up()
    box.until_state(job["id"], "completed")


def test_a_second_daemon_on_the_same_home_is_refused(box: Any) -> None:
    done = box.gpuq("up", code=4)
    assert "already running" in done.stderr
    assert "Traceback" not in done.stderr


def test_jobs_end_with_the_daemon_when_asked(box: Any, tmp_path: Path) -> None:
    job_id = diary_job(box, tmp_path)
    started(box, tmp_path)
    pid = box.show(job_id)["pid"]
    box.down("--stop-jobs")
    box.until(lambda: not psutil.pid_exists(pid), "the job is gone")


def test_without_a_daemon_nobody_says_that_jobs_were_stopped(box: Any, tmp_path: Path) -> None:
    job_id = diary_job(box, tmp_path)
    started(box, tmp_path)
    pid = box.show(job_id)["pid"]
    box.kill_daemon()
    assert "1 still run" in box.gpuq("down", "--stop-jobs", code=5).stderr
    assert psutil.pid_exists(pid)
    box.up()
    box.gpuq("down", "--stop-jobs")
    assert not psutil.pid_exists(pid)
    assert "no daemon" in box.gpuq("down", "--stop-jobs").stderr


def test_the_time_limit_is_kept_while_no_daemon_runs(box: Any, tmp_path: Path) -> None:
    job_id = diary_job(box, tmp_path, "--time", "2s", "--retries", "0", "--kill-grace", "1s")
    started(box, tmp_path)
    pid = box.show(job_id)["pid"]
    box.kill_daemon()
    box.until(lambda: not psutil.pid_exists(pid), "the supervisor ended it")
    box.up()
    assert box.until_state(job_id, "failed")["outcome"] == "time_limit"


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_that_gpuq_did_not_send_is_recorded_as_it_was(box: Any, signum: signal.Signals) -> None:
    job_id = box.submit("--retries", "0", "--", "bash", "-c", f"kill -{signum.value} $$")
    job = box.until_state(job_id, "failed")
    assert (job["outcome"], job["signal"], job["exit_code"]) == ("signal", int(signum), None)


def test_the_dead_letter_queue_holds_what_failed_for_good(box: Any) -> None:
    job_id = box.submit("--retries", "1", "--", "bash", "-c", "echo last words; exit 9")
    job = box.until_state(job_id, "failed")
    assert [attempt["exit_code"] for attempt in job["attempts"]] == [9, 9]
    [letter] = box.json("dlq", "list")
    assert (letter["job_id"], letter["attempts"], letter["outcome"]) == (job_id, 2, "exit_nonzero")
    assert "last words" in letter["log_tail"]


def test_the_story_is_told_by_sql(box: Any) -> None:
    import sqlite3

    job_id = box.submit("-n", "story", "--", "true")
    box.until_state(job_id, "completed")
    base = sqlite3.connect(box.home / "gpuq.db")
    row = base.execute("select name, state, outcome, exit_code, attempts from job_history").fetchone()
    base.close()
    assert row == ("story", "completed", "succeeded", 0, 1)


def test_nothing_of_the_daemon_is_left_in_a_job(box: Any, tmp_path: Path) -> None:
    job_id = box.submit("--", "bash", "-c", "ls -l /proc/self/fd; ulimit -a > /dev/null")
    box.until_state(job_id, "completed")
    text = box.gpuq("logs", str(job_id)).stdout
    assert "gpuq.db" not in text
    assert "socket:" not in text
    assert os.fspath(box.home / "daemon.lock") not in text


def test_waiting_for_an_array_by_its_id_is_waiting_for_all_of_it(box: Any, tmp_path: Path) -> None:
    script = f"if [ $GPUQ_ARRAY_INDEX = 2 ]; then while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; fi"
    made = box.gpuq("submit", "--array", "0-2", "--json", "--", "bash", "-c", script).stdout
    ids = [str(job["id"]) for job in json.loads(made)]
    then = box.submit("--after", ids[0], "--keep-waiting", "--", "true")
    box.until_state(int(ids[0]), "completed")
    box.until_state(int(ids[1]), "completed")
    assert box.show(then)["state"] == "blocked"
    assert box.show(then)["after"] == [int(job_id) for job_id in ids]
    box.gpuq("cancel", ids[0] + "_2")
    box.until_state(int(ids[2]), "cancelled")
    assert box.show(then)["reason"]["code"] == "DependencyNeverSatisfied"


def test_a_directory_that_is_gone_and_bytes_that_are_no_text_are_told_plainly(box: Any, tmp_path: Path) -> None:
    import subprocess

    from box import GPUQ

    gone = tmp_path / "gone"
    gone.mkdir()
    line = f"cd {gone} && rmdir {gone} && {GPUQ} submit -g 0 -- true"
    done = subprocess.run(["bash", "-c", line], env=box.env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "does not exist any more" in done.stderr
    env = {os.fsencode(key): os.fsencode(value) for key, value in box.env.items()} | {b"BIN": b"\xff"}
    done = subprocess.run(
        [GPUQ, "submit", "-g", "0", "--", "true"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "BIN" in done.stderr


def test_a_job_that_ended_since_the_backup_is_not_run_again_and_leaves_its_output_alone(
    box: Any, tmp_path: Path
) -> None:
    job_id = diary_job(box, tmp_path, "--retries", "0", code=7)
    started(box, tmp_path)
    box.gpuq("db", "backup", str(tmp_path / "copy.db"))
    (tmp_path / "gate").touch()
    box.until_state(job_id, "failed")
    left = box.home / "jobs" / str(job_id)
    box.until(
        lambda: sorted(str(path.relative_to(left)) for path in left.rglob("*")) == ["1", "1/output.log"],
        "the output is all that is left",
    )
    box.down()
    box.gpuq("db", "restore", str(tmp_path / "copy.db"), "--yes")
    box.up()
    job = box.until_state(job_id, "failed", "completed")
    assert (job["state"], job["exit_code"], job["attempt"]) == ("failed", 7, 1)
    assert [line[0] for line in lines(tmp_path)] == ["start", "end"]

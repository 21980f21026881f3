"""Jobs that misbehave, and machines on which time or process ids are not what they were."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from box import GPUQ

from gpuq.domain import failpoints


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with gpuq."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_what_a_job_leaves_running_is_ended_before_its_gpus_are_given_again(site: Any) -> None:
    # Twice forked, in a session of its own, deaf to SIGTERM: it keeps the locks of the diary as long as it lives.
    stray = "(setsid bash -c 'trap \"\" TERM; (sleep 600 & echo $! > stray; wait)' &)"
    stray += "; while [ ! -s stray ]; do sleep 0.02; done"
    first = site.submit(site.diary.script(stray), "-g", "4", "--kill-grace", "0.3s")
    second = site.submit(site.diary.script(), "-g", "4")
    site.settle()
    assert [site.job(job_id)["exit_code"] for job_id in (first, second)] == [0, 0]
    assert not psutil.pid_exists(int((site.diary.folder / "stray").read_text()))


def test_a_job_deaf_to_sigterm_is_gone_within_its_grace(site: Any) -> None:
    job_id = site.submit(site.diary.script("trap '' TERM; sleep 600 & wait; sleep 600"), "--kill-grace", "0.5s")
    site.until_started(job_id)
    site.until_state(job_id, "running")
    assert site.cancel(job_id)
    asked = time.monotonic()
    site.until_state(job_id, "cancelled")
    assert time.monotonic() - asked < 0.5 + 5
    site.settle()


def test_a_flood_of_output_holds_nobody_up(site: Any) -> None:
    flood = site.submit(site.diary.script("head -c 100000000 /dev/zero | tr '\\0' '\\n'", 3), "--retries", "0")
    quiet = site.submit(site.diary.script())
    assert site.until_state(quiet, "completed")
    site.settle()
    assert site.job(flood)["exit_code"] == 3
    assert os.path.getsize(site.box.home / "jobs" / str(flood) / "1" / "output.log") == 100_000_000


def test_a_process_id_that_was_given_again_is_left_alone(site: Any, bystander: subprocess.Popen[bytes]) -> None:
    job_id = site.submit(site.diary.gated(), "--retries", "0")
    site.until_started(job_id)
    site.until_state(job_id, "running")
    site.box.kill_daemon()
    path = Path(site.box.home) / "jobs" / str(job_id) / "1.records" / "started.json"
    facts = json.loads(path.read_text())
    supervisor = psutil.Process(facts["supervisor_pid"])
    supervisor.send_signal(signal.SIGKILL)
    site.box.until(lambda: not site.leftovers(), "the job died with its supervisor")
    # The numbers of both live again, as somebody else.
    path.write_text(json.dumps({**facts, "supervisor_pid": bystander.pid, "pid": bystander.pid}))
    site.diary.open_gate()
    site.settle(unknown=[job_id])
    assert site.outcomes(job_id) == ["lost", "succeeded"]
    assert bystander.poll() is None


def test_after_a_reboot_every_job_is_lost_and_runs_again(site: Any) -> None:
    jobs = [site.submit(site.diary.gated(), "-g", "2", "--retries", "0") for _ in range(2)]
    for job_id in jobs:
        site.until_started(job_id)
        site.until_state(job_id, "running")
    site.box.kill_daemon()
    for pid in site.leftovers():
        # A job goes with its supervisor.
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).send_signal(signal.SIGKILL)
    supervisors = [
        row["supervisor_pid"] for row in site.rows("select supervisor_pid from attempts where outcome is null")
    ]
    site.box.until(lambda: not any(map(psutil.pid_exists, supervisors)), "the supervisors are gone")
    for job_id in jobs:
        # A power cut may keep the record from reaching the disk.
        (Path(site.box.home) / "jobs" / str(job_id) / "1.records" / "exit.json").unlink()
    (site.faults / failpoints.BOOT_ID).write_text("another boot")
    site.diary.open_gate()
    site.settle(unknown=jobs)
    assert [site.outcomes(job_id) for job_id in jobs] == [["lost", "succeeded"]] * 2
    assert {site.job(job_id)["retries_used"] for job_id in jobs} == {0}


@pytest.mark.parametrize("point", ["", "lease.taken", "submit.claimed", "claim.committed", "launch.before_send"])
def test_a_daemon_suspended_longer_than_its_leases_gives_no_gpu_twice(
    make_site: Callable[..., Any], point: str
) -> None:
    site = make_site(GPUQ_LEASE_TTL="1")
    site.box.up()
    held = site.submit(site.diary.gated(), "-g", "2")
    site.until_started(held)
    daemon = psutil.Process(site.daemon_pid())
    if point:
        site.arm(point, "stop")
    else:
        daemon.send_signal(signal.SIGSTOP)
    # Who wants to be told of the position in line gets no direct start, which claims with the submission.
    words = [] if point == "claim.committed" else ["--parsable"]
    waiting = subprocess.Popen(
        [GPUQ, "submit", *words, "-g", "2", "--", *site.diary.script()],
        env=site.box.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    site.box.until(lambda: daemon.status() == psutil.STATUS_STOPPED, "the daemon is suspended")
    slept = time.monotonic() + 1.5
    site.box.until(lambda: time.monotonic() > slept, "the leases are over")
    daemon.send_signal(signal.SIGCONT)
    found = re.search(r"\d+", waiting.communicate(timeout=60)[0])
    assert found is not None
    site.diary.answered.append(int(found[0]))
    both = [site.submit(site.diary.script("sleep 0.2"), "-g", "2") for _ in range(2)]
    for job_id in both:
        site.until_state(job_id, "completed")
    site.diary.open_gate()
    site.settle()
    assert site.outcomes(held) == ["succeeded"]


def test_a_second_daemon_for_the_same_node_is_refused(
    make_site: Callable[..., Any], redis_url: str, tmp_path: Path
) -> None:
    shared = {"GPUQ_REDIS_URL": redis_url, "GPUQ_DATABASE_URL": f"sqlite:///{tmp_path}/shared.db"}
    first, second = (make_site(**shared, GPUQ_NODE="shared", GPUQ_LEASE_TTL="1") for _ in range(2))
    first.database = second.database = tmp_path / "shared.db"
    second.diary = first.diary
    first.box.up()
    told = second.box.gpuq("up", "-d", code=4).stderr
    assert "another agent serves the node 'shared'" in told
    job_id = first.submit(first.diary.script())
    first.settle()
    assert first.job(job_id)["state"] == "completed"
    # The dead one's key goes by itself.
    first.box.kill_daemon()
    second.box.until(lambda: second.box.gpuq("up", "-d", code=None).returncode == 0, "the second one may start")
    second.submit(second.diary.script())
    second.settle()

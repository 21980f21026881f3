"""A job that writes all it can fills the disk of the home, and stops nobody else: on a small disk of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from box import GPUQ, Box

MIB = 2**20
DISK_MIB = 60
_NAMESPACES = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"]


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "mounting a small disk takes root"
    words = [*_NAMESPACES, "mount", "-t", "tmpfs", "none", "/mnt"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no mount in a namespace of its own: {tried.stderr.strip()}"


class SmallDisk(Box):
    """A home on a tmpfs that only the processes of its own namespaces see. The keeper is the first of these processes:
    it ends with the tests, however they end, and the kernel ends all others with it."""

    def __init__(self, home: Path, **settings: str) -> None:
        super().__init__(home, **settings)
        code = f"mount -t tmpfs -o size={DISK_MIB}m,mode=755 none {home} && echo mounted; exec cat > /dev/null"
        self._keeper = subprocess.Popen(
            [*_NAMESPACES, "sh", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "mounted\n"
        spaces = f"/proc/{self._keeper.pid}/ns"
        self._inside = ["nsenter", f"--mount={spaces}/mnt", f"--pid={spaces}/pid_for_children"]

    def gpuq(self, *words: str, code: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._inside, GPUQ, *words],
            env=self.env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )
        if code is not None:
            assert done.returncode == code, f"gpuq {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def path(self, name: str) -> Path:
        """A file of the home, as the daemon sees it."""
        return self._seen(f"{self.home}/{name}")

    def lives(self, pid: int) -> bool:
        return self._seen(f"/proc/{pid}").exists()

    def _seen(self, path: str) -> Path:
        return Path(f"/proc/{self._keeper.pid}/root{path}")

    @property
    def free_mib(self) -> float:
        found = os.statvfs(self.path("."))
        return found.f_bavail * found.f_frsize / MIB

    def checks(self) -> dict[str, Any]:
        found: dict[str, Any] = {line["check"]: line for line in self._doctor()}
        return found

    def _doctor(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.gpuq("doctor", "--json", code=None).stdout)
        return found

    def fill(self, name: str, leave_kib: int = 0) -> None:
        """Somebody else's file takes all that is left."""
        with self.path(name).open("ab") as file:
            try:
                while self.free_mib * 1024 > leave_kib:
                    os.write(file.fileno(), bytes(max(4096, min(MIB, int(self.free_mib * MIB) - leave_kib * 1024))))
            except OSError:
                pass

    def close(self) -> None:
        self.down("--stop-jobs")
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait(30)
        self._keeper.stdout.close()
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def small_disk() -> Iterator[Callable[..., SmallDisk]]:
    if (why_not := _why_not()) is not None:
        pytest.skip(why_not)
    made: list[SmallDisk] = []

    def make(**settings: str) -> SmallDisk:
        box = SmallDisk(Path(tempfile.mkdtemp(prefix="gpuq-")), **settings)
        made.append(box)
        box.up()
        return box

    yield make
    for box in made:
        box.close()


def test_a_job_that_fills_the_disk_stops_neither_submissions_nor_cancels(small_disk: Callable[..., SmallDisk]) -> None:
    box = small_disk()
    box.until(lambda: box.path("reserve").exists(), "room is kept")
    # It goes on after every write that fails.
    filler = box.submit("-g", "0", "--retries", "0", "--", "sh", "-c", "while :; do head -c 1000000 /dev/zero; done")
    box.until(lambda: box.free_mib < 1, "the disk is full")
    waiting = [box.submit("-g", "0", "--", "true") for _ in range(3)]
    box.until(lambda: box.checks()["daemon: disk"]["status"] == "fail", "doctor says so")
    assert f"job {filler} (root)" in box.checks()["daemon: agent"]["detail"]
    (reason,) = {(job["reason"]["code"], job["state"]) for job in box.json("status") if job["id"] in waiting}
    assert reason == ("LaunchTrouble", "queued")
    pid = box.show(filler)["pid"]
    box.gpuq("cancel", "--force", str(filler))
    box.until(lambda: not box.lives(pid), "its processes are gone")
    # Its supervisor holds the lock, and with it the truth, until the end can be written.
    box.path(f"jobs/{filler}/1/output.log").unlink()
    box.until_state(filler, "cancelled")
    for job in waiting:
        box.until_state(job, "completed")
    box.until(lambda: box.path("reserve").exists(), "room is kept again")
    assert box.checks()["daemon: disk"]["status"] == box.checks()["daemon: agent"]["status"] == "ok"


def test_a_running_job_is_stopped_although_nothing_can_be_written(small_disk: Callable[..., SmallDisk]) -> None:
    box = small_disk()
    running = box.submit("-g", "0", "--", "sleep", "1000")
    box.until_state(running, "running")
    pid = box.show(running)["pid"]
    # The reserve goes first, and then what it gave back; the log of the database is all that is left.
    stored = 0
    while stored < 100:
        box.fill("other")
        done = box.gpuq("submit", "-g", "0", "--hold", "--", "true", "y" * 60_000, code=None)
        if done.returncode != 0:
            break
        stored += 1
    else:
        pytest.fail("the disk never was so full that the database took nothing")
    assert done.returncode == 5, done.stderr
    assert "disk is full" in done.stderr
    assert stored > 5, "the database had no room of its own"
    told = box.gpuq("cancel", "--force", str(running))
    assert "stopping" in told.stdout
    box.until(lambda: not box.lives(pid), "its processes are gone")
    box.path("other").unlink()
    assert box.until_state(running, "cancelled")["attempt"] == 1
    assert box.json("show", str(running))["attempts"][0]["outcome"] == "cancelled"


def test_a_daemon_that_cannot_start_on_a_full_disk_says_so_and_what_to_do(small_disk: Callable[..., SmallDisk]) -> None:
    box = small_disk()
    box.gpuq("down")
    for fresh in (False, True):
        if fresh:
            for left in (*box.path(".").glob("gpuq.db*"), *box.path(".").glob("installation*")):
                left.unlink()
        for words in (("up", "-d"), ("up",)):
            box.fill("other")
            done = box.gpuq(*words, code=1)
            assert f"the disk of {box.home} is full, so the daemon cannot start: 0.0 MiB are free" in done.stderr
            assert "hint: make room, then `gpuq up` again" in done.stderr
            assert "GPUQ_DEBUG" not in done.stderr
    box.path("other").unlink()
    box.up()


def test_a_job_that_writes_more_than_it_may_fails_and_uses_its_retries(make_box: Callable[..., Box]) -> None:
    box = make_box(GPUQ_MAX_OUTPUT="2M")
    box.up()
    job = box.submit("-g", "0", "--retries", "1", "-n", "chatty", "--", "yes")
    assert box.gpuq("wait", str(job), code=None).returncode == 137
    found = box.show(job)
    assert (found["state"], found["outcome"]) == ("failed", "output_limit")
    assert found["error"] == "output exceeded 2 MiB (GPUQ_MAX_OUTPUT)"
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["output_limit"] * 2
    assert found["retries_used"] == 1
    (letter,) = box.json("dlq", "list")
    assert (letter["job_id"], letter["outcome"]) == (job, "output_limit")
    (failures,) = box.json("report", "failures")
    assert failures["output_limit"] == 2
    assert [row["outcome"] for row in box.json("sql", "select outcome from job_history")] == ["output_limit"]

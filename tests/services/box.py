"""A real daemon in a home of its own, driven through the command line as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpuq.supervise import cgroup, cgroup_folders

GPUQ = str(Path(sys.executable).parent / "gpuq")
PATIENCE_S = 60.0


class Box:
    """One home. Everything that it started is ended by its own process id when the test is over."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        # What steers the tests is no setting of gpuq, which would look for a slip of the pen.
        own = {name: value for name, value in os.environ.items() if name != "GPUQ_REQUIRE_SERVICES"}
        self.env = {**own, "GPUQ_HOME": str(home), "GPUQ_GPUS": "sim:4", "GPUQ_RETRY_BASE": "0.05", **settings}

    def gpuq(self, *words: str, code: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [GPUQ, *words], env=self.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options
        )
        if code is not None:
            assert done.returncode == code, f"gpuq {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.gpuq(*words, "--json").stdout)

    def up(self) -> None:
        self.gpuq("up", "-d")

    def down(self, *words: str) -> None:
        self.gpuq("down", *words, code=None)

    def submit(self, *words: str) -> int:
        return int(self.gpuq("submit", "--parsable", *words).stdout)

    def show(self, job_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.json("show", str(job_id))
        return found

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """There is no signal across processes for what is waited for here: asked again until it holds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = condition()
            if found:
                return found
            assert time.monotonic() < deadline, f"never happened: {what}"
            time.sleep(0.05)

    def until_state(self, job_id: int, *states: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            job = self.show(job_id)
            return job if job["state"] in states else None

        found: dict[str, Any] = self.until(reached, f"job {job_id} becomes {' or '.join(states)}")
        return found

    def daemon(self) -> psutil.Process:
        return psutil.Process(int((self.home / "daemon.lock").read_text()))

    def kill_daemon(self) -> None:
        """SIGKILL, and returns when it is gone."""
        process = self.daemon()
        assert str(self.home) in process.environ().get("GPUQ_HOME", ""), "not the daemon of this home"
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)

    def close(self) -> None:
        self.down("--stop-jobs")
        self.remove()

    def remove(self) -> None:
        """The home, and the folders for control groups that a killed fork server has left."""
        with contextlib.suppress(FileNotFoundError):
            folder = cgroup_folders.folder_name(str(self.home))
            # A supervisor that was killed has not removed its group, and no daemon comes any more that would.
            cgroup.end_left_over(folder)
            cgroup_folders.remove(cgroup_folders.found(folder))
        shutil.rmtree(self.home, ignore_errors=True)


def _boxes() -> Iterator[Callable[..., Box]]:
    boxes: list[Box] = []

    def make(**settings: str) -> Box:
        # Short, because a Unix socket's path is.
        box = Box(Path(tempfile.mkdtemp(prefix="gpuq-")), **settings)
        boxes.append(box)
        return box

    yield make
    for box in boxes:
        box.close()


@pytest.fixture
def make_box() -> Iterator[Callable[..., Box]]:
    yield from _boxes()


@pytest.fixture(scope="module")
def make_boxes() -> Iterator[Callable[..., Box]]:
    """Like `make_box`, for boxes that several tests of a module share."""
    yield from _boxes()


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Box:
    running = make_box()
    running.up()
    return running

"""Real supervisors and real processes, each test in its own folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.attempt_mark import MARK, mark_of
from gpuq.domain.job import Launched
from gpuq.domain.outcome import Result
from gpuq.ports.launcher import LaunchOrder
from gpuq.supervise import bundle, cgroup, cgroup_folders
from gpuq.supervise.launch import ForkServerLauncher

PATIENCE_S = 20.0


def readable(fd: int, seconds: float = PATIENCE_S) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


class Bell:
    """A FIFO that a job writes a line to, so that a test knows where the job is without guessing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        os.chmod(path, 0o666)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""

    def wait(self, seconds: float = PATIENCE_S) -> str:
        """The next line."""
        while b"\n" not in self._rest:
            assert readable(self._fd, seconds), f"nobody rang; so far {self._rest!r}"
            self._rest += os.read(self._fd, 4096)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        os.close(self._fd)


@dataclass
class Attempt:
    launcher: ForkServerLauncher
    order: LaunchOrder
    launched: Launched | None = None
    report_fd: int = -1

    def hear(self) -> None:
        assert readable(self.report_fd), "the supervisor says nothing"
        self.launched = self.launcher.report(self.report_fd)
        os.close(self.report_fd)

    @property
    def run_dir(self) -> str:
        return self.order.run_dir

    @property
    def records(self) -> str:
        return bundle.records_of(self.run_dir)

    @property
    def log(self) -> str:
        return Path(self.order.log_path).read_text()

    @property
    def running(self) -> Launched:
        assert self.launched is not None
        return self.launched

    def stop(self, reason: str = "cancel", grace_s: float = PATIENCE_S, signal: str | None = None) -> None:
        self.launcher.request_stop(self.run_dir, reason=reason, grace_s=grace_s, signal=signal)

    def wait(self, seconds: float = PATIENCE_S) -> None:
        """Until this attempt's supervision has ended."""
        fd = self.launcher.watch(self.launched) if self.launched is not None else None
        if fd is not None:
            assert readable(fd, seconds), "the supervisor is still there"
            os.close(fd)

    def result(self, seconds: float = PATIENCE_S) -> Result:
        self.wait(seconds)
        assert not self.launcher.alive(self.run_dir)
        result = self.launcher.outcome(self.run_dir, self.order.token)
        assert result is not None, "no exit record"
        return result

    def exit_record(self) -> dict[str, object]:
        record = bundle.read(self.records, bundle.EXIT)
        assert record is not None
        return record


@dataclass
class World:
    root: Path
    launcher: ForkServerLauncher
    attempts: list[Attempt] = field(default_factory=list)
    bells: list[Bell] = field(default_factory=list)

    def order(self, *argv: str, env: dict[str, str] | None = None, **spec: Any) -> LaunchOrder:
        number = len(self.attempts) + 1
        token = secrets.token_hex(16)
        run_dir = self.root / "jobs" / str(number) / "1"
        values: dict[str, Any] = {
            "schema": 1,
            "job_id": number,
            "attempt": 1,
            "token": token,
            "argv": list(argv),
            "env": {"PATH": "/usr/bin:/bin", **(env or {}), MARK: mark_of(token)},
            "cwd": str(self.root),
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "user": "",
            "time_limit_s": None,
            "kill_grace_s": PATIENCE_S,
            "signal": None,
            "umask": None,
        }
        return LaunchOrder(number, 1, token, str(run_dir), str(run_dir / bundle.LOG), {**values, **spec})

    def start(self, *argv: str, env: dict[str, str] | None = None, **spec: Any) -> Attempt:
        """Until the supervisor has reported."""
        return self.launch(self.order(*argv, env=env, **spec))

    def launch(self, order: LaunchOrder) -> Attempt:
        attempt = self.hand_over(order)
        attempt.hear()
        return attempt

    def hand_over(self, order: LaunchOrder) -> Attempt:
        """Does not wait for the report."""
        attempt = Attempt(self.launcher, order)
        self.attempts.append(attempt)
        attempt.report_fd = self.launcher.start(order)
        return attempt

    def adopt(self, order: LaunchOrder) -> Attempt:
        """As a daemon does that was started after the job."""
        attempt = Attempt(self.launcher, order, self.launcher.launched(order.run_dir, order.token))
        self.attempts.append(attempt)
        return attempt

    def shell(self, script: str, env: dict[str, str] | None = None, **spec: Any) -> Attempt:
        return self.start("/bin/sh", "-c", script, env=env, **spec)

    def python(self, program: str, env: dict[str, str] | None = None, **spec: Any) -> Attempt:
        return self.start(sys.executable, "-I", "-S", "-c", program, env=env, **spec)

    def bell(self) -> Bell:
        bell = Bell(self.root / f"bell-{len(self.bells)}")
        self.bells.append(bell)
        return bell

    def clear(self) -> None:
        for attempt in self.attempts:
            if self.launcher.alive(attempt.run_dir):
                attempt.stop(grace_s=0.0)
                attempt.wait()
            self.launcher.sweep(attempt.order.token, None, uid=attempt.order.spec.get("uid"))
        for bell in self.bells:
            bell.close()
        self.launcher.close()


@contextlib.contextmanager
def made_world(kinds: Sequence[str] = cgroup_folders.KINDS) -> Iterator[World]:
    """A folder and its launcher, whose supervisors have control groups of one of these kinds."""
    # Not tmp_path: pytest keeps that for root alone, and some of these jobs run as another user.
    root = Path(tempfile.mkdtemp(prefix="gpuq-process-"))
    root.chmod(0o755)
    (root / "messages").touch()
    made = World(root, ForkServerLauncher(str(root / "messages"), str(root), kinds))
    try:
        yield made
        assert (root / "messages").read_text() == "", "a supervisor failed"
    finally:
        folder = cgroup_folders.folder_name(str(root))
        made.clear()
        cgroup.end_left_over(folder)
        cgroup_folders.remove(cgroup_folders.found(folder))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(root)


@pytest.fixture
def world() -> Iterator[World]:
    with made_world() as made:
        yield made


@pytest.fixture(params=[cgroup_folders.V2, cgroup_folders.FREEZER, "sweeps"])
def world_of_each_kind(request: pytest.FixtureRequest) -> Iterator[World]:
    """One that stops by control groups of version 2, by the freezer, and by sweeps alone."""
    kinds = [] if request.param == "sweeps" else [request.param]
    if kinds and not cgroup.usable(kinds):
        pytest.skip(f"control groups cannot be made here: {request.param}")
    with made_world(kinds) as made:
        yield made


@pytest.fixture(params=[cgroup_folders.V2, cgroup_folders.FREEZER])
def world_with_groups(request: pytest.FixtureRequest) -> Iterator[World]:
    """One whose supervisors have control groups."""
    if not cgroup.usable([request.param]):
        pytest.skip(f"control groups cannot be made here: {request.param}")
    with made_world([request.param]) as made:
        yield made

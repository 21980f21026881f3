"""A throwaway daemon on simulated GPUs, in a home of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpuq.client.calls import Calls

GPUQ = str(Path(sys.executable).parent / "gpuq")


class Daemon:
    def __init__(self, home: Path, gpus: int, settings: dict[str, str]) -> None:
        self.home = home
        clean = {key: value for key, value in os.environ.items() if not key.startswith("GPUQ_")}
        self.env = {**clean, "GPUQ_HOME": str(home), "GPUQ_GPUS": f"sim:{gpus}", **settings}

    def gpuq(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run([GPUQ, *words], env=self.env, capture_output=True, text=True, check=check)

    def client(self) -> Calls:
        return Calls(server=f"unix://{self.home}/gpuq.sock")

    def pid(self) -> int:
        return int((self.home / "daemon.lock").read_text())


@contextmanager
def daemon(gpus: int = 4, **settings: str) -> Iterator[Daemon]:
    """On a real disk. Its home is removed when the whole run is over: ext4 looks at every inode deleted within the
    last minutes before it makes a new one, so that removing thousands of files would slow down what comes next."""
    home = Path(tempfile.mkdtemp(prefix="gpuq-bench-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    running = Daemon(home, gpus, settings)
    try:
        started = running.gpuq("up", "-d", check=False)
        if started.returncode != 0:
            sys.exit(f"the daemon did not start: {started.stderr}")
        yield running
    finally:
        running.gpuq("down", "--stop-jobs", check=False)


def wait_until_final(client: Calls, expected: int, timeout_s: float = 120.0) -> None:
    """Until that many jobs have ended. Polls: the measured thing must not be slowed by a stream of events."""
    deadline = time.monotonic() + timeout_s
    while client.stats()["finished"] < expected:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {client.stats()['jobs']} after {timeout_s:g} s")
        time.sleep(0.05)


def spec(*command: str, **fields: Any) -> dict[str, Any]:
    return {"command": list(command), "cwd": "/", "env": {"PATH": os.environ["PATH"]}, **fields}

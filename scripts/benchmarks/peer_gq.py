"""gq-local: its own daemon, with a stand-in for NVML that shows two idle GPUs. Its jobs are processes, like gpuq's."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peer_measure
from gq import daemon
from gq.models import GPUObservation
from gq.paths import Paths
from gq.protocol import PROTOCOL_VERSION, ProtocolError, request


class TwoGpus:
    def snapshot(self) -> list[GPUObservation]:
        return [GPUObservation(f"GPU-{n}", n, "stand-in", total_memory=2**34, used_memory=0) for n in range(2)]

    def close(self) -> None:
        pass


class Gq(peer_measure.Peer):
    title = "gq-local"
    package = "gq-local"
    kind = "a process, like gpuq's"
    noted = "`date` notes its start"
    kept = "each commit is synced"
    slots = "two simulated GPUs"
    batches = False

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = request(
            self._paths.socket, {"type": kind, "protocol": PROTOCOL_VERSION, **fields}, timeout=30
        )
        if not answer["ok"]:
            raise RuntimeError(answer["error"])
        return answer

    def _submit(self, *command: str) -> int:
        words = {"argv": list(command), "env": {"PATH": os.environ["PATH"]}, "cwd": "/", "requested_gpus": 1}
        return int(self.ask("submit", **words)["job_id"])

    def stamp(self, pipe: Path) -> None:
        # The same command as gpuq's; a shell that writes to the pipe would be one program more.
        self._last = self._submit("date", "+%s%N")

    def started(self, descriptor: int) -> int:
        log = self._paths.logs_dir / f"{self._last}.log"
        deadline = time.monotonic() + peer_measure.ANSWER_S
        while not (log.exists() and log.read_text().endswith("\n")):
            if time.monotonic() > deadline:
                raise TimeoutError("its job did not start")
            time.sleep(0.01)
        return int(log.read_text())

    def submit(self) -> None:
        self._submit("true")

    def finished(self) -> int:
        # Asking the daemon would cost it a list of all jobs.
        base = sqlite3.connect(f"file:{self._paths.database}?mode=ro", uri=True)
        try:
            return int(base.execute("select count(*) from jobs where state = 'DONE'").fetchone()[0])
        finally:
            base.close()

    @contextmanager
    def workers(self, name: str = "served") -> Iterator[None]:
        home = peer_measure.folder() / name
        os.environ.update(GQ_DATA_DIR=str(home), GQ_RUNTIME_DIR=str(home / "run"), GQ_ALLOW_ROOT="1")
        self._paths = Paths.from_environment()
        with peer_measure.running(["python", __file__, "daemon"]):
            deadline = time.monotonic() + peer_measure.ANSWER_S
            while not self._answers():
                if time.monotonic() > deadline:
                    raise TimeoutError("its daemon did not start")
                time.sleep(0.05)
            yield

    def _answers(self) -> bool:
        try:
            self.ask("ping")
        except ProtocolError:
            return False
        return True

    @contextmanager
    def unattended(self) -> Iterator[None]:
        with self.workers("unattended"):
            self.ask("pause_queue")
            yield


if __name__ == "__main__":
    if sys.argv[1:] == ["daemon"]:
        daemon.NVMLProvider = TwoGpus
        sys.exit(daemon.main([]))
    peer_measure.run(Gq())

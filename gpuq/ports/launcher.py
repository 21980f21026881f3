"""Starting and watching supervised attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Result


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """`spec` is what the supervisor reads (see gpuq.supervise.bundle); `run_dir` becomes the attempt folder."""

    job_id: int
    number: int
    token: str
    run_dir: str
    log_path: str
    spec: dict[str, Any]


class Launcher(Protocol):
    def start(self, order: LaunchOrder) -> int:
        """Makes the folder, takes the lock, hands lock and log to the fork server. Returns a file descriptor
        that becomes readable when the supervisor has reported (see `report`). Raises OSError when the
        folder cannot be made; then nothing was started."""

    def report(self, fd: int) -> Launched | None:
        """Reads and closes the descriptor. None: the supervisor ended without starting the job."""

    def alive(self, run_dir: str) -> bool:
        """By the lock, not by a PID."""

    def watch(self, running: Launched) -> int | None:
        """A descriptor (pidfd) that becomes readable when this supervisor has ended; None when it already
        has, or when the kernel cannot give one."""

    def outcome(self, run_dir: str) -> Result | None:
        """What the exit record says; None when there is none (yet)."""

    def request_stop(self, run_dir: str, *, reason: str, grace_s: float, signal: str | None = None) -> None:
        """Durable (a file in the folder) and immediate (a nudge): also of an attempt that is not launched yet."""

    def sweep(self, token: str, session: int | None) -> int:
        """Kills what is left of a dead attempt, identified by session and by the token in its environment;
        returns how many processes were found."""

    def close(self) -> None: ...

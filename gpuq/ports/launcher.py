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
    """Starts supervised attempts, and answers about them from their folders."""

    def warm_up(self) -> None:
        """Makes the first start as quick as the later ones. Raises OSError."""

    def start(self, order: LaunchOrder) -> int:
        """Makes the folder, takes the lock, hands lock and log to the fork server. Returns a file descriptor
        that becomes readable when the supervisor has reported (see `report`). Raises OSError when the
        folder cannot be made; then nothing was started."""

    def report(self, fd: int) -> Launched | None:
        """What the supervisor has reported. The descriptor stays the caller's, and becomes readable again when the
        supervision of the attempt has ended. None: it ended without starting the job (the exit record, if there is
        one, says why)."""

    def launched(self, run_dir: str) -> Launched | None:
        """The same facts from the folder, after a restart; None while the job's process has never existed."""

    def progress(self, run_dir: str) -> dict[str, Any] | None:
        """What the job wrote about itself in progress.json; None without it."""

    def alive(self, run_dir: str) -> bool:
        """By the lock, not by a PID."""

    def watch(self, running: Launched) -> int | None:
        """A descriptor, to be closed by the caller, that becomes readable when the supervision of this attempt has
        ended; None when it already has, or when the kernel cannot give one."""

    def outcome(self, run_dir: str) -> Result | None:
        """What the exit record says; None when there is none (yet)."""

    def request_stop(self, run_dir: str, *, reason: str, grace_s: float, signal: str | None = None) -> None:
        """Durable (a file in the folder) and immediate (a nudge): also of an attempt that is not launched yet."""

    def sweep(self, token: str, session: int | None, session_start: int | None = None) -> int:
        """Kills what is left of a dead attempt, identified by the token in its environment and by session (`pid` of
        Launched), which counts only with the start time of its leader (`pid_start`) or a marked process in it.
        Returns how many processes were found. Raises TimeoutError when some cannot be ended."""

    def close(self) -> None:
        """Lets the fork server go; running attempts go on."""

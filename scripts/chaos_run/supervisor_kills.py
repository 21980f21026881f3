"""How often a job has done all its work and is recorded as lost, because its supervisor was killed around its end.

`.venv/bin/python scripts/chaos_run/supervisor_kills.py --kills 600 [--with-fork-server] [--seed S]`

Each job is a shell that sleeps for a moment and writes the time as its last line. Its supervisor is killed at a moment
drawn around that. What the job wrote is compared with what is recorded of its end: nobody can know that a last line was
the last one before the process has ended, so some that were about to are killed with their supervisor and lost. None
may be recorded otherwise than it was, and none that had ended before the kill may be lost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from gpuq.domain.attempt_mark import MARK, mark_of
from gpuq.domain.outcome import Outcome
from gpuq.linux import look
from gpuq.ports.launcher import LaunchOrder
from gpuq.supervise.launch import ForkServerLauncher

# The kill comes so much before or after the end that is expected.
AROUND_S = 0.015
RUNS_S = 0.03
# From the report to the end of the sleep it takes a little longer.
STARTS_S = 0.006
EXIT_CODE = 7
PATIENCE_S = 20.0


@dataclass
class Figures:
    """`kills`: supervisors that were killed while their attempt was not settled. Of these: `recorded` with their own
    exit code; `swept`: lost, without a last line; `late`: lost, with a last line of so many milliseconds after the
    kill, negative before it. `wrong`: recorded otherwise, or lost although the process had ended before the kill."""

    kills: int = 0
    recorded: int = 0
    swept: int = 0
    late: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        late = ", ".join(f"{ms:.1f}" for ms in sorted(self.late))
        return (
            f"{self.kills} kills: {self.recorded} recorded with their exit code, {self.swept} lost in the middle, "
            f"{len(self.late)} lost after their last line"
            + (f" (ms after the kill: {late})" if late else "")
            + "".join(f"\nwrong: {text}" for text in self.wrong)
        )


def measure(kills: int, seed: str, *, with_fork_server: bool = False) -> Figures:
    """So many attempts, one after the other, in a folder of its own that is removed again."""
    root = Path(tempfile.mkdtemp(prefix="gpuq-kills-"))
    draw, figures = Random(seed), Figures()
    launcher = ForkServerLauncher(str(root / "messages"), str(root))
    try:
        for number in range(1, kills + 1):
            _one(launcher, root, number, draw.uniform(-AROUND_S, AROUND_S), figures, with_fork_server)
    finally:
        launcher.close()
        shutil.rmtree(root, ignore_errors=True)
    return figures


def _one(
    launcher: ForkServerLauncher, root: Path, number: int, after_s: float, figures: Figures, with_fork_server: bool
) -> None:
    line = root / f"last-{number}"
    script = f"sleep {RUNS_S}; echo $EPOCHREALTIME > {line}; exit {EXIT_CODE}"
    order = _order(root, number, script)
    report = launcher.start(order)
    begun = time.time()
    launched = launcher.report(report)
    if launched is None:
        raise RuntimeError("a job was not started")
    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(launched.pid)
        _wait_until(begun + RUNS_S + STARTS_S + after_s)
        over = bool(select.select([ended], [], [], 0)[0])
        os.close(ended)
        killed_at = time.time()
        if launcher.outcome(order.run_dir, order.token) is None and _kill(launched.supervisor_pid, with_fork_server):
            figures.kills += 1
            # Until nobody of it holds the report open.
            _until_settled(launcher, order)
            _judge(launcher, order, launched.pid, launched.pid_start, line, killed_at, over, figures)
    os.close(report)


def _order(root: Path, number: int, script: str) -> LaunchOrder:
    token, run_dir = secrets.token_hex(16), str(root / "jobs" / str(number) / "1")
    spec = {
        "schema": 1, "job_id": number, "attempt": 1, "token": token, "argv": ["/bin/bash", "-c", script],
        "env": {"PATH": "/usr/bin:/bin", MARK: mark_of(token)}, "cwd": "/", "uid": os.geteuid(), "gid": os.getegid(),
        "user": "", "time_limit_s": None, "kill_grace_s": 5.0, "signal": None, "umask": None,
    }  # fmt: skip
    return LaunchOrder(number, 1, token, run_dir, f"{run_dir}/output.log", spec)


def _kill(supervisor: int, with_fork_server: bool) -> bool:
    process = look(supervisor)
    if process is None or not process.living:
        return False
    if with_fork_server:
        os.kill(process.parent, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    return True


def _until_settled(launcher: ForkServerLauncher, order: LaunchOrder) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while launcher.alive(order.run_dir) and time.monotonic() < give_up:
        time.sleep(0.001)


def _judge(
    launcher: ForkServerLauncher,
    order: LaunchOrder,
    pid: int,
    start: int,
    line: Path,
    killed_at: float,
    over: bool,
    figures: Figures,
) -> None:
    result = launcher.outcome(order.run_dir, order.token)
    launcher.sweep(order.token, pid, start)
    wrote = line.read_text().strip() if line.exists() else ""
    if result is not None and result.outcome is not Outcome.LOST:
        figures.recorded += 1
        if result.exit_code != EXIT_CODE or not wrote:
            figures.wrong.append(f"{result.outcome}, exit code {result.exit_code}, last line {wrote!r}")
    elif over and not _fork_server_died(launcher):
        figures.wrong.append("lost, although its process had ended before the kill")
    elif wrote:
        figures.late.append((float(wrote.replace(",", ".")) - killed_at) * 1000)
    else:
        figures.swept += 1


def _fork_server_died(launcher: ForkServerLauncher) -> bool:
    pid = launcher.server.pid
    server = None if pid is None else look(pid)
    return server is None or not server.living


def _wait_until(moment: float) -> None:
    while (left := moment - time.time()) > 0:
        time.sleep(left)


def main() -> int:
    """Prints the figures; exit code 1 when something was recorded that was not so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="attempts whose supervisor is killed (default 300)")
    parser.add_argument("--seed", default="1", help="of the moments (default 1)")
    parser.add_argument("--with-fork-server", action="store_true", help="kill the fork server at the same moment")
    options = parser.parse_args()
    figures = measure(options.kills, options.seed, with_fork_server=options.with_fork_server)
    print(figures)
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

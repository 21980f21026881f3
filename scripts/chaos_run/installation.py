"""One throwaway installation: its home, its database, its daemon, and the processes that belong to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import processes
import redis
from processes import Process
from redis.backoff import NoBackoff
from redis.retry import Retry
from shapes import KILL_GRACE_S

from gpuq.supervise import cgroup, cgroup_folders

GPUQ = str(Path(sys.executable).parent / "gpuq")
UP_S = 60.0
LEASE_TTL_S = 2.0
END_S = 20.0


class Installation:
    """`url` None: SQLite in the home. Sets this process's own environment, so that clients find this home only."""

    def __init__(self, gpus: int, url: str | None) -> None:
        # Short, because the path of a Unix socket may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="gpuq-chaos-", dir="/tmp"))
        # Behind a link, as a home on a volume of its own is; `away`: where the volume is while it is not there.
        self.home = self.folder / "home"
        self.volume = self.folder / "volume"
        self.away = self.folder / "volume-away"
        self.volume.mkdir(mode=0o700)
        self.home.symlink_to(self.volume)
        self.diary = self.folder / "jobs"
        self.diary.mkdir()
        self.url = url or f"sqlite:///{self.home / 'gpuq.db'}"
        # The file of it; None where a server has it.
        self.database = None if url else self.volume / "gpuq.db"
        self.refusals: list[str] = []
        for name in [name for name in os.environ if name.startswith("GPUQ_")]:
            del os.environ[name]
        (self.folder / "config.toml").touch()
        os.environ.update(
            GPUQ_HOME=str(self.home),
            GPUQ_CONFIG=str(self.folder / "config.toml"),
            GPUQ_DATABASE_URL=self.url,
            GPUQ_GPUS=f"sim:{gpus}",
            GPUQ_LEASE_TTL=f"{LEASE_TTL_S:g}",
            GPUQ_RETRY_BASE="0.1",
            GPUQ_KILL_GRACE=f"{KILL_GRACE_S:g}",
            GPUQ_NODE="chaos",
        )

    def note(self, text: str) -> None:
        """Into the run's own log, beside the diary: when what was broken."""
        with (self.folder / "faults.log").open("a") as log:
            log.write(text + "\n")

    # -- the daemon ---------------------------------------------------------------------------------------------

    def up(self) -> bool:
        """One try to start the daemon; what it said is kept when it would not."""
        try:
            done = subprocess.run([GPUQ, "up", "-d"], capture_output=True, text=True, timeout=UP_S, check=False)
        except subprocess.TimeoutExpired:
            self.refusals.append(f"`gpuq up` said nothing for {UP_S:g} s")
            return False
        if done.returncode == 0:
            return True
        self.refusals.append(f"`gpuq up` ended with {done.returncode}: {done.stderr.strip()}")
        return False

    def up_for_sure(self) -> bool:
        """Again and again, for as long as UP_S."""
        return processes.wait_until(self.up, UP_S, pause_s=0.3)

    def down(self) -> None:
        subprocess.run([GPUQ, "down"], capture_output=True, timeout=UP_S, check=False)

    def daemon(self) -> Process | None:
        """By its own lock file, if that process is one of ours."""
        try:
            pid = int((self.home / "daemon.lock").read_text())
        except (OSError, ValueError):
            return None
        ours = (process for process in self.all() if process.pid == pid)
        return next((process for process in ours if "gpuq.server" in processes.command(process)), None)

    def redis(self) -> redis.Redis:
        """A connection that gives up at once."""
        path = str(self.home / "redis" / "redis.sock")
        return redis.Redis(unix_socket_path=path, decode_responses=True, socket_timeout=2, retry=Retry(NoBackoff(), 0))

    # -- its processes ------------------------------------------------------------------------------------------

    def all(self) -> list[Process]:
        """Living descendants of this script that carry this home."""
        return [p for p in processes.below(os.getpid()) if p.lives and self._is_ours(p)]

    def _is_ours(self, process: Process) -> bool:
        # The throwaway PostgreSQL inherits our environment when it is started again, and has an owner of its own.
        if process.name == "postgres":
            return False
        if processes.environment(process).get("GPUQ_HOME") == str(self.home):
            return True
        return any(path.startswith(f"{self.folder}/") for path in processes.open_files(process))

    def jobs(self) -> list[tuple[Process, tuple[int, int]]]:
        """Processes of jobs, with the run that they belong to."""
        found = []
        for process in self.all():
            env = processes.environment(process)
            if "GPUQ_TOKEN_OF_ATTEMPT" in env:
                found.append((process, (int(env["GPUQ_JOB_ID"]), int(env["GPUQ_ATTEMPT"]))))
        return found

    def supervisors(self) -> list[Process]:
        """Not what one of them has forked and that is not yet the job's program: it bears their name."""
        server = self.fork_server()
        named = [p for p in self.all() if p.name == "gpuq-supervisor" and p != server]
        pids = {process.pid for process in named}
        return [process for process in named if process.parent not in pids]

    def fork_server(self) -> Process | None:
        """It bears the same name as those that it forks, and is the daemon's child."""
        daemon = self.daemon()
        children = (p for p in self.all() if daemon is not None and p.parent == daemon.pid)
        return next((process for process in children if process.name == "gpuq-supervisor"), None)

    def runs_of(self, supervisor: Process) -> list[tuple[int, int]]:
        """The attempts whose lock it has open, also when that was removed or is out of reach."""
        opened = (path.removesuffix(" (deleted)") for path in processes.open_files(supervisor))
        locks = [Path(path) for path in opened if path.endswith("/lock")]
        return [
            (int(p.parent.parent.name), int(p.parent.name.removesuffix(".records")))
            for p in locks
            if any(p.is_relative_to(place / "jobs") for place in (self.volume, self.away))
        ]

    def redis_server(self) -> Process | None:
        return next((process for process in self.all() if process.name == "redis-server"), None)

    # -- the end ------------------------------------------------------------------------------------------------

    def end_everything(self) -> list[str]:
        """Kills what should have ended by itself after `gpuq down`, and tells what that was."""
        processes.wait_until(lambda: not self.all(), END_S, pause_s=0.1)
        left = self.all()
        told = [f"pid {process.pid} {process.name} {processes.command(process)}" for process in left]
        self.kill_everything()
        return told

    def kill_everything(self) -> None:
        deadline = time.monotonic() + END_S
        while (left := self.all()) and time.monotonic() < deadline:
            for process in left:
                processes.kill(process, signal.SIGKILL)
            time.sleep(0.05)

    def remove(self) -> None:
        """The folder, and the control groups of what was killed in it."""
        if self.home.exists():
            groups = cgroup_folders.folder_name(str(self.home))
            cgroup.end_left_over(groups)
            cgroup_folders.remove(cgroup_folders.found(groups))
        shutil.rmtree(self.folder, ignore_errors=True)

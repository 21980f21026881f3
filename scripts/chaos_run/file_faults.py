"""Files and folders that are taken away or spoiled under a running queue."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import processes
from installation import GPUQ, UP_S

if TYPE_CHECKING:
    from faults import Fault, Faults

HOME = "home"
RESTART = "restart"
# The socket is looked after every few seconds.
SOCKET_S = 20.0
# What a careless or hostile program may leave where a record is expected.
HOSTILE = (
    b"",
    b"{",
    b"[]",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"exit_code": ' + b"9" * 40 + b"}",
    b'{"pid": 1' + b"0" * 30 + b', "start_ticks": -1}',
    b'{"exit_code": 0, "outcome": "succeeded", "token": "somebody else\'s"}',
    b"\x00" * 4096,
    b"NaN",
)
RECORDS = ("exit.json", "started.json", "stop.json", "spec.json")


class FileFaults:
    """Kinds for `faults.Faults`, which keeps what is broken and what was noted."""

    def __init__(self, core: Faults) -> None:
        self._core = core
        self._box = core.box
        self._random = core.random
        self._copy = core.box.folder / "old-copy"

    def kinds(self) -> dict[str, tuple[int, Fault]]:
        return {
            "the home's volume away": (4, self._home_away),
            "folder of a running attempt removed": (5, self._remove_folder),
            "a file in the place of an attempt's records": (2, self._file_for_records),
            "supervisor killed, its record spoiled": (4, self._spoil_a_record),
            "the socket removed": (3, self._remove_socket),
            **({"an old copy of the database put back": (3, self._old_copy)} if self._box.database else {}),
        }

    def _home_away(self) -> bool:
        """Also what ends meanwhile has a true end."""
        if {RESTART, HOME} & self._core.busy or self._box.daemon() is None:
            return False
        self._core.busy.add(HOME)
        self._box.volume.rename(self._box.away)
        seconds = self._random.choice((0.1, 0.5, 1.5, 4.0))

        def back() -> None:
            self._box.away.rename(self._box.volume)
            self._core.busy.discard(HOME)

        # Nobody can be asked to start or to end meanwhile.
        self._core.later(seconds, RESTART, back)
        return True

    def _remove_folder(self) -> bool:
        runs = [run for one in self._box.supervisors() for run in self._box.runs_of(one)]
        if not runs or HOME in self._core.busy:
            return False
        job, number = self._random.choice(runs)
        folder = self._box.volume / "jobs" / str(job)
        which = self._random.choice((folder / str(number), folder / f"{number}.records", folder))
        shutil.rmtree(which, ignore_errors=True)
        self._core.box.note(f"{time.time():.3f} removed {which}")
        return True

    def _file_for_records(self) -> bool:
        runs = [run for one in self._box.supervisors() for run in self._box.runs_of(one)]
        if not runs or HOME in self._core.busy:
            return False
        job, number = self._random.choice(runs)
        records = self._box.volume / "jobs" / str(job) / f"{number}.records"
        shutil.rmtree(records, ignore_errors=True)
        with contextlib.suppress(OSError):
            # Somebody may have made it anew meanwhile, or the job has removed it all.
            records.touch(exist_ok=False)
        self._box.note(f"{time.time():.3f} a file in the place of {records}")
        return True

    def _spoil_a_record(self) -> bool:
        """Killed first, so that nobody but the daemon is there to look at what it finds."""
        busy = [(one, runs) for one in self._box.supervisors() if (runs := self._box.runs_of(one))]
        if not busy or HOME in self._core.busy:
            return False
        supervisor, runs = self._random.choice(busy)
        if not self._core.end_supervisor(supervisor):
            return False
        for job, number in runs:
            records = self._box.volume / "jobs" / str(job) / f"{number}.records"
            name, what = self._random.choice(RECORDS), self._random.choice(HOSTILE)
            with contextlib.suppress(OSError):
                self._put(records / name, what)
                self._box.note(f"{time.time():.3f} spoiled {records / name} with {what[:40]!r}")
        return True

    @staticmethod
    def _put(path: Path, what: bytes) -> None:
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(what)

    def _remove_socket(self) -> bool:
        daemon = self._box.daemon()
        path = self._box.volume / "gpuq.sock"
        if daemon is None or RESTART in self._core.busy or not path.exists():
            return False
        path.unlink()

        def expect() -> None:
            if not processes.wait_until(path.exists, SOCKET_S, pause_s=0.1) and processes.look(daemon.pid) == daemon:
                self._core.complaints.append(("P5", f"gpuq.sock was not made again within {SOCKET_S:g} s"))

        self._core.later(0.0, RESTART, expect)
        return True

    def _old_copy(self) -> bool:
        """The bare file as it was some time ago, as people copy it. It has to be refused; then the true one is back."""
        daemon = self._box.daemon()
        if daemon is None or {RESTART, HOME} & self._core.busy:
            return False
        assert self._box.database is not None
        if not self._copy.exists():
            shutil.copy(self._box.database, self._copy)
            return False
        if not processes.kill(daemon, signal.SIGKILL):
            return False

        def try_it() -> None:
            processes.gone(daemon)
            self._try_the_copy()
            self._core.ensure_up()

        self._core.later(0.0, RESTART, try_it)
        return True

    def _try_the_copy(self) -> None:
        base = self._box.database
        assert base is not None
        parts = [part for end in ("", "-wal", "-shm") if (part := base.with_name(base.name + end)).exists()]
        for part in parts:
            part.rename(part.with_name(f"{part.name}.aside"))
        shutil.copy(self._copy, base)
        try:
            done = subprocess.run([GPUQ, "up", "-d"], capture_output=True, text=True, timeout=UP_S, check=False)
        finally:
            if (started := self._box.daemon()) is not None and processes.kill(started):
                processes.gone(started)
            for part in (base, base.with_name(f"{base.name}-wal"), base.with_name(f"{base.name}-shm")):
                part.unlink(missing_ok=True)
            for part in parts:
                part.with_name(f"{part.name}.aside").rename(part)
        # A copy without its log may be older than the name that the database was given.
        if done.returncode != 4 or not any(words in done.stderr for words in ("older than this home", "an old copy")):
            told = f"`gpuq up` on an old copy of the database ended with {done.returncode}: {done.stderr.strip()}"
            self._core.complaints.append(("P1", told))

"""The processes of this run, and of nobody else: found by what they have open, signalled through a pidfd.

The script is a subreaper, so that whatever is orphaned stays below it. A process counts as this run's only when it
descends from the script and carries the home, in its environment or as an open file.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
DEAD = "ZXx"


@dataclass(frozen=True, slots=True)
class Process:
    """`start` in clock ticks since boot: with it a PID names one process only."""

    pid: int
    start: int
    parent: int
    state: str
    name: str

    @property
    def lives(self) -> bool:
        return self.state not in DEAD


def become_subreaper() -> None:
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) was refused")


def look(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name stands in brackets and may hold anything.
    fields = text[text.rindex(")") + 2 :].split()
    name = text[text.index("(") + 1 : text.rindex(")")]
    return Process(pid, int(fields[19]), int(fields[1]), fields[0], name)


def below(root: int) -> list[Process]:
    """Every descendant, zombies included, parents first."""
    children: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := look(int(name))) is not None:
            children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    line = [root]
    for parent in line:
        for child in children.get(parent, ()):
            found.append(child)
            line.append(child.pid)
    return found


def environment(process: Process) -> dict[str, str]:
    """Empty when it is gone."""
    try:
        data = Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        return {}
    entries = (entry.partition(b"=") for entry in data.split(b"\0") if b"=" in entry)
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, _, value in entries}


def command(process: Process) -> str:
    """Empty when it is gone."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return ""


def open_files(process: Process) -> Iterator[str]:
    try:
        names = os.listdir(f"/proc/{process.pid}/fd")
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{process.pid}/fd/{name}")


@contextlib.contextmanager
def held(process: Process) -> Iterator[int | None]:
    """A descriptor of exactly this process; None when it is gone or the number is another's by now."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        now = look(process.pid)
        yield fd if now is not None and now.start == process.start and now.lives else None
    finally:
        os.close(fd)


def send(fd: int, signum: signal.Signals) -> bool:
    try:
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return False
    return True


def kill(process: Process, signum: signal.Signals = signal.SIGKILL) -> bool:
    """False when it was gone already."""
    with held(process) as fd:
        return fd is not None and send(fd, signum)


def freeze(process: Process, fd: int) -> bool:
    """SIGSTOP, and returns when it stands still. False when it ended instead."""
    send(fd, signal.SIGSTOP)
    return wait_until(lambda: (look(process.pid) or process).state in "Tt" + DEAD, 5.0) and (
        (now := look(process.pid)) is not None and now.lives
    )


def wait_until(condition: Callable[[], object], timeout_s: float, pause_s: float = 0.01) -> bool:
    """Processes of others give no signal that could be waited for: asked again until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True


class Reaper:
    """Collects orphans that ended here. A child that somebody waits for is collected by its waiter long before it has
    been seen dead twice."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def collect(self) -> None:
        dead = {
            (process.pid, process.start)
            for process in below(os.getpid())
            if process.state == "Z" and process.parent == os.getpid()
        }
        for pid, start in dead & self._seen:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            dead.discard((pid, start))
        self._seen = dead


def gone(process: Process) -> bool:
    """Whether it ends within a minute."""

    def ended() -> bool:
        now = look(process.pid)
        return now is None or now.start != process.start or not now.lives

    return wait_until(ended, 60.0)

"""Jobs that do not want to end, cancelled on a daemon of root's by every means of stopping that the machine has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from accounts import Account, Accounts, in_thread_as
from box import GPUQ
from diary import read_sqlite

from gpuq.linux import look

# Sixteen processes that each fork a child into a session of its own and end, over and over; by themselves they end
# after a minute. When all fly, there are sixteen lines in the file.
COMETS = """
import os, signal, sys, time
end = time.monotonic() + 60
signal.signal(signal.SIGTERM, signal.SIG_IGN)
told = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for _ in range(16):
    if os.fork() == 0:
        flown = 0
        while time.monotonic() < end:
            try:
                if os.fork():
                    os._exit(0)
            except OSError:
                continue
            os.setsid()
            flown += 1
            if flown == 3:
                os.write(told, b"flies\\n")
        os._exit(0)
while True:
    signal.pause()
"""


# By which means, what the daemon is not to see for that, and what it needs.
MEANS = [
    ("control groups (version 2)", (), "cgroup2"),
    ("control groups (the freezer of version 1)", ("cgroup2",), "freezer"),
    ("looks for a job's processes in /proc", ("cgroup2", "freezer"), None),
]


def mounts_of(hierarchy: str) -> list[str]:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for _, point, kind, options, *_ in lines if hierarchy == kind or hierarchy in options.split(",")]


def up_without(box: Any, hidden: tuple[str, ...]) -> str:
    """Starts the daemon in a mount namespace where these hierarchies are not to be seen. What doctor says there."""
    points = [point for hierarchy in hidden for point in mounts_of(hierarchy)]
    script = "".join(f"mount -t tmpfs none {point} && " for point in points) + f"{GPUQ} up -d && {GPUQ} doctor"
    done = subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", script], env=box.env, capture_output=True, text=True, timeout=60, check=False
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()}")
    return done.stdout


def processes_of(uid: int) -> list[str]:
    """PIDs of all that runs as this user."""
    found = subprocess.run(["ps", "-o", "pid=", "-u", str(uid)], capture_output=True, text=True, check=False)
    return found.stdout.split()


def python_for(account: Account) -> str:
    """A Python that this account may run, which needs not be that of the tests."""

    def runs(path: str) -> bool:
        try:
            os.close(os.open(os.path.realpath(path), os.O_RDONLY))
        except OSError:
            return False
        return True

    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if in_thread_as(account, lambda path=path: runs(path)):
            return path
    pytest.skip("there is no Python that everybody may run")


@pytest.mark.parametrize(("means", "hidden", "needed"), MEANS, ids=["v2", "freezer", "sweeps"])
def test_sixteen_fork_comets_are_gone_in_time(
    make_root_box: Callable[..., Any], accounts: Accounts, means: str, hidden: tuple[str, ...], needed: str | None
) -> None:
    if needed is not None and not mounts_of(needed):
        pytest.skip(f"{needed} is not mounted here")
    box = make_root_box()
    assert means in up_without(box, hidden)
    for words in (("--force",), ("--grace", "1s")):
        bell = box.home / f"bell{len(words)}"
        bell.touch()
        bell.chmod(0o666)
        command = [python_for(accounts.bob), "-I", "-S", "-c", COMETS, str(bell)]
        spec = {"command": command, "cwd": "/", "gpus": 1, "max_retries": 0}
        job = box.call(accounts.bob, "POST", "/jobs", spec).json["id"]
        box.until(lambda bell=bell: bell.read_text().count("flies") == 16, "all comets fly")
        box.gpuq("cancel", str(job), *words)
        # What is promised is the grace and 5 s; by themselves they would end after a minute.
        box.until_state(job, "cancelled")
        assert processes_of(accounts.bob.uid) == []
    assert {gpu["state"] for gpu in box.json("gpus")} == {"free"}


# Out of its session, without environment, and without parent.
ESCAPE = """
setsid env -i /bin/sh -c 'exec /bin/sh -c "echo \\$\\$ >$0.new; mv $0.new $0; exec sleep 300" "$0" &' {told}
while [ ! -e {told} ]; do sleep 0.01; done
sleep 300
"""


def kill(*pids: int) -> None:
    """At once, and until they are gone, or zombies that nobody collects yet."""
    watched = [psutil.Process(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    psutil.wait_procs(watched, timeout=20)


def lives(pid: int) -> bool:
    process = look(pid)
    return process is not None and process.living


@pytest.mark.parametrize(("means", "hidden", "needed"), MEANS, ids=["v2", "freezer", "sweeps"])
def test_nothing_of_an_attempt_is_left_when_the_next_one_starts(
    make_root_box: Callable[..., Any], accounts: Accounts, means: str, hidden: tuple[str, ...], needed: str | None
) -> None:
    if needed is not None and not mounts_of(needed):
        pytest.skip(f"{needed} is not mounted here")
    box = make_root_box()
    assert means in up_without(box, hidden)
    folder = box.home / "told"
    folder.mkdir()
    folder.chmod(0o777)
    spec = {"command": ["/bin/sh", "-c", ESCAPE.format(told=folder / "$GPUQ_ATTEMPT")], "cwd": "/", "gpus": 4}
    job = box.call(accounts.bob, "POST", "/jobs", spec).json["id"]
    box.until((folder / "1").exists, "the job runs")
    escaped = int((folder / "1").read_text())
    box.until_state(job, "running")
    if needed is None:
        query = "select processes from attempt_processes"
        box.until(
            lambda: any(f"[{escaped}," in row["processes"] for row in read_sqlite(box.home / "gpuq.db", query)),
            "it was seen",
        )
    supervisor = look(box.show(job)["pid"]).parent
    kill(look(supervisor).parent, supervisor)
    box.until((folder / "2").exists, "the second attempt runs")
    assert not lives(escaped)
    assert [attempt["outcome"] for attempt in box.show(job)["attempts"]] == ["lost", None]
    box.gpuq("cancel", "--force", str(job))
    box.until_state(job, "cancelled")
    assert not lives(int((folder / "2").read_text()))

"""Processes that fork faster than they can be listed: stopped in time by every means that a machine may have."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from gpuq.domain.attempt_mark import MARK, mark_of
from gpuq.domain.outcome import Outcome
from gpuq.domain.oversight import Family
from gpuq.linux import look
from gpuq.supervise import cgroup, cgroup_folders, family
from gpuq.supervise.launch import ForkServerLauncher
from gpuq.supervise.sweep import strays

# A comet is a process that forks a child into a session of its own and ends; here each ends by itself after a minute.
# It rings when it has been three processes, for then its group is not the job's any more.
COMETS = """
import os, signal, sys, time
bell = os.open(sys.argv[1], os.O_WRONLY)
end = time.monotonic() + 60
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(16):
    if os.fork() == 0:
        flown = 0
        while time.monotonic() < end:
            try:
                if os.fork():
                    os._exit(0)
            except OSError:
                # The machine has no process left just now.
                continue
            os.setsid()
            flown += 1
            if flown == 3:
                os.write(bell, b"flies\\n")
        os._exit(0)
while sys.argv[2] == "stay":
    signal.pause()
"""


def start_comets(world, ending: str):
    bell = world.bell()
    attempt = world.start(sys.executable, "-I", "-S", "-c", COMETS, str(bell.path), ending)
    for _ in range(16):
        assert bell.wait() == "flies"
    return attempt


def left_of(attempt) -> list[int]:
    entry = f"{MARK}={mark_of(attempt.order.token)}".encode()
    return [process.pid for process in strays(entry, None, None)]


@pytest.mark.parametrize("grace_s", [0.0, 1.0])
def test_sixteen_fork_comets_are_gone_in_time_when_their_job_is_cancelled(world_of_each_kind, grace_s) -> None:
    attempt = start_comets(world_of_each_kind, "stay")
    attempt.stop("cancel", grace_s=grace_s)
    # What is promised is the grace and 5 s; by themselves they would end after a minute.
    assert attempt.result(40.0).outcome is Outcome.CANCELLED
    assert left_of(attempt) == []


def test_sixteen_fork_comets_are_gone_in_time_when_their_job_leaves_them_behind(world_of_each_kind) -> None:
    attempt = start_comets(world_of_each_kind, "leave")
    assert attempt.result(40.0).outcome is Outcome.SUCCEEDED
    assert left_of(attempt) == []


# In a session of its own, without the environment that it was started with, and without parent; at most for a minute.
UNMARKED = """
import os, signal, sys
program = "import os, signal, sys; signal.alarm(60); open(sys.argv[1], 'w').write('%d\\\\n' % os.getpid())"
program += "; signal.pause()"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", program, sys.argv[1]], {})
    os._exit(0)
os.wait()
signal.pause()
"""


def kill(pid: int) -> None:
    """Until it is gone or a zombie."""
    watched = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    with os.fdopen(watched):
        assert select.select([watched], [], [], 20)[0]


def groups_of(world) -> list[str]:
    return [
        str(path)
        for _, folder in cgroup_folders.found(cgroup_folders.folder_name(str(world.root)))
        for path in Path(folder).glob("*-*")
    ]


def start_unmarked(world):
    bell = world.bell()
    attempt = world.start(sys.executable, "-I", "-S", "-c", UNMARKED, str(bell.path))
    return attempt, int(bell.wait())


def test_a_process_that_nothing_else_tells_of_is_found_when_supervisor_and_fork_server_are_dead(
    world_with_groups,
) -> None:
    world = world_with_groups
    attempt, unmarked = start_unmarked(world)
    gone = os.pidfd_open(unmarked)
    server = world.launcher.server.pid
    assert server is not None
    kill(server)
    kill(attempt.running.supervisor_pid)
    assert world.launcher.sweep(attempt.order.token, None) >= 1
    with os.fdopen(gone):
        assert select.select([gone], [], [], 20)[0], "it lives"
    # The supervisor that was idle takes its group along a moment later; nothing tells when.
    deadline = time.monotonic() + 20
    while groups_of(world):
        assert time.monotonic() < deadline, "a group is left"
        time.sleep(0.01)


def test_a_daemon_that_starts_ends_what_dead_supervisors_left(world_with_groups) -> None:
    world = world_with_groups
    attempt, unmarked = start_unmarked(world)
    gone = os.pidfd_open(unmarked)
    kill(world.launcher.server.pid)
    kill(attempt.running.supervisor_pid)
    successor = ForkServerLauncher(home=str(world.root))
    successor.warm_up()
    with os.fdopen(gone):
        assert select.select([gone], [], [], 20)[0], "it lives"
    successor.close()


def test_a_daemon_that_ends_leaves_no_group_of_those_that_died_with_their_fork_server(world_with_groups) -> None:
    world = world_with_groups
    attempt, unmarked = start_unmarked(world)
    gone = os.pidfd_open(unmarked)
    kill(world.launcher.server.pid)
    kill(attempt.running.supervisor_pid)
    world.launcher.close()
    with os.fdopen(gone):
        assert select.select([gone], [], [], 20)[0], "it lives"
    own = f"{attempt.running.supervisor_pid}-{attempt.running.supervisor_start}"
    assert not [path for path in groups_of(world) if path.endswith(own)]


def test_the_fork_server_ends_what_a_killed_supervisor_had_in_its_group_and_removes_it(world_with_groups) -> None:
    world = world_with_groups
    attempt, unmarked = start_unmarked(world)
    gone = os.pidfd_open(unmarked)
    kill(attempt.running.supervisor_pid)
    with os.fdopen(gone):
        assert select.select([gone], [], [], 20)[0], "it lives"
    own = f"{attempt.running.supervisor_pid}-{attempt.running.supervisor_start}"
    # Nothing tells that a folder has gone.
    deadline = time.monotonic() + 20
    while any(path.endswith(own) for path in groups_of(world)):
        assert time.monotonic() < deadline, "its group is still there"
        time.sleep(0.01)


def test_what_living_supervisors_run_is_left_alone(world_with_groups) -> None:
    world = world_with_groups
    attempt, unmarked = start_unmarked(world)
    assert cgroup.end_left_over(cgroup_folders.folder_name(str(world.root))) == 0
    os.kill(unmarked, 0)
    assert world.launcher.alive(attempt.run_dir)


def test_no_group_is_left_when_the_fork_server_has_ended(world_with_groups) -> None:
    world = world_with_groups
    first, second = world.shell("exit 0"), world.shell("sleep 100")
    first.result()
    second.stop("cancel", grace_s=0.0)
    second.result()
    assert groups_of(world) != []
    server = os.pidfd_open(world.launcher.server.pid)
    world.launcher.close()
    with os.fdopen(server):
        assert select.select([server], [], [], 20)[0]
    assert cgroup_folders.found(cgroup_folders.folder_name(str(world.root))) == []


def test_a_job_of_another_user_cannot_leave_its_group(world_with_groups) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can run a job as another user")
    world = world_with_groups
    # The first one makes the folder.
    world.shell("exit 0").result()
    kind, folder = cgroup_folders.found(cgroup_folders.folder_name(str(world.root)))[0]
    above = Path(folder).parent
    script = f"""
        for group in {above} {folder} {folder}/*-*; do echo 0 >$group/cgroup.procs; done
        mkdir {folder}/own {folder}/*-*/own
        cat /proc/self/cgroup
    """
    attempt = world.shell(script, uid=65534, gid=65534, user="nobody")
    own = f"/{Path(folder).name}/{attempt.running.supervisor_pid}-{attempt.running.supervisor_start}"
    attempt.result()
    lines = [line.split(":", 2) for line in attempt.log.splitlines() if line[0].isdigit()]
    (mine,) = [
        path for _, controllers, path in lines if ("freezer" in controllers) == (kind == "freezer") and own in path
    ]
    assert mine.endswith(own)


def test_what_no_group_holds_is_known_by_having_been_seen(world_of_each_kind) -> None:
    """Supervisor and fork server die together, and nothing but the look before tells whose it was."""
    world = world_of_each_kind
    attempt, unmarked = start_unmarked(world)
    start = look(unmarked).start
    seen = world.launcher.oversight.family(attempt.running)
    assert seen == (Family([], grouped=True) if groups_of(world) else Family([(unmarked, start)]))
    gone = os.pidfd_open(unmarked)
    kill(world.launcher.server.pid)
    kill(attempt.running.supervisor_pid)
    assert world.launcher.oversight.family(attempt.running) in (None, Family([], grouped=True))
    # A number that was given again is nobody's.
    world.launcher.sweep(attempt.order.token, None, seen=[(os.getpid(), 1), (unmarked, start + 1)])
    if not seen.grouped:
        assert not select.select([gone], [], [], 0)[0], "somebody else knew of it"
    world.launcher.sweep(attempt.order.token, None, seen=seen.processes)
    with os.fdopen(gone):
        assert select.select([gone], [], [], 20)[0], "it lives"


BRANCHES = """
import os, signal, sys, threading
bell = os.open(sys.argv[1], os.O_WRONLY)
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.alarm(60)
        signal.pause()
def grandchild():
    if os.fork() == 0:
        if os.fork() == 0:
            signal.alarm(60)
            os.write(bell, b"%d\\n" % os.getpid())
        signal.pause()
thread = threading.Thread(target=grandchild)
thread.start()
thread.join()
threading.Event().wait()
"""


@pytest.mark.parametrize(("children", "counted"), [(1, 3), (100, 64)])
def test_a_look_finds_the_children_of_every_thread_and_is_bounded(world, children, counted) -> None:
    bell = world.bell()
    attempt = world.start(sys.executable, "-I", "-S", "-c", BRANCHES, str(bell.path), str(children))
    grandchild = int(bell.wait())
    seen = family.seen_of(attempt.running)
    assert len(set(seen)) == counted
    assert (grandchild in [pid for pid, _ in seen]) is (children == 1)
    assert attempt.running.pid not in [pid for pid, _ in seen]

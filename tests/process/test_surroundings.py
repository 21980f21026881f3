"""What a job takes over from its submitter beside its command: secrets, which touch no disk, limits and niceness."""

from __future__ import annotations

import os
import pwd
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuq.supervise.secret_variables import hand_over, take
from tests.process.conftest import World

CANARY = "canary-of-a-supervised-job"
# A limit that a supervisor cannot have itself makes a process of its own; others do not.
ROADS: list[dict[str, int]] = [{}, {"nproc": 100_000}]


def output(world: World, script: str, **spec: Any) -> str:
    attempt = world.shell(script, **spec)
    attempt.result()
    return Path(attempt.order.log_path).read_text()


def test_secrets_reach_the_job_and_no_file_and_those_of_the_spec_come_first(world: World) -> None:
    script = 'echo "${#A_TOKEN} $B_TOKEN" > told; read wait < bell'
    order = world.order("/bin/sh", "-c", script, env={"B_TOKEN": "of the spec"})
    os.mkfifo(world.root / "bell")
    attempt = world.launch(replace(order, secrets={"A_TOKEN": CANARY, "B_TOKEN": CANARY}))
    with open(world.root / "bell", "w") as bell:
        # It runs: everything there is of it is on the disk now.
        for path in world.root.rglob("*"):
            assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
        bell.write("go on\n")
    attempt.result()
    assert (world.root / "told").read_text() == f"{len(CANARY)} of the spec\n"


def test_the_next_job_of_a_supervisor_has_nothing_of_the_last_ones_secrets(world: World) -> None:
    order = world.order("/bin/sh", "-c", "echo $A_TOKEN > told")
    world.launch(replace(order, secrets={"A_TOKEN": CANARY})).result()
    assert (world.root / "told").read_text() == f"{CANARY}\n"
    assert CANARY not in output(world, "env; ls -l /proc/self/fd")


def test_handed_over_secrets_leave_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    large = {"A": "x" * 60_000, "B": "ü\n"}
    assert take(hand_over(large)) == large
    assert take(-1) == {}
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("road", ROADS)
def test_soft_limits_are_the_submitters_and_hard_ones_the_daemons(world: World, road: dict[str, int]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    before = [resource.getrlimit(number) for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)]
    said = output(
        world,
        "ulimit -S -n; ulimit -H -n; ulimit -S -c; ulimit -S -s",
        limits={"nofile": 123, "core": 0, "stack": 16 << 20, **road},
    )
    assert said.split() == ["123", "unlimited" if hard == -1 else str(hard), "0", str(16 << 10)]
    # The supervisor has its own again, and so has the next job.
    assert output(world, "ulimit -S -n") != "123\n"
    assert [resource.getrlimit(number) for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)] == before


def test_more_than_the_hard_limit_is_the_hard_limit(world: World) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for wanted in (2**62, -1) if hard != -1 else (-1,):
        assert output(world, "ulimit -S -n", limits={"nofile": wanted}) == f"{'unlimited' if hard == -1 else hard}\n"


def test_a_job_is_as_nice_as_its_submitter_was_and_never_less_than_the_daemon(world: World) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert output(world, "nice", nice=own + 2) == f"{own + 2}\n"
    assert output(world, "nice", nice=0) == f"{own}\n"
    assert output(world, "nice") == f"{own}\n"


@pytest.mark.parametrize("name", ["as", "data", "stack", "cpu", "nproc", "nofile"])
def test_limits_that_leave_no_room_are_the_jobs_own_trouble_and_nobody_elses(world: World, name: str) -> None:
    attempt = world.hand_over(world.order("true", limits={name: 1}))
    attempt.hear()
    result = attempt.result()
    assert str(result.outcome) in {"launch_error", "signal", "exit_nonzero", "succeeded"}
    assert not result.machine_fault
    assert output(world, "echo well") == "well\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_job_has_them_too(world: World) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chmod(world.root, 0o755)
    order = world.order("/bin/sh", "-c", 'ulimit -S -n; nice; test "$A_TOKEN" = canary && echo told')
    order.spec.update(uid=nobody.pw_uid, gid=nobody.pw_gid, user="nobody", limits={"nofile": 99}, nice=5, cwd="/")
    attempt = world.launch(replace(order, secrets={"A_TOKEN": "canary"}))
    attempt.result()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert Path(order.log_path).read_text().split() == ["99", str(max(own, 5)), "told"]

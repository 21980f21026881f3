"""More jobs at once than a process may have descriptors for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.attempt import descriptors
from gpuq.engine.attempt.descriptors import AttemptRoom, most_attempts
from gpuq.server.http.connections import KEPT_FOR_OWNERS, Connections


@pytest.mark.parametrize(("limit", "most"), [(64, 4), (256, 24), (1024, 216), (4096, 984), (1_048_576, 262_104)])
def test_attempts_leave_half_of_the_descriptors_to_clients_and_some_to_the_daemon(limit: int, most: int) -> None:
    assert most_attempts(limit) == most
    taken = descriptors.OF_AN_ATTEMPT * most
    if most > descriptors.LEAST:
        connections = Connections(limit)
        kept = min(KEPT_FOR_OWNERS, limit // 16)
        assert taken + connections.most + kept + descriptors.OF_THE_DAEMON <= limit


@pytest.fixture
def small(make_world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A world whose agent can watch twelve attempts."""
    monkeypatch.setattr(descriptors, "most_attempts", lambda limit: 12)
    return make_world(cpu_jobs=0)


def test_no_more_are_started_than_can_be_watched_and_the_others_are_told_why(small: Any) -> None:
    ids = [small.submit("a", gpus=0) for _ in range(20)]
    agent = small.agent()
    agent.run_once()
    started = [job_id for job_id in ids if small.state(job_id) == "starting"]
    assert started == ids[:12]
    for job_id in started:
        small.launcher.run(job_id)
    # That something runs is no sign of room.
    agent.run_once()
    why = small.queries.why(ids[15])["reason"]
    assert why["code"] == "LaunchTrouble"
    assert f"12 jobs run at once, as many as a limit of {AttemptRoom().limit} open files" in why["text"]
    assert "LimitNOFILE=" in why["text"]


def test_each_end_makes_room_for_one_and_the_trouble_goes_when_there_is_more(small: Any) -> None:
    ids = [small.submit("a", gpus=0) for _ in range(14)]
    agent = small.agent()
    agent.run_once()
    for job_id in ids[:12]:
        small.launcher.run(job_id)
    agent.run_once()
    small.launcher.end(ids[0], Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    assert [small.state(job_id) for job_id in ids[11:]] == ["running", "starting", "queued"]
    for job_id in ids[1:5]:
        small.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    agent.run_once()
    assert small.state(ids[13]) == "starting"
    late = small.submit("a", gpus=0, hold=True)
    assert small.queries.why(late)["reason"]["code"] == "HeldByUser"
    assert small.queries.why(small.submit("a", gpus=4))["reason"]["code"] != "LaunchTrouble"


def test_every_descriptor_of_an_attempt_is_closed_at_its_end(make_world: Callable[..., Any]) -> None:
    world = make_world(cpu_jobs=0)
    agent = world.agent()
    agent.run_once()
    before = len(os.listdir("/proc/self/fd"))
    ids = [world.submit("a", gpus=0) for _ in range(10)]
    agent.run_once()
    for job_id in ids:
        world.launcher.run(job_id)
    agent.run_once()
    for job_id in ids:
        world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    agent.run_once()
    agent.run_once()
    assert {world.state(job_id) for job_id in ids} == {"completed"}
    assert len(os.listdir("/proc/self/fd")) <= before

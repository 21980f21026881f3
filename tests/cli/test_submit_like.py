"""`gpuq submit --like`: only what the line changes is sent."""

from __future__ import annotations

import pytest
from stub_daemon import Answer, Gpuq, StubDaemon, job


@pytest.fixture
def taking(daemon: StubDaemon) -> StubDaemon:
    daemon.on("POST", "/jobs/7/again", Answer(201, [job(8, name="bert", position=1)]))
    return daemon


def test_nothing_is_sent_that_is_not_changed(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "--like", "7", HF_TOKEN="t")
    assert (done.code, done.out, done.err) == (0, "job 8 (bert) is queued, position 1\n", "")
    [asked] = taking.seen("POST", "/jobs/7/again")
    assert bool(asked.headers["idempotency-key"])
    # The daemon takes those that the earlier job had.
    assert asked.body.keys() == {"offered_secrets"}
    assert asked.body["offered_secrets"]["HF_TOKEN"] == "t"


def test_options_and_command_are_changes(gpuq: Gpuq, taking: StubDaemon) -> None:
    line = "submit --like 7 -g 2 -t 1h --env A=1 --env-keep HF_TOKEN -C / -n x --parsable -- true a"
    done = gpuq(*line.split(), HF_TOKEN="t")
    assert (done.code, done.out) == (0, "8\n")
    [asked] = taking.seen("POST", "/jobs/7/again")
    assert asked.body == {
        "gpus": 2, "time_limit_s": 3600, "env": {"HF_TOKEN": "t", "A": "1"}, "cwd": "/", "name": "x",
        "command": ["true", "a"],
    }  # fmt: skip


def test_element_is_queued_alone(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/jobs", Answer(200, [job(7, array_id=7, array_index=0), job(9, array_id=7, array_index=3)]))
    daemon.on("GET", "/jobs/names", Answer(200, [[7, 7, 0], [9, 7, 3]]))
    daemon.on("POST", "/jobs/9/again", Answer(201, [job(10, array_id=10, array_index=3)]))
    done = gpuq("submit", "--like", "7_3", "--json")
    assert done.code == 0, done.err
    [asked] = daemon.seen("POST", "/jobs/9/again")
    assert asked.body == {"array": "3"}


@pytest.mark.parametrize("option", ["--env-all", "--test-only"])
def test_what_makes_no_sense_with_it_is_refused(gpuq: Gpuq, taking: StubDaemon, option: str) -> None:
    done = gpuq("submit", "--like", "7", option)
    assert (done.code, taking.seen("POST", "/jobs/7/again")) == (2, [])
    assert option in done.err

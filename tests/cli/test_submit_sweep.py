"""`--sweep`: what is sent, and what a job of a sweep sees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from stub_daemon import Answer, Gpuq, StubDaemon, job


def test_what_was_written_is_sent_and_read_by_the_daemon(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("POST", "/jobs", Answer(201, [job(1, array_id=1, array_index=0), job(2, array_id=1, array_index=1)]))
    done = gpuq("submit", "--sweep", "lr=1e-3,1e-4", "--sweep", "seed=0..4", "--", "true", "{lr}")
    assert (done.code, done.out) == (0, "2 jobs: 1-2\n")
    [asked] = daemon.seen("POST", "/jobs")
    body: dict[str, Any] = asked.body
    assert (body["sweep"], body["command"]) == ({"lr": "1e-3,1e-4", "seed": "0..4"}, ["true", "{lr}"])
    assert "name" not in body


@pytest.mark.parametrize(
    ("words", "says"), [(["lr"], "is not NAME=VALUES"), (["a=1", "--sweep", "a=2"], "given twice")]
)
def test_bad_sweep_gets_one_clear_line(gpuq: Gpuq, daemon: StubDaemon, words: list[str], says: str) -> None:
    done = gpuq("submit", "--sweep", *words, "true")
    assert (done.code, daemon.asked) == (2, [])
    assert says in done.err
    assert len(done.err.splitlines()) == 2


@pytest.mark.redis
def test_every_job_of_a_sweep_sees_its_own_values(gpuq: Gpuq, redis_server_path: object) -> None:
    gpuq.env |= {"GPUQ_GPUS": "sim:2", "GPUQ_KILL_GRACE": "2"}
    assert gpuq("up", "--detach").code == 0
    try:
        script = '#GPUQ -g 0 --sweep lr=a,b\necho "$1 $GPUQ_PARAM_lr ${GPUQ_PARAM_old-none}"\n'
        (gpuq.work / "train.sh").write_text(script)
        done = gpuq("submit", "train.sh", "--rate={lr}", GPUQ_PARAM_old="x")
        assert (done.code, done.out) == (0, "2 jobs: 1-2\n"), done.err
        assert gpuq("wait", "1").code == 0
        assert [gpuq("logs", number).out for number in ("1_0", "1_1")] == ["--rate=a a none\n", "--rate=b b none\n"]
        assert "Parameters  lr=b\n" in gpuq("show", "2").out
        names = {found["name"] for found in json.loads(gpuq("history", "--json").out)}
        assert names == {"train.sh lr=a", "train.sh lr=b"}
        asked = gpuq("sql", "select value from job_parameters where name = 'lr' order by job_id", "--csv")
        assert asked.out == "value\na\nb\n"
        assert gpuq("submit", "--like", "1_1", "--wait").code == 0
        assert gpuq("logs", "3").out == "--rate=b b none\n"
        refused = gpuq("submit", "--sweep", "a=3..1", "true")
        assert (refused.code, len(refused.err.splitlines())) == (2, 1)
        assert refused.err.startswith("gpuq: --sweep: ")
    finally:
        gpuq("down", "--stop-jobs")

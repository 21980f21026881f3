"""`gpuq logs` of several jobs, attempts and arrays; and arrays where commands act on jobs."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from stub_daemon import Answer, Asked, Gpuq, StubDaemon, failure, job


class Logs:
    """Jobs with the output of each of their attempts, all of them ended; `9` is an array with elements 0 and 1."""

    def __init__(self, daemon: StubDaemon) -> None:
        self.output: dict[int, list[bytes]] = {7: [b"one\n", b"loss 1\nloss 2\nend"], 9: [b"a\n"], 10: [b"b\n"], 11: []}
        arrays = {9: (9, 0), 10: (9, 1)}
        self.jobs = {
            number: job(
                number, state="failed", attempt=len(self.output[number]), outcome="exit_nonzero", exit_code=number % 4,
                finished_at="2026-11-22T10:00:09.000Z", array_id=arrays.get(number, (None, None))[0],
                array_index=arrays.get(number, (None, None))[1],
            )
            for number in self.output
        }  # fmt: skip
        for number in self.output:
            daemon.on("GET", f"/jobs/{number}/log", lambda asked, number=number: self.log(asked, number))
            daemon.on("GET", f"/jobs/{number}/why", Answer(200, {"state": "failed", "reason": None}))
            daemon.on("GET", f"/jobs/{number}", lambda asked, number=number: self.job(number))
        daemon.on("GET", "/jobs/ids", self.names)
        daemon.on("GET", "/jobs", Answer(200, list(self.jobs.values())))

    def names(self, asked: Asked) -> Answer:
        arrays, ids = asked.query.get("array_ids"), asked.query.get("ids")
        states = asked.query.get("state", "failed").split(",")
        found = [
            [one["id"], one["array_id"], one["array_index"]]
            for one in self.jobs.values()
            if (arrays is None or str(one["array_id"]) in arrays.split(","))
            and (ids is None or str(one["id"]) in ids.split(","))
            and one["state"] in states
        ]
        return Answer(200, found)

    def job(self, number: int) -> Answer:
        attempts = [
            {
                "number": at, "outcome": "exit_nonzero", "exit_code": 3, "signal": None, "error": None,
                "node": "box", "gpu_indices": [], "pid": 1, "peak_gpu_mem_mb": None,
                "started_at": "2026-11-22T10:00:00.000Z", "finished_at": "2026-11-22T10:00:09.000Z",
            }
            for at in range(1, len(self.output[number]) + 1)
        ]  # fmt: skip
        return Answer(200, {**self.jobs[number], "attempts": attempts, "events": []})

    def log(self, asked: Asked, number: int) -> Answer:
        attempts = self.output[number]
        at = int(asked.query.get("attempt", len(attempts)))
        data = attempts[at - 1] if attempts else b""
        start = int(asked.query["offset"])
        piece = data[start : start + int(asked.query["limit"])]
        place = {"X-Next-Offset": str(start + len(piece)), "X-Size": str(len(data))}
        return Answer(200, piece, {**place, "X-Attempt": str(at), "X-Final": "1"})


@pytest.fixture
def logs(daemon: StubDaemon) -> Logs:
    return Logs(daemon)


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("9",), "9_0 | a\n9_1 | b\n"),
        (("9_1",), "b\n"),
        (("9_[0-1]",), "9_0 | a\n9_1 | b\n"),
        (("7", "10"), "7   | loss 1\n7   | loss 2\n7   | end\n9_1 | b\n"),
        (("7", "9", "-n", "1"), "7   | end\n9_0 | a\n9_1 | b\n"),
        (("7", "--grep", "loss"), "loss 1\nloss 2\n"),
        (("7", "--grep", "LOSS"), ""),
        (("7", "--grep", "loss", "-n", "1"), "loss 2\n"),
        (
            ("7", "--all-attempts", "-n", "1"),
            "==> job 7, attempt 1, started 2026-11-22 10:00:00, ran 9s, exit 3 <==\none\n"
            "==> job 7, attempt 2, started 2026-11-22 10:00:00, ran 9s, exit 3 <==\nend",
        ),
    ],
)
def test_each_line_stands_with_what_it_is_of(gpuq: Gpuq, words: tuple[str, ...], shown: str) -> None:
    done = gpuq("logs", *words)
    assert (done.code, done.out, done.err) == (0, shown, "")


def test_several_jobs_are_followed_to_their_ends(gpuq: Gpuq, logs: Logs) -> None:
    done = gpuq("logs", "7", "9", "-f", "--grep", "a|b|2")
    assert sorted(done.out.splitlines()) == ["7   | loss 2", "9_0 | a", "9_1 | b"]
    # The largest of their exit codes, as of `wait`.
    assert done.code == 3
    assert gpuq("logs", "7", "-f", "-n", "1", "--grep", "loss").out == "loss 2\n"


def test_a_job_without_output_keeps_no_other_back(gpuq: Gpuq, logs: Logs, daemon: StubDaemon) -> None:
    gone = failure("not_found", "the output of job 10 was removed", "see `gpuq show 10`")
    daemon.on("GET", "/jobs/10/log", Answer(404, gone))
    done = gpuq("logs", "10", "9_0", "11")
    assert (done.code, done.out) == (3, "9_0 | a\n")
    assert "was removed" in done.err


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("7", "--attempt", "1", "--all-attempts"), "cannot go together"),
        (("7", "--grep", "("), "--grep: "),
        (("9_[5-6]",), "there is no job 9_[5-6]"),
        (("9_[",), "is not a job id"),
        (("7", "9", "-f", "--all-attempts"), "follows one job"),
    ],
)
def test_what_cannot_be_meant_is_refused(gpuq: Gpuq, words: tuple[str, ...], said: str) -> None:
    done = gpuq("logs", *words)
    assert (done.code in {2, 3}, done.out) == (True, "")
    assert said in done.err


def in_a_window(gpuq: Gpuq, *words: str) -> bytes:
    """What a command writes to a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "gpuq.cli", *words], env=gpuq.env, cwd=gpuq.work, stdin=subprocess.DEVNULL,
        stdout=slave, stderr=slave,
    ) as writer:  # fmt: skip
        os.close(slave)
        said = b""
        try:
            while piece := os.read(master, 65536):
                said += piece
        except OSError:
            pass
        assert writer.wait(30) == 0
    os.close(master)
    return said.replace(b"\r\n", b"\n")


def test_a_terminal_shows_the_last_state_of_a_progress_bar_and_a_pipe_gets_all(gpuq: Gpuq, logs: Logs) -> None:
    bar = b"begin\n" + b"".join(b"\r%3d%%" % number for number in range(101)) + b"\nend\n"
    logs.output[7] = [bar]
    logs.jobs[7].update(attempt=1, state="completed", outcome="succeeded", exit_code=0)
    assert in_a_window(gpuq, "logs", "7") == b"begin\n100%\nend\n"
    assert in_a_window(gpuq, "logs", "7", "-n", "2") == b"100%\nend\n"
    assert in_a_window(gpuq, "logs", "7", "--raw") == bar
    # Live it makes of it what it does.
    assert in_a_window(gpuq, "logs", "7", "-f") == bar
    assert gpuq.popen("logs", "7").communicate(timeout=30)[0] == bar
    assert gpuq("logs", "7", "9_0").out.startswith("7   | begin\n7   | 100%\n7   | end\n9_0 | ")


def test_what_acts_on_an_array_acts_on_those_elements_that_it_can(gpuq: Gpuq, logs: Logs, daemon: StubDaemon) -> None:
    logs.jobs[9]["state"] = "completed"
    again: dict[str, Any] = job(10, position=1)
    daemon.on("POST", "/jobs/10/retry", Answer(200, again))
    daemon.on("POST", "/jobs/9/retry", Answer(409, failure("wrong_state", "job 9 is completed")))
    for name in ("9", "9_[0-1]"):
        done = gpuq("retry", name)
        assert (done.code, done.out) == (0, "job 10 (train) is queued, position 1\n")
    # Of none that it can act on, the daemon says what is wrong.
    logs.jobs[10]["state"] = "completed"
    done = gpuq("retry", "9")
    assert (done.code, done.out) == (4, "")
    assert "job 9 is completed" in done.err


def test_show_tells_of_an_array_and_of_its_elements(gpuq: Gpuq, logs: Logs) -> None:
    shown = gpuq("show", "9")
    assert (shown.code, shown.err) == (0, "")
    assert "Array      9  train, 2 jobs: 9_[0-" in shown.out
    assert "States     2 failed" in shown.out
    one = gpuq("show", "9_1").out
    assert one.startswith("Job ")
    assert gpuq("show", "7", "9_1").out.count("\n\nJob ") == 1
    for words, kind in (("9", "{"), ("9_1", "{"), ("9_[0-1]", "["), ("7,10", "[")):
        assert gpuq("show", words, "--json").out[0] == kind

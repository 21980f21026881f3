"""run, wait, logs: what follows jobs to their end."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from typing import Any

import pytest
from stub_daemon import Answer, Asked, Gpuq, StubDaemon, failure, job


class Run:
    """One job's life, moved along by the test: `output` grows, `end` makes it final."""

    def __init__(self, daemon: StubDaemon) -> None:
        self.attempts: list[bytes] = [b""]
        self.job: dict[str, Any] = job(7, state="running", attempt=1)
        self.cancels: list[dict[str, str]] = []
        self.polled = threading.Event()
        self.cancelled = threading.Event()
        daemon.on("GET", "/healthz", Answer(200, {"status": "ok"}))
        daemon.on("POST", "/jobs", lambda asked: Answer(201, self.job))
        daemon.on("GET", "/jobs/7", lambda asked: Answer(200, {**self.job, "attempts": [], "events": []}))
        daemon.on("GET", "/jobs", lambda asked: Answer(200, [self.job] if asked.query.get("ids") == "7" else []))
        daemon.on("GET", "/jobs/7/log", self.log)
        daemon.on("GET", "/jobs/7/why", lambda asked: Answer(200, {"state": self.job["state"], "reason": None}))
        daemon.on("DELETE", "/jobs/7", self.cancel)

    def log(self, asked: Asked) -> Answer:
        number = int(asked.query.get("attempt", self.job["attempt"]))
        ended = self.job["finished_at"] is not None or number < self.job["attempt"]
        data = self.attempts[number - 1]
        offset, limit = int(asked.query["offset"]), int(asked.query["limit"])
        start = max(0, len(data) + offset) if offset < 0 else offset
        piece = data[start : start + limit]
        headers = {
            "X-Next-Offset": str(start + len(piece)),
            "X-Size": str(len(data)),
            "X-Attempt": str(number),
            "X-Final": "1" if ended else "0",
        }
        self.polled.set()
        return Answer(200, piece, headers)

    def cancel(self, asked: Asked) -> Answer:
        self.cancels.append(asked.query)
        if "force" in asked.query:
            self.end("cancelled", "cancelled")
        self.cancelled.set()
        return Answer(200, self.job)

    def end(self, state: str, outcome: str, **more: Any) -> None:
        self.job = {**self.job, "state": state, "outcome": outcome, "finished_at": "2026-11-22T10:00:09.000Z", **more}


@pytest.fixture
def running(daemon: StubDaemon) -> Run:
    return Run(daemon)


ENDS = {
    "success": (("completed", "succeeded", {"exit_code": 0}), 0),
    "its own code": (("failed", "exit_nonzero", {"exit_code": 7}), 7),
    "a signal": (("failed", "signal", {"signal": 9}), 137),
    "time limit": (("failed", "time_limit", {}), 124),
    "cancelled": (("cancelled", "cancelled", {}), 125),
    "never ran": (("failed", "launch_error", {"error": "no such directory"}), 125),
    "lost": (("failed", "lost", {}), 1),
    "out of memory": (("failed", "gpu_oom", {"exit_code": 1}), 1),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS.keys())
def test_run_shows_the_output_and_ends_as_the_job_did(gpuq: Gpuq, running: Run, end: Any, code: int) -> None:
    state, outcome, more = end
    running.attempts = [b"hello\n\xff\n"]
    running.end(state, outcome, **more)
    process = gpuq.popen("run", "true")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, b"hello\n\xff\n")
    assert b"Traceback" not in err


def test_run_shows_every_attempt(gpuq: Gpuq, running: Run) -> None:
    running.attempts = [b"first\n", b"second\n"]
    running.end("completed", "succeeded", exit_code=0, attempt=2)

    # The job was on its first attempt when it was queued.
    started = {**running.job, "attempt": 1, "state": "running", "finished_at": None}
    running_answer = Answer(201, started)
    process = _run_with(gpuq, running, running_answer)
    out, err = process.communicate(timeout=30)
    assert out == b"first\nsecond\n"
    assert b"attempt 2" in err


def _run_with(gpuq: Gpuq, running: Run, answer: Answer) -> subprocess.Popen[bytes]:
    before = running.job
    running.job = answer.body
    process = gpuq.popen("run", "true")
    assert running.polled.wait(30)
    running.job = before
    return process


def test_first_interrupt_cancels_and_the_second_kills(gpuq: Gpuq, running: Run) -> None:
    running.attempts = [b"working\n"]
    process = gpuq.popen("run", "true")
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    process.send_signal(signal.SIGINT)
    assert running.cancelled.wait(30)
    assert "force" not in running.cancels[0]
    running.attempts = [b"working\ncleaning up\n"]
    assert process.stdout.readline() == b"cleaning up\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert [query.get("force") for query in running.cancels] == [None, "true"]
    assert process.returncode == 130
    assert b"Ctrl-C again kills it" in err
    assert b"Traceback" not in err


def test_job_that_ends_well_in_spite_of_an_interrupt_is_a_success(gpuq: Gpuq, running: Run) -> None:
    running.attempts = [b"working\n"]
    process = gpuq.popen("run", "true")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert running.cancelled.wait(30)
    running.end("completed", "succeeded", exit_code=0)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_run_without_a_daemon_queues_nothing(gpuq: Gpuq) -> None:
    done = gpuq("run", "true")
    assert (done.code, done.out) == (5, "")
    assert "gpuq up" in done.err
    assert not (gpuq.home / "gpuq.db").exists()


def test_submit_and_wait_ends_as_the_job_did(gpuq: Gpuq, running: Run) -> None:
    running.end("failed", "exit_nonzero", exit_code=5)
    done = gpuq("submit", "--wait", "--parsable", "true")
    assert (done.code, done.out) == (5, "7\n")
    assert "exit 5" in done.err


def test_wait_ends_with_the_largest_code(gpuq: Gpuq, daemon: StubDaemon) -> None:
    final = {"finished_at": "2026-11-22T10:00:09.000Z"}
    jobs = [
        job(7, state="failed", outcome="exit_nonzero", exit_code=3, **final),
        job(8, state="failed", outcome="signal", signal=15, **final),
        job(9, state="completed", outcome="succeeded", exit_code=0, **final),
    ]
    daemon.on("GET", "/jobs", Answer(200, jobs))
    done = gpuq("wait", "7", "8", "9", "--json")
    assert done.code == 143
    assert [found["id"] for found in json.loads(done.out)] == [7, 8, 9]


def test_wait_gives_up_after_its_time(gpuq: Gpuq, running: Run) -> None:
    done = gpuq("wait", "7", "--timeout", "0.05")
    assert done.code == 124
    assert "not final" in done.err


def test_wait_for_a_job_that_does_not_exist_is_exit_3(gpuq: Gpuq, running: Run) -> None:
    assert gpuq("wait", "12").code == 3


@pytest.mark.parametrize(
    ("lines", "shown"),
    [("1", "three\n"), ("2", "two\nthree\n"), ("3", "one\ntwo\nthree\n"), ("99", "one\ntwo\nthree\n"), ("0", "")],
)
def test_last_lines_of_the_output(gpuq: Gpuq, running: Run, lines: str, shown: str) -> None:
    running.attempts = [b"one\ntwo\nthree\n"]
    running.end("completed", "succeeded", exit_code=0)
    assert gpuq("logs", "7", "-n", lines).out == shown


def test_last_lines_of_a_long_output_are_found_from_its_end(gpuq: Gpuq, running: Run) -> None:
    running.attempts = [b"".join(b"%07d\n" % number for number in range(200_000))]
    running.end("completed", "succeeded", exit_code=0)
    assert gpuq("logs", "7", "-n", "2000").out.splitlines() == [f"{number:07}" for number in range(198_000, 200_000)]
    asked = running.attempts[0]
    assert len(asked) > 1 << 20


def test_whole_output_comes_in_pieces(gpuq: Gpuq, running: Run) -> None:
    running.attempts = [b"x" * (3 << 20)]
    running.end("completed", "succeeded", exit_code=0)
    assert len(gpuq("logs", "7").out) == 3 << 20


def test_output_of_an_earlier_attempt(gpuq: Gpuq, running: Run) -> None:
    running.attempts = [b"first\n", b"second\n"]
    running.end("failed", "exit_nonzero", exit_code=4, attempt=2)
    assert gpuq("logs", "7", "--attempt", "1").out == "first\n"
    assert gpuq("logs", "7").out == "second\n"


def test_followed_output_ends_with_the_jobs_code(gpuq: Gpuq, running: Run) -> None:
    running.attempts = [b"one\n"]
    process = gpuq.popen("logs", "7", "-f")
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    running.attempts = [b"one\ntwo\n"]
    assert process.stdout.readline() == b"two\n"
    running.end("failed", "exit_nonzero", exit_code=4)
    process.communicate(timeout=30)
    assert process.returncode == 4


def test_cancel_goes_on_after_a_job_that_cannot_be(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("DELETE", "/jobs/7", Answer(409, failure("wrong_state", "job 7 is already completed")))
    daemon.on("DELETE", "/jobs/8", Answer(403, failure("forbidden", "job 8 belongs to bob")))
    daemon.on("DELETE", "/jobs/9", Answer(200, job(9, state="cancelled")))
    done = gpuq("cancel", "7,8", "9", "--grace", "5m", "--reason", "wrong data")
    assert (done.code, done.out) == (4, "job 9 (train) is cancelled\n")
    assert "job 7 is already completed" in done.err
    assert daemon.seen("DELETE", "/jobs/9")[0].query == {"grace_s": "300.0", "reason": "wrong data"}


def test_cancel_that_was_lost_is_not_sent_again(gpuq: Gpuq, daemon: StubDaemon) -> None:
    # A second cancel would kill at once.
    daemon.on("DELETE", "/jobs/7", Answer(200, job(7, state="stopping")))
    daemon.drop = 1
    done = gpuq("cancel", "7")
    assert done.code == 5
    assert len(daemon.seen("DELETE", "/jobs/7")) == 1


def test_range_means_those_in_it_that_can_be_acted_on(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/jobs", Answer(200, [job(300), job(305), job(500)]))
    for number in (300, 305):
        daemon.on("POST", f"/jobs/{number}/hold", Answer(200, job(number, state="held")))
    done = gpuq("hold", "300-440")
    assert done.out.splitlines() == ["job 300 (train) is held", "job 305 (train) is held"]
    assert daemon.seen("GET", "/jobs")[0].query["state"] == "blocked,delayed,queued"


def test_array_element_is_found_by_its_index(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/jobs", Answer(200, [job(10, array_id=10, array_index=0), job(11, array_id=10, array_index=3)]))
    daemon.on("POST", "/jobs/11/top", Answer(200, job(11, position=1)))
    assert gpuq("top", "10_3").out == "job 11 (train) is queued, position 1\n"
    assert gpuq("top", "10_4").code == 3


def test_update_sends_what_changes_and_nothing_else(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("PATCH", "/jobs/7", Answer(200, job(7)))
    assert gpuq("update", "7", "--priority", "0", "--time", "2h", "-n", "new").code == 0
    assert daemon.seen("PATCH", "/jobs/7")[0].body == {"priority": 0, "time_limit_s": 7200.0, "name": "new"}


@pytest.mark.parametrize(
    ("text", "sent"),
    [("+2h", {"time_add_s": 7200.0}), ("-30m", {"time_add_s": -1800.0}), ("4h", {"time_limit_s": 14400.0})],
)
def test_update_gives_a_running_job_more_or_less_time_and_says_how_much_it_has(
    gpuq: Gpuq, daemon: StubDaemon, text: str, sent: dict[str, float]
) -> None:
    daemon.on("PATCH", "/jobs/7", Answer(200, job(7, state="running", time_limit_s=14400.0)))
    for option in (("-t", text), (f"-t{text}",), (f"--time={text}",)):
        done = gpuq("update", "7", *option)
        assert (done.code, done.err) == (0, "gpuq: job 7 has a time limit of 4h00m now\n")
    assert [asked.body for asked in daemon.seen("PATCH", "/jobs/7")] == [sent] * 3
    done = gpuq("update", "7", "-p", "high")
    assert done.err == "gpuq: job 7 runs already: its priority counts for its next attempt\n"


def test_a_range_means_running_jobs_too_where_they_can_be_changed_and_all_means_those_that_wait(
    gpuq: Gpuq, daemon: StubDaemon
) -> None:
    daemon.on("GET", "/jobs/ids", Answer(200, []))
    for words in ("7-9 -t +1h", "7-9 -g 1", "all -y -t 1h"):
        gpuq("update", *words.split())
    waiting = "blocked,held,delayed,queued"
    asked = [one.query["state"] for one in daemon.seen("GET", "/jobs/ids")]
    assert asked == [f"{waiting},starting,running", waiting, waiting]


def test_an_arrays_id_means_all_its_elements(gpuq: Gpuq, daemon: StubDaemon) -> None:
    elements = [[7, 7, 0], [8, 7, 1]]
    daemon.on("GET", "/jobs/ids", lambda asked: Answer(200, elements if asked.query.get("array_ids") == "7" else []))
    for number in (7, 8):
        daemon.on("POST", f"/jobs/{number}/hold", Answer(200, job(number, state="held")))
    assert gpuq("hold", "7").out == "2 jobs held\n"
    assert gpuq("hold", "7,8").out.splitlines() == ["job 7 (train) is held", "job 8 (train) is held"]


def test_many_jobs_are_released_in_few_requests_and_told_in_one_line(gpuq: Gpuq, daemon: StubDaemon) -> None:
    ids = list(range(1, 12_001))
    daemon.on("GET", "/jobs/ids", Answer(200, [[job_id, None, None] for job_id in ids]))
    refused = {"code": "not_found", "message": "there is no job 7", "hint": "look"}

    def release(asked: Asked) -> Answer:
        return Answer(
            200, [{"id": n, "error": refused} if n == 7 else {"id": n, "state": "queued"} for n in asked.body["ids"]]
        )

    daemon.on("POST", "/jobs/release", release)
    done = gpuq("release", "--group", "mid", "--state", "held", "-y")
    assert (done.code, done.out) == (3, "11,999 jobs released\n")
    assert done.err.splitlines() == ["gpuq: there is no job 7", "hint: look"]
    asked = daemon.seen("POST", "/jobs/release")
    assert [len(one.body["ids"]) for one in asked] == [10_000, 2_000]
    assert [job_id for one in asked for job_id in one.body["ids"]] == ids


def test_many_jobs_as_json_are_the_jobs_as_they_are_then(gpuq: Gpuq, daemon: StubDaemon) -> None:
    def jobs(asked: Asked) -> Answer:
        if "ids" in asked.query:
            return Answer(200, [job(int(n), state="held") for n in asked.query["ids"].split(",")])
        return Answer(200, [job(n) for n in range(1, 21)])

    daemon.on("GET", "/jobs", jobs)
    daemon.on("POST", "/jobs/hold", lambda asked: Answer(200, [{"id": n, "state": "held"} for n in asked.body["ids"]]))
    shown = json.loads(gpuq("hold", "all", "-y", "--json").out)
    assert [(one["id"], one["state"]) for one in shown] == [(n, "held") for n in range(1, 21)]


def test_many_jobs_are_cancelled_in_one_request_and_refusals_are_summed_up(gpuq: Gpuq, daemon: StubDaemon) -> None:
    ids = list(range(1, 2_001))
    daemon.on("GET", "/jobs/ids", Answer(200, [[job_id, None, None] for job_id in ids]))
    forbidden = {"code": "forbidden", "message": "job 7 belongs to bob", "hint": None}

    def cancel(asked: Asked) -> Answer:
        others = [{"id": n, "error": forbidden} for n in asked.body["ids"][:30]]
        own = [{"id": n, "state": "stopping" if n < 33 else "cancelled"} for n in asked.body["ids"][30:]]
        return Answer(200, [*others, *own])

    daemon.on("POST", "/jobs/cancel", cancel)
    done = gpuq("cancel", "1-2000", "--grace", "5m", "--reason", "wrong data")
    assert (done.code, done.out) == (4, "1,968 jobs cancelled, 2 are being stopped\n")
    told = done.err.splitlines()
    assert told == ["gpuq: job 7 belongs to bob"]
    [asked] = daemon.seen("POST", "/jobs/cancel")
    assert asked.body == {"ids": ids, "grace_s": 300.0, "reason": "wrong data"}


def test_many_jobs_written_out_are_one_request_and_few_questions(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/jobs/ids", Answer(200, []))

    def update(asked: Asked) -> Answer:
        return Answer(200, [{"id": n, "state": "held"} for n in asked.body["ids"]])

    daemon.on("POST", "/jobs/update", update)
    done = gpuq("update", ",".join(map(str, range(1, 2_501))), "--priority", "low")
    assert (done.code, done.out) == (0, "2,500 jobs changed\n")
    [asked] = daemon.seen("POST", "/jobs/update")
    assert (len(asked.body["ids"]), asked.body["changes"]) == (2_500, {"priority": "low"})
    assert len(daemon.seen("GET", "/jobs/ids")) == 3


def test_a_daemon_of_an_earlier_release_is_asked_for_one_job_after_the_other(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/jobs", Answer(200, [job(n) for n in range(1, 13)]))
    daemon.on("POST", "/jobs/cancel", Answer(405, failure("malformed", "Method Not Allowed")))
    for number in range(1, 13):
        daemon.on("DELETE", f"/jobs/{number}", Answer(200, job(number, state="cancelled")))
    done = gpuq("cancel", "1-12")
    assert (done.code, len(done.out.splitlines())) == (0, 12)

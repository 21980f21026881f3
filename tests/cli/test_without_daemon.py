"""No daemon: commands work straight on the real database of the home."""

from __future__ import annotations

import json
import shlex

import pytest
from stub_daemon import Gpuq

from gpuq.cli.connect import NOTICE


@pytest.fixture
def simulated(gpuq: Gpuq) -> Gpuq:
    gpuq.env["GPUQ_GPUS"] = "sim:2"
    return gpuq


def test_a_job_is_queued_held_released_changed_and_cancelled(simulated: Gpuq) -> None:
    done = simulated("submit", "--parsable", "-g", "2", "true")
    assert (done.code, done.out, done.err) == (0, "1\n", NOTICE + "\n")
    assert "NoAgent" in simulated("why", "1").out
    assert simulated("hold", "1").out.startswith("job 1 (true) is held")
    assert simulated("release", "last").out.startswith("job 1 (true) is queued, position 1")
    assert simulated("update", "1", "-p", "high").code == 0
    [listed] = json.loads(simulated("status", "--json").out)
    assert (listed["state"], listed["priority"]) == ("queued", "high")
    assert simulated("cancel", "1", "--reason", "no more").out == "job 1 (true) is cancelled\n"
    shown = json.loads(simulated("show", "1", "--json").out)
    assert [event["to_state"] for event in shown["events"]][-1] == "cancelled"
    assert simulated("history").out.splitlines()[1].split()[:2] == ["1", "cancelled"]
    assert simulated("wait", "1").code == 125


def test_an_array_and_a_range_are_done_at_once(simulated: Gpuq) -> None:
    assert simulated("submit", "--parsable", "--array", "0-11%2", "true").out == "1\n"
    assert simulated("submit", "--parsable", "--array", "0-11", "true").out == "13\n"
    assert simulated("hold", "1").out == "12 jobs held\n"
    assert simulated("update", "1-24", "-p", "low").out == "24 jobs changed\n"
    assert simulated("release", "all", "-y").out == "12 jobs released\n"
    assert simulated("cancel", "1", "13_3", "15-30").out == "22 jobs cancelled\n"
    done = simulated("cancel", "1", "99")
    # Of an array that has ended the first element says so for all.
    assert (done.code, done.out) == (4, "")
    assert done.err.splitlines()[-4::2] == ["gpuq: job 1 is already cancelled", "gpuq: there is no job 99"]
    for line, code, told in (
        (
            "cancel 1-12",
            4,
            "cancel: of jobs 1-12 none is blocked, held, delayed, queued, starting, running or stopping ",
        ),
        ("release 1-12", 4, "release: of jobs 1-12 none is held (12 cancelled)"),
        ("cancel 4500-5001", 3, "there are no jobs 4500-5001"),
    ):
        done = simulated(*line.split())
        assert (done.code, done.out) == (code, ""), line
        assert told in done.err
    assert simulated("release", "all", "-y").out == "nothing to release: no such job is held\n"
    assert simulated("retry", "all", "-y").out == "22 jobs queued again\n"
    assert len(json.loads(simulated("status", "--json").out)) == 24


def test_waiting_for_what_nobody_will_end_is_exit_5(simulated: Gpuq) -> None:
    simulated("submit", "true")
    assert simulated("wait", "1").code == 5
    assert simulated("logs", "1", "-f").code == 5


def test_output_of_a_job_that_has_not_run_is_empty(simulated: Gpuq) -> None:
    simulated("submit", "true")
    done = simulated("logs", "1")
    assert (done.code, done.out) == (0, "")
    assert "has not run yet" in done.err


def test_more_gpus_than_there_are_is_refused_and_leaves_no_row(simulated: Gpuq) -> None:
    done = simulated("submit", "-g", "3", "true")
    assert done.code == 4
    assert "this machine has 2" in done.err
    assert json.loads(simulated("status", "--json").out) == []


def test_gpu_that_is_not_there_is_named(simulated: Gpuq) -> None:
    done = simulated("submit", "--gpu-ids", "0,9", "-g", "2", "true")
    assert done.code == 4
    assert "asks for 2 GPUs; this machine has 2, 1 of them as asked for; there is no GPU 9" in done.err
    assert "asks for 1 GPU; " in simulated("submit", "--gpu-ids", "9", "true").err


def test_misspelt_question_is_a_syntax_error_and_a_change_is_refused(simulated: Gpuq) -> None:
    simulated("submit", "true")
    misspelt = simulated("sql", "selec")
    assert (misspelt.code, "syntax error" in misspelt.err) == (2, True)
    assert simulated("sql", "delete from jobs").code == 4


def test_the_id_printed_for_an_array_stands_for_all_of_it(simulated: Gpuq) -> None:
    array_id = simulated("submit", "--array", "0-3", "--parsable", "true").out.strip()
    assert simulated("submit", "--after", array_id, "--parsable", "true").out == "5\n"
    assert json.loads(simulated("show", "5", "--json").out)["after"] == [1, 2, 3, 4]


def test_a_file_of_jobs_is_all_or_none(simulated: Gpuq) -> None:
    (simulated.work / "jobs.jsonl").write_text('{"command": ["true"]}\n{"command": ["true"], "gpuz": 1}\n')
    done = simulated("submit", "--from-file", "jobs.jsonl")
    assert done.code == 2
    assert "jobs.jsonl line 2: unknown field 'gpuz'" in done.err
    assert json.loads(simulated("status", "--json").out) == []


def test_home_of_an_unusable_kind_is_told_in_one_line(simulated: Gpuq) -> None:
    (simulated.home / "file").write_text("")
    done = simulated("submit", "true", GPUQ_HOME=str(simulated.home / "file"))
    assert done.code == 2
    assert "Traceback" not in done.err


def test_doctor_says_what_is_missing(simulated: Gpuq) -> None:
    done = simulated("doctor", "--json")
    found = {finding["check"]: finding for finding in json.loads(done.out)}
    assert done.code == 1
    assert found["daemon"]["status"] == "fail"
    assert "gpuq up" in found["daemon"]["hint"]
    assert found["gpus"]["status"] == "ok"


def test_doctor_says_one_thing_of_a_database_that_was_emptied(simulated: Gpuq) -> None:
    assert simulated("submit", "-g", "0", "true").code == 0
    for path in simulated.home.glob("gpuq.db*"):
        path.unlink()
    findings = json.loads(simulated("doctor", "--json").out)
    assert [found["status"] for found in findings if found["check"] == "database"] == ["fail"]


NONSENSE = {
    "cancel 99999999999999999999": "no job has an id of that many digits",
    "status 1_99999999999999999999": "no job has an id of that many digits",
    "show ''": "'' names no job",
    "submit --after '' true": "--after: no job is named",
    "submit --after-any , true": "--after-any: no job is named",
    "submit --gpu-ids '' true": "--gpu-ids: no number is given",
    "gpus drain 0-99999": "at most 1024 at once",
    "gpus drain 3-1": "write the lower index first",
    "sql ''": "see `gpuq sql --help`",
    "token create ''": "see `gpuq token create --help`",
    "simulate nofile.csv": "cannot read the trace nofile.csv: No such file or directory",
}


def test_nonsense_is_refused_with_what_is_wrong_and_what_to_do(simulated: Gpuq) -> None:
    for line, told in NONSENSE.items():
        done = simulated(*shlex.split(line))
        assert (done.code, done.out) == (2, ""), line
        assert told in done.err, line
        assert "openapi" not in done.err, line
    assert json.loads(simulated("status", "--json").out) == []


def test_doctor_sends_nobody_to_start_a_daemon_of_another_home(simulated: Gpuq) -> None:
    """It would be another queue on the same GPUs."""
    done = simulated("doctor", "--json", GPUQ_SERVER="http://127.0.0.1:9")
    found = {finding["check"]: finding for finding in json.loads(done.out)}
    assert "GPUQ_SERVER right" in found["daemon"]["hint"]


def test_database_is_copied_and_put_back(simulated: Gpuq) -> None:
    simulated("submit", "true")
    copy = str(simulated.home / "copy.db")
    assert simulated("db", "backup", copy).code == 0
    assert simulated("db", "backup", copy).code == 4
    simulated("submit", "true")
    unasked = simulated("db", "restore", copy)
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    assert simulated("db", "restore", copy, "--yes").code == 0
    assert [job["id"] for job in json.loads(simulated("status", "--json").out)] == [1]
    assert simulated("db", "current").out.strip()


def test_down_with_no_daemon_has_nothing_to_do(gpuq: Gpuq) -> None:
    done = gpuq("down")
    assert (done.code, done.err) == (0, "gpuq: no daemon is running on this home\n")

"""The checker of the chaos runs finds what it is there to find: a good run passes, each planted violation does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checker import check
from evidence import Evidence, Kill, Line, Request, Submission, read_diary, read_rows

T = 1_000_000.0
GRACE_S = 1.0


def line(kind: str, at: float, *, job: int = 1, attempt: int = 1, gpus: tuple[int, ...] = (0,), code: int = 0) -> Line:
    return Line(kind, job, attempt, gpus, 4711, T + at, code)


def job(number: int, **fields: Any) -> dict[str, Any]:
    row = {
        "id": number,
        "name": f"chaos-{number}",
        "key": None,
        "state": "completed",
        "attempt": 1,
        "gpus": 1,
        "max_retries": 0,
        "time_limit_s": None,
        "preemptible": False,
    }
    return {**row, **fields}


def attempt(owner: int, number: int = 1, **fields: Any) -> dict[str, Any]:
    row = {
        "job_id": owner,
        "number": number,
        "gpu_indices": "[0]",
        "claimed_at": T - 1,
        "finished_at": T + 2,
        "outcome": "succeeded",
        "exit_code": 0,
        "signal": None,
    }
    return {**row, **fields}


def events(owner: int, *states: str) -> list[dict[str, Any]]:
    before = [None, *states]
    return [
        {"id": owner * 100 + place, "job_id": owner, "from_state": came, "to_state": to}
        for place, (came, to) in enumerate(zip(before, states, strict=False))
    ]


LIFE = ("queued", "starting", "running", "completed")


def good() -> Evidence:
    """One job that ran on GPU 0 and completed."""
    return Evidence(
        diary=[line("start", 0), line("beat", 1), line("end", 2)],
        submissions=[Submission("chaos-1", 1, (1,))],
        jobs=[job(1)],
        attempts=[attempt(1)],
        events=events(1, *LIFE),
    )


def with_a_second(evidence: Evidence, *, begins: float, gpu: int = 0, **fields: Any) -> Evidence:
    """Another job, three seconds long."""
    evidence.jobs.append(job(2))
    evidence.attempts.append(attempt(2, gpu_indices=f"[{gpu}]", claimed_at=T, finished_at=T + begins + 3, **fields))
    evidence.events.extend(events(2, *LIFE))
    evidence.diary.extend(line(k, begins + t, job=2, gpus=(gpu,)) for k, t in (("start", 0.0), ("end", 3.0)))
    return evidence


def failed_and_retried(first: dict[str, Any], *, code: int = 7) -> Evidence:
    """One job whose first attempt ended with `code` and whose second completed; `first`: the record of the first."""
    evidence = good()
    evidence.diary = [
        line("start", 0, code=code),
        line("end", 2, code=code),
        line("start", 4, attempt=2),
        line("end", 5, attempt=2),
    ]
    evidence.jobs = [job(1, attempt=2, max_retries=1)]
    evidence.attempts = [attempt(1, **first), attempt(1, 2, claimed_at=T + 3, finished_at=T + 5)]
    again = ("queued", "starting", "running", "delayed", "queued", "starting", "running", "completed")
    evidence.events = events(1, *again)
    return evidence


def promises(evidence: Evidence) -> set[str]:
    return {violation.promise for violation in check(evidence, grace_s=GRACE_S)}


def test_a_good_run_has_no_violation() -> None:
    assert check(good(), grace_s=GRACE_S) == []


def test_jobs_one_after_the_other_or_on_different_gpus_are_no_clash() -> None:
    assert promises(with_a_second(good(), begins=2.1)) == set()
    assert promises(with_a_second(good(), begins=1.0, gpu=1)) == set()


def test_a_retry_after_a_true_failure_is_no_violation() -> None:
    assert promises(failed_and_retried({"outcome": "exit_nonzero", "exit_code": 7})) == set()


# -- P1 ------------------------------------------------------------------------------------------------------------


def test_an_answered_job_that_is_not_there_is_found() -> None:
    evidence = good()
    evidence.submissions.append(Submission("chaos-2", 1, (2,)))
    assert promises(evidence) == {"P1"}


def test_a_job_that_is_not_final_is_found() -> None:
    evidence = good()
    evidence.diary, evidence.attempts = [], []
    evidence.jobs = [job(1, state="queued", attempt=0)]
    evidence.events = events(1, "queued")
    assert promises(evidence) == {"P1"}


def test_an_id_that_was_given_to_another_job_is_found() -> None:
    evidence = good()
    evidence.submissions = [Submission("something else", 1, (1,))]
    assert promises(evidence) == {"P1"}


@pytest.mark.parametrize("answered", [(1,), None])
def test_a_submission_that_was_stored_twice_is_found(answered: tuple[int, ...] | None) -> None:
    evidence = with_a_second(good(), begins=3)
    evidence.jobs[1]["name"] = "chaos-1"
    evidence.submissions = [Submission("chaos-1", 1, answered)]
    assert promises(evidence) == {"P1"}


def test_two_completed_jobs_under_one_key_are_found() -> None:
    evidence = with_a_second(good(), begins=3)
    for row in evidence.jobs:
        row["key"] = "k"
    assert promises(evidence) == {"P1"}


def test_a_key_answers_with_the_job_that_carries_it() -> None:
    evidence = good()
    evidence.jobs[0]["key"] = "k"
    evidence.submissions.append(Submission("chaos-9", 1, (1,), key="k"))
    assert promises(evidence) == set()


# -- P2 ------------------------------------------------------------------------------------------------------------


def test_an_attempt_that_started_twice_is_found() -> None:
    evidence = good()
    evidence.diary.insert(1, line("start", 0.5))
    assert promises(evidence) == {"P2"}


def test_a_run_while_an_earlier_one_lives_is_found_by_its_lock() -> None:
    evidence = good()
    evidence.diary.insert(1, line("clash:job-1", 0.1))
    assert promises(evidence) == {"P2"}


def test_a_run_without_a_record_is_found() -> None:
    evidence = good()
    evidence.diary.append(line("start", 9, attempt=2))
    assert "P2" in promises(evidence)


def test_a_gap_in_the_attempt_numbers_is_found() -> None:
    evidence = good()
    evidence.jobs[0]["attempt"] = 2
    assert promises(evidence) == {"P2"}


def test_an_earlier_number_after_a_later_one_is_found() -> None:
    evidence = failed_and_retried({"outcome": "exit_nonzero", "exit_code": 7})
    evidence.diary = [replace(one, at=one.at + (10 if one.attempt == 1 else 0)) for one in evidence.diary]
    evidence.attempts[0]["finished_at"] += 10
    assert "P2" in promises(evidence)


def test_a_job_that_ended_well_and_ran_again_is_found() -> None:
    evidence = failed_and_retried({"outcome": "lost", "exit_code": None}, code=0)
    assert promises(evidence) == {"P2", "P4"}


def test_a_job_whose_supervisor_was_killed_after_its_last_line_may_run_again() -> None:
    evidence = failed_and_retried({"outcome": "lost", "exit_code": None}, code=0)
    evidence.kills = [Kill("supervisor", (1, 1), T + 2)]
    assert promises(evidence) == set()


# -- P3 ------------------------------------------------------------------------------------------------------------


def test_two_jobs_on_one_gpu_are_found_by_their_times() -> None:
    assert promises(with_a_second(good(), begins=1.9)) == {"P3"}


def test_a_job_on_the_gpu_of_one_that_wrote_no_end_is_found() -> None:
    evidence = with_a_second(good(), begins=1.5)
    evidence.diary = [one for one in evidence.diary if one.job == 2 or one.kind == "start"]
    evidence.kills = [Kill("job", (1, 1), T + 1)]
    evidence.jobs[0].update(state="failed")
    evidence.attempts[0].update(outcome="signal", signal=9, exit_code=None)
    evidence.events = [*events(1, "queued", "starting", "running", "failed"), *events(2, *LIFE)]
    assert promises(evidence) == {"P3"}
    evidence.attempts[0]["finished_at"] = T + 1.2
    assert promises(evidence) == set()


def test_two_jobs_on_one_gpu_are_found_by_its_lock() -> None:
    evidence = good()
    evidence.diary.insert(1, line("clash:gpu-0", 0.1))
    assert promises(evidence) == {"P3"}


def test_a_job_that_sees_other_gpus_than_recorded_is_found() -> None:
    evidence = good()
    evidence.attempts[0]["gpu_indices"] = "[1]"
    assert promises(evidence) == {"P3"}


def test_a_job_with_fewer_gpus_than_it_asked_for_is_found() -> None:
    evidence = good()
    evidence.jobs[0]["gpus"] = 2
    assert promises(evidence) == {"P3"}


def test_a_lease_that_is_left_over_is_found() -> None:
    evidence = good()
    evidence.left_leases = ["gpuq:lease:chaos:0"]
    assert promises(evidence) == {"P3"}


# -- P4 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "recorded"),
    [
        (7, {"outcome": "exit_nonzero", "exit_code": 8}),
        (7, {"outcome": "lost", "exit_code": None}),
        (7, {"outcome": "cancelled", "exit_code": None}),
        (7, {"outcome": "time_limit", "exit_code": None}),
        (7, {"outcome": "preempted", "exit_code": None}),
        (-11, {"outcome": "signal", "exit_code": None, "signal": 6}),
        (-11, {"outcome": "exit_nonzero", "exit_code": 139}),
        (7, {"outcome": None, "exit_code": None}),
    ],
)
def test_an_outcome_other_than_the_true_one_is_found(code: int, recorded: dict[str, Any]) -> None:
    assert "P4" in promises(failed_and_retried(recorded, code=code))


@pytest.mark.parametrize("lines", [("start",), ()])
def test_a_success_of_a_run_that_wrote_no_end_is_found(lines: tuple[str, ...]) -> None:
    evidence = good()
    evidence.diary = [line(kind, 0) for kind in lines]
    assert promises(evidence) == {"P4"}


def test_a_loss_that_nobody_caused_is_found() -> None:
    evidence = failed_and_retried({"outcome": "lost", "exit_code": None})
    del evidence.diary[1]
    assert promises(evidence) == {"P4"}
    evidence.kills = [Kill("supervisor", (1, 1), T + 1)]
    assert promises(evidence) == set()


def test_a_job_that_failed_with_retries_left_is_found() -> None:
    evidence = good()
    evidence.diary = [replace(one, intended=7) for one in evidence.diary]
    evidence.jobs = [job(1, state="failed", max_retries=3)]
    evidence.attempts = [attempt(1, outcome="exit_nonzero", exit_code=7)]
    evidence.events = events(1, "queued", "starting", "running", "failed")
    assert promises(evidence) == {"P4"}
    evidence.jobs[0]["max_retries"] = 0
    assert promises(evidence) == set()


def test_a_failure_that_was_given_back_uses_no_retry() -> None:
    evidence = failed_and_retried({"outcome": "launch_error", "exit_code": None}, code=7)
    evidence.diary = [line("start", 4, attempt=2, code=7), line("end", 5, attempt=2, code=7)]
    evidence.jobs = [job(1, attempt=2, max_retries=0, state="failed")]
    evidence.attempts[1].update(outcome="exit_nonzero", exit_code=7)
    evidence.events = events(1, "queued", "starting", "queued", "starting", "running", "failed")
    for event, number in zip(evidence.events, (None, 1, 1, 2, 2, 2), strict=True):
        event["attempt"] = number
    assert promises(evidence) == set()
    evidence.events[2]["to_state"] = evidence.events[3]["from_state"] = "delayed"
    evidence.events.insert(3, {"id": 1025, "job_id": 1, "attempt": None, "from_state": "delayed", "to_state": "queued"})
    evidence.events[4]["from_state"] = "queued"
    assert promises(evidence) == {"P4"}


def test_a_cancelled_job_that_nobody_cancelled_is_found() -> None:
    evidence = Evidence(jobs=[job(1, state="cancelled", attempt=0)], events=events(1, "queued", "cancelled"))
    assert promises(evidence) == {"P4"}


def test_a_job_that_is_cancelled_with_the_one_before_it_is_believed_only_if_that_was_lost() -> None:
    evidence = Evidence(
        jobs=[job(1, state="cancelled", attempt=0), job(2, state="cancelled", attempt=0)],
        events=events(1, "queued", "cancelled") + events(2, "blocked", "cancelled"),
        requests=[Request("cancel", 1, T, T + 1)],
    )
    evidence.events[-1]["detail"] = "job 1 was cancelled, and this job was to run only after its success"
    assert promises(evidence) == set()
    evidence.events[1]["id"] = 999
    assert promises(evidence) == {"P4"}, "it was lost before"
    evidence.events[1]["id"] = 101
    evidence.events[-1]["detail"] = "cancelled while waiting"
    assert promises(evidence) == {"P4"}


def test_a_run_beyond_its_time_limit_is_found() -> None:
    evidence = good()
    evidence.jobs[0]["time_limit_s"] = 1.0
    assert promises(evidence) == set()
    evidence.diary[2] = line("end", 8)
    evidence.attempts[0]["finished_at"] = T + 8
    assert promises(evidence) == {"P4"}


# -- P6 ------------------------------------------------------------------------------------------------------------


def _missing(evidence: Evidence) -> None:
    del evidence.events[2]


def _illegal(evidence: Evidence) -> None:
    evidence.events = events(1, "queued", "running", "completed")


def _last_missing(evidence: Evidence) -> None:
    del evidence.events[-1]


def _none(evidence: Evidence) -> None:
    evidence.events = []


def _born_running(evidence: Evidence) -> None:
    evidence.events = events(1, "running", "completed")


@pytest.mark.parametrize("plant", [_missing, _illegal, _last_missing, _none, _born_running])
def test_a_broken_chain_of_events_is_found(plant: Callable[[Evidence], None]) -> None:
    evidence = good()
    plant(evidence)
    assert promises(evidence) == {"P6"}


# -- P7 ------------------------------------------------------------------------------------------------------------


def cancelled(state: str, *, answered: float | None, claimed: float = 3.0) -> Evidence:
    """A job that failed once and was cancelled; a second attempt of it begins at 4."""
    evidence = failed_and_retried({"outcome": "exit_nonzero", "exit_code": 7})
    evidence.attempts[1]["claimed_at"] = T + claimed
    reply = None if answered is None else T + answered
    evidence.requests = [Request("cancel", 1, T + 2.5, reply, state if reply else None)]
    return evidence


def test_a_start_after_an_answered_cancel_is_found() -> None:
    assert promises(cancelled("cancelled", answered=2.6)) == {"P7"}
    assert promises(cancelled("stopping", answered=2.6)) == {"P7"}


def test_a_start_after_a_cancel_that_was_never_answered_is_none() -> None:
    assert promises(cancelled("cancelled", answered=None)) == set()


def test_a_process_that_was_being_made_when_its_cancel_came_may_get_as_far_as_a_line() -> None:
    assert promises(cancelled("stopping", answered=3.9)) == set()


def test_a_start_after_cancel_and_retry_is_none() -> None:
    evidence = cancelled("cancelled", answered=2.6)
    evidence.requests.append(Request("retry", 1, T + 2.7, T + 2.8, "queued"))
    assert promises(evidence) == set()


def test_a_job_that_lives_on_long_after_its_cancel_is_found() -> None:
    evidence = cancelled("stopping", answered=3.9)
    evidence.diary[-1] = line("end", 30, attempt=2)
    evidence.attempts[1]["finished_at"] = T + 30
    assert promises(evidence) == {"P7"}


def test_a_process_that_is_left_over_is_found() -> None:
    evidence = good()
    evidence.left_processes = ["pid 12"]
    assert promises(evidence) == {"P7"}


def test_a_complaint_of_the_script_itself_is_a_violation() -> None:
    evidence = good()
    evidence.complaints = [("P5", "the daemon could not be started again")]
    assert promises(evidence) == {"P5"}


# -- reading -------------------------------------------------------------------------------------------------------


def test_the_diary_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("end 1 1 0,3 4711 2500000000 -9\nstart 1 1 - 4711 1500000000 -9\n")
    first, second = read_diary(tmp_path / "diary")
    assert (first.kind, first.gpus, first.at, first.intended) == ("start", (), 1.5, -9)
    assert (second.kind, second.gpus, second.at) == ("end", (0, 3), 2.5)
    assert read_diary(tmp_path / "none") == []


def test_the_rows_are_read_from_a_real_database(tmp_path: Path) -> None:
    from gpuq.stores.sql import migrate

    url = f"sqlite:///{tmp_path / 'gpuq.db'}"
    migrate.ensure(url)
    assert read_rows(url) == {"jobs": [], "attempts": [], "events": []}

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.ids import new_token
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import FIELDS_OF_STATES, FINAL, TRANSITIONS, JobState
from gpuq.errors import LeaseLost, NotFound, WrongState
from gpuq.ports.records import JobFilter, Move
from gpuq.stores.sql import SqlRecords

S = JobState


@pytest.mark.parametrize("source", list(JobState))
def test_every_allowed_transition_is_written_with_its_event(jobs: Any, records: SqlRecords, source: JobState) -> None:
    for target in TRANSITIONS[source]:
        job_id = jobs.in_state(source)
        jobs.move(job_id, target, source, detail="a reason", **jobs.fields_for(target))
        assert jobs.get(job_id).state is target
        with records.read() as reader:
            event = reader.events(job_id=job_id)[-1]
        assert (event.from_state, event.to_state, event.actor, event.detail) == (source, target, "gpuq", "a reason")
        assert event.at == jobs.NOW


@pytest.mark.parametrize("source", list(JobState))
def test_a_transition_that_is_not_in_the_table_cannot_be_asked_for(jobs: Any, source: JobState) -> None:
    job_id = jobs.in_state(source)
    before = jobs.get(job_id)
    for target in set(JobState) - set(TRANSITIONS[source]):
        with pytest.raises(ValueError, match="no transition"):
            jobs.move(job_id, target, source, **jobs.fields_for(target))
    assert jobs.get(job_id) == before


@pytest.mark.parametrize("source", list(JobState))
def test_a_move_refuses_a_job_in_a_state_that_it_does_not_expect(jobs: Any, source: JobState) -> None:
    job_id = jobs.in_state(source)
    before = jobs.get(job_id)
    for expected, targets in TRANSITIONS.items():
        for target in targets:
            if expected is not source:
                with pytest.raises(WrongState):
                    jobs.move(job_id, target, expected, **jobs.fields_for(target))
    assert jobs.get(job_id) == before


@pytest.mark.parametrize("source", list(JobState))
def test_fields_without_meaning_in_the_new_state_are_cleared(jobs: Any, source: JobState) -> None:
    for target in TRANSITIONS[source]:
        job_id = jobs.in_state(source)
        jobs.move(job_id, target, source, **jobs.fields_for(target))
        job = jobs.get(job_id)
        for field, states in FIELDS_OF_STATES.items():
            if target not in states:
                assert getattr(job, field) is None, (source, target, field)


def test_fields_with_meaning_on_both_sides_are_kept(jobs: Any) -> None:
    job_id = jobs.add()
    token = jobs.run(job_id, at=jobs.NOW + 2)
    jobs.move(job_id, S.STOPPING, S.RUNNING, stop_reason="cancel", stop_deadline=jobs.NOW + 30)
    job = jobs.get(job_id)
    assert (job.token, job.started_at, job.stop_deadline) == (token, jobs.NOW + 2, jobs.NOW + 30)
    jobs.finish(job_id, token, S.CANCELLED, Outcome.CANCELLED)
    job = jobs.get(job_id)
    assert (job.token, job.started_at, job.stop_reason) == (None, jobs.NOW + 2, None)


def test_a_move_needs_a_state_to_come_from(jobs: Any) -> None:
    job_id = jobs.add()
    with pytest.raises(ValueError, match="at least one state"):
        jobs.move(job_id, S.HELD, held_by="alice")


@pytest.mark.parametrize("field", ["id", "state", "user", "submitted_at", "spec", "no_such_column"])
def test_a_move_sets_only_what_belongs_to_it(jobs: Any, field: str) -> None:
    job_id = jobs.add()
    with pytest.raises(ValueError, match="cannot set"):
        jobs.move(job_id, S.HELD, S.QUEUED, **{field: 1})


def test_a_move_cannot_set_a_field_that_has_no_meaning_in_the_new_state(jobs: Any) -> None:
    job_id = jobs.add()
    with pytest.raises(ValueError, match="no meaning"):
        jobs.move(job_id, S.HELD, S.QUEUED, held_by="alice", exit_code=1)


@pytest.mark.parametrize("state", sorted(FINAL - {S.COMPLETED}))
def test_a_retried_job_starts_anew_and_its_attempt_numbers_go_on(jobs: Any, state: JobState) -> None:
    job_id = jobs.in_state(state)
    jobs.move(job_id, S.QUEUED, state, retries_used=0, lost_count=0)
    job = jobs.get(job_id)
    assert (job.state, job.outcome, job.finished_at, job.started_at, job.attempt) == (S.QUEUED, None, None, None, 1)
    jobs.run(job_id, at=jobs.NOW + 100)
    job = jobs.get(job_id)
    assert job.attempt == 2
    assert job.run_dir == f"/gpuq/jobs/{job_id}/2"


def test_a_missing_job_is_told_as_missing(jobs: Any) -> None:
    with pytest.raises(NotFound, match="no job 999"):
        jobs.move(999, S.HELD, S.QUEUED, held_by="alice")
    with pytest.raises(NotFound):
        jobs.move(999, S.RUNNING, S.STARTING, guard=(1, "x"))
    with pytest.raises(NotFound):
        jobs.get(999)


@pytest.mark.parametrize("wrong", ["token", "attempt", "state"])
def test_a_move_in_the_name_of_an_attempt_that_is_not_live_loses(jobs: Any, wrong: str) -> None:
    job_id = jobs.add()
    token = jobs.claim(job_id)
    before = jobs.get(job_id)
    guard = (2 if wrong == "attempt" else 1, new_token() if wrong == "token" else token)
    expect = S.RUNNING if wrong == "state" else S.STARTING
    with pytest.raises(LeaseLost):
        jobs.move(job_id, S.STOPPING, expect, guard=guard, stop_reason="cancel")
    assert jobs.get(job_id) == before


def test_an_attempt_number_alone_guards_too(jobs: Any) -> None:
    job_id = jobs.add()
    with pytest.raises(WrongState):
        jobs.move(job_id, S.HELD, S.QUEUED, guard=(1, None), held_by="alice")
    jobs.move(job_id, S.HELD, S.QUEUED, guard=(0, None), held_by="alice")
    assert jobs.get(job_id).state is S.HELD


@pytest.mark.parametrize("wrong", ["state", "attempt", "token"])
def test_a_move_that_rests_on_a_false_reading_writes_nothing(jobs: Any, records: SqlRecords, wrong: str) -> None:
    """Who read the job before may say what it saw; the row itself decides."""
    job_id = jobs.add()
    token = jobs.claim(job_id)
    before = jobs.get(job_id)
    seen = {"state": (S.RUNNING, 1, token), "attempt": (S.STARTING, 2, token), "token": (S.STARTING, 1, None)}[wrong]
    change = Move(job_id, S.STOPPING, frozenset({S.STARTING, S.RUNNING}), "gpuq", jobs.NOW,
                  set={"stop_reason": "cancel"}, seen=seen)  # fmt: skip
    with records.write() as tx, pytest.raises((WrongState, LeaseLost)):
        tx.move(change)
    assert jobs.get(job_id) == before
    with records.read() as reader:
        assert [event.to_state for event in reader.events(job_id=job_id)] == [S.QUEUED, S.STARTING]


def test_a_refused_move_leaves_the_transaction_usable(jobs: Any, records: SqlRecords) -> None:
    first, second = jobs.add(), jobs.add(state=S.HELD)
    with records.write() as tx:
        for job_id in (second, first):
            try:
                tx.move(Move(job_id, S.CANCELLED, frozenset({S.QUEUED}), "alice", jobs.NOW,
                             set={"outcome": Outcome.CANCELLED, "finished_at": jobs.NOW}))  # fmt: skip
            except WrongState:
                continue
    assert jobs.get(first).state is S.CANCELLED
    assert jobs.get(second).state is S.HELD


def test_the_event_of_a_claim_names_the_new_attempt(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    jobs.run(job_id)
    with records.read() as reader:
        told = [(event.to_state, event.attempt) for event in reader.events(job_id=job_id)]
    assert told == [(S.QUEUED, None), (S.STARTING, 1), (S.RUNNING, 1)]


def test_a_broken_transaction_leaves_neither_state_nor_event(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    with records.read() as reader:
        last = reader.last_event_id()

    def break_off() -> None:
        with records.write() as tx:
            tx.move(Move(job_id, S.HELD, frozenset({S.QUEUED}), "alice", jobs.NOW, set={"held_by": "alice"}))
            tx.add_jobs([jobs.new()], actor="alice")
            tx.set_value("paused", {"by": "alice"}, jobs.NOW)
            raise KeyError("the caller stumbles")

    with pytest.raises(KeyError):
        break_off()
    assert jobs.get(job_id).state is S.QUEUED
    with records.read() as reader:
        assert reader.last_event_id() == last
        assert sum(reader.count_by_state().values()) == 1
        assert reader.value("paused") is None


def test_a_new_rule_of_the_line_moves_every_job_that_is_not_final(jobs: Any, records: SqlRecords) -> None:
    ids = {state: jobs.in_state(state) for state in JobState}
    declared = jobs.add(priority="low", time_limit_s=60.0, score=50.0)
    with records.write() as tx:
        assert tx.rescore(1000.0, 2.0) == len(JobState) - len(FINAL) + 1
    for state, job_id in ids.items():
        assert jobs.get(job_id).score == (100.0 if state in FINAL else 100.0 + 2 * 1000.0 + 2.0 * 8 * 3600)
    assert jobs.get(declared).score == 50.0 + 3 * 1000.0 + 120.0


def test_what_a_job_leaves_is_stored_with_its_end_and_read_with_every_job(jobs: Any, records: SqlRecords) -> None:
    left = {"result_bytes": 2**40, "result_type": "image/png", "short_result": "loss \N{GREEK SMALL LETTER ALPHA} 0.1"}
    for source, target in ((S.RUNNING, S.COMPLETED), (S.RUNNING, S.FAILED), (S.STOPPING, S.CANCELLED)):
        job_id = jobs.in_state(source)
        jobs.move(job_id, target, source, **{**jobs.fields_for(target), **left})
        job = jobs.get(job_id)
        assert {name: getattr(job, name) for name in left} == left
    with records.read() as reader:
        [listed] = reader.jobs(JobFilter(ids=(job_id,)))
    assert listed == job

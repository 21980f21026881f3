"""What a changed running job and a lost dependency write, many at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.errors import WrongState
from gpuq.ports.records import Change, Move
from gpuq.stores.sql import SqlRecords

S = JobState


def test_limits_of_running_jobs_change_with_their_submission_and_an_event_of_the_attempt(
    jobs: Any, records: SqlRecords
) -> None:
    ids = [jobs.in_state(S.STARTING), jobs.in_state(S.RUNNING)]
    before = [jobs.get(job_id) for job_id in ids]
    with records.write() as tx:
        stored = tx.stored_specs(ids)
        tx.change_many(
            [
                Change(
                    job.id, job.state, "alice", jobs.NOW + 5, "longer", attempt=job.attempt,
                    set={"time_limit_s": 90.5, "name": "bert", "group": None, "score": 7.0},
                    spec=json.dumps({**json.loads(stored[job.id]), "time_limit_s": 90.5}),
                )
                for job in before
            ]
        )  # fmt: skip
    for job in before:
        after = jobs.get(job.id)
        assert (after.time_limit_s, after.name, after.score, after.state) == (90.5, "bert", 7.0, job.state)
        assert (after.attempt, after.token, after.started_at) == (job.attempt, job.token, job.started_at)
        with records.read() as tx:
            assert tx.spec(job.id)[0].time_limit_s == 90.5
            event = tx.events(job_id=job.id)[-1]
            assert (event.from_state, event.to_state, event.actor, event.detail, event.attempt) == (
                job.state, job.state, "alice", "longer", 1,
            )  # fmt: skip


def test_a_job_that_is_stopped_meanwhile_is_not_changed(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.in_state(S.STOPPING)
    with pytest.raises(WrongState, match="changed in the same moment"), records.write() as tx:
        tx.change_many([Change(job_id, S.RUNNING, "alice", jobs.NOW, "longer", set={"time_limit_s": 9.0})])
    assert jobs.get(job_id).time_limit_s is None


def test_blocked_and_held_jobs_are_cancelled_together(jobs: Any, records: SqlRecords) -> None:
    failed = jobs.in_state(S.FAILED)
    ids = [jobs.add(state=state, after=[failed]) for state in (S.BLOCKED, S.HELD, S.BLOCKED)]
    with records.write() as tx:
        tx.move_many(
            [
                Move(
                    lost.id, S.CANCELLED, frozenset({lost.state}), "gpuq", jobs.NOW + 1, "in vain",
                    set={"outcome": Outcome.CANCELLED, "finished_at": jobs.NOW + 1, "error": "in vain"},
                    seen=(lost.state, lost.attempt, lost.token),
                )
                for lost in tx.hopeless_dependents_of([failed])
            ]
        )  # fmt: skip
        assert tx.hopeless_dependents_of([failed]) == []
    assert [(jobs.get(job_id).state, jobs.get(job_id).held_by, jobs.get(job_id).error) for job_id in ids] == [
        (S.CANCELLED, None, "in vain")
    ] * 3


def test_what_an_earlier_release_stored_goes_on_waiting(jobs: Any, records: SqlRecords) -> None:
    failed, waits = jobs.in_state(S.FAILED), jobs.add(state=S.BLOCKED)
    with records.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute(
            text("INSERT INTO dependencies (job_id, on_id, kind) VALUES (:id, :on, 'success')"),
            {"id": waits, "on": failed},
        )
    with records.write() as tx:
        assert tx.hopeless_dependents_of([failed]) == []
        assert [on_id for on_id, _, _ in tx.open_dependencies(waits)] == [failed]

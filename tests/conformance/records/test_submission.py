from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from typing import Any

import pytest
from sqlalchemy import text

from gpuq.domain.job import Job
from gpuq.domain.outcome import Outcome
from gpuq.domain.priority import Priority
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.errors import NotFound, Refused, WrongState
from gpuq.ports.records import AnsweredRequest, JobFilter
from gpuq.stores.sql import SqlRecords
from gpuq.stores.sql.writer import SqlWriter

S = JobState


def test_a_job_comes_back_as_it_was_stored(jobs: Any) -> None:
    other = jobs.add()
    job_id = jobs.add(
        state=S.BLOCKED, user="bob", score=3.5e11 + 0.125, name="my job", group="lab ü", gpus=4, gpu_mem_mb=18000,
        gpu_model="A100", gpu_ids=[0, 2], priority="high", time_limit_s=7200.5, key="k", preemptible=True,
        after=[other], after_any=[other], command=["python", "a b", "ü", "'"], uid=7, max_retries=5,
    )  # fmt: skip
    job = jobs.get(job_id)
    expected = Job(
        id=job_id, name="my job", user="bob", uid=7, group="lab ü", state=S.BLOCKED, priority=Priority.HIGH,
        score=3.5e11 + 0.125, command=("python", "a b", "ü", "'"), cwd="/home/alice/x", gpus=4, gpu_mem_mb=18000,
        gpu_model="A100", gpu_ids=(0, 2), time_limit_s=7200.5, max_retries=5, retries_used=0, lost_count=0, attempt=0,
        token=None, key="k", preemptible=True, array_id=None, array_index=None, array_limit=None, after=(other,),
        after_any=(other,), submitted_at=jobs.NOW, eligible_at=None, held_by=None, stop_reason=None,
        stop_deadline=None, started_at=None, finished_at=None, outcome=None, exit_code=None, signal=None, error=None,
        node=None, gpu_indices=None, gpu_uuids=None, pid=None, log_path=None, run_dir=None,
        peak_gpu_mem_mb=None,
    )  # fmt: skip
    assert job == expected
    for field in fields(Job):
        assert type(getattr(job, field.name)) is type(getattr(expected, field.name)), field.name


def test_the_submission_is_kept_whole_with_its_schema(jobs: Any, records: SqlRecords) -> None:
    spec = JobSpec(command=["x"], env={"A": "1\n2", "Ü": "\x01"}, signal="USR1@60", kill_grace_s=5.0, gpus=0)
    job_id = jobs.add(spec=spec, uid=1, gid=2)
    with records.read() as reader:
        assert reader.spec(job_id) == (spec, 1, 2)
    with records.database.read() as connection:
        stored = connection.execute(text("SELECT spec FROM specs")).scalar_one()
    assert json.loads(stored)["schema"] == 1
    with pytest.raises(NotFound), records.read() as reader:
        reader.spec(job_id + 1)


def test_ids_follow_the_order_of_the_submission(jobs: Any, records: SqlRecords) -> None:
    jobs.add()
    with records.write() as tx:
        ids = tx.add_jobs([jobs.new(name=f"job {index}") for index in range(50)], actor="alice")
    assert ids == sorted(set(ids))
    with records.read() as reader:
        found = reader.jobs(JobFilter(ids=tuple(ids)))
        events = [event for event in reader.events() if event.job_id in ids]
    assert [job.name for job in found] == [f"job {index}" for index in range(50)]
    assert [(event.job_id, event.from_state, event.to_state, event.actor) for event in events] == [
        (job_id, None, S.QUEUED, "alice") for job_id in ids
    ]


@pytest.mark.parametrize("count", [19, 20, 21, 40, 47])
def test_a_list_of_any_length_comes_back_whole_and_in_order(jobs: Any, records: SqlRecords, count: int) -> None:
    new = [jobs.new(name=f"job-{n}", score=float(n), gpus=n % 3, key=f"k{n}" if n % 2 else None) for n in range(count)]
    with records.write() as tx:
        ids = tx.add_jobs(new, actor="alice")
    with records.read() as reader:
        found = reader.jobs(JobFilter())
        specs = [reader.spec(job.id)[0] for job in found]
    assert [job.id for job in found] == ids == list(range(ids[0], ids[0] + count))
    assert [(job.name, job.score, job.gpus, job.key) for job in found] == [
        (job.name, job.score, job.spec.gpus, job.spec.key) for job in new
    ]
    assert specs == [job.spec for job in new]


def test_an_empty_submission_stores_nothing(jobs: Any, records: SqlRecords) -> None:
    with records.write() as tx:
        assert tx.add_jobs([], actor="alice", request_key="r") == []


def test_an_id_is_never_given_twice_not_even_after_a_delete(jobs: Any, records: SqlRecords) -> None:
    jobs.add()
    last = jobs.add()
    with records.database.write() as connection:
        connection.execute(text("DELETE FROM jobs"))
    assert jobs.add() > last
    with records.write() as tx:
        assert tx.add_jobs([jobs.new(), jobs.new()], actor="alice") == [last + 2, last + 3]


def test_the_elements_of_an_array_carry_the_id_of_the_first(jobs: Any, records: SqlRecords) -> None:
    spec = JobSpec(command=["x"], array="0-2%2")
    elements = [
        jobs.new(spec=spec, array_first=index == 0, array_index=index, array_limit=2) for index in range(3)
    ]  # fmt: skip
    second = [jobs.new(spec=spec, array_first=index == 5, array_index=index) for index in (5, 6)]
    with records.write() as tx:
        ids = tx.add_jobs([*elements, jobs.new(), *second], actor="alice")
    with records.read() as reader:
        found = [(job.array_id, job.array_index, job.array_limit) for job in reader.jobs(JobFilter())]
        of_first = reader.jobs(JobFilter(array_id=ids[0]))
    first, other = ids[0], ids[4]
    assert found == [
        (first, 0, 2),
        (first, 1, 2),
        (first, 2, 2),
        (None, None, None),
        (other, 5, None),
        (other, 6, None),
    ]
    assert [job.id for job in of_first] == ids[:3]


def test_a_dependency_on_a_job_that_does_not_exist_is_refused(jobs: Any, records: SqlRecords) -> None:
    with pytest.raises(NotFound, match="999"):
        jobs.add(state=S.BLOCKED, after=[999])
    with records.read() as reader:
        assert reader.count_by_state() == {}


def test_one_live_job_a_key_and_user(jobs: Any, records: SqlRecords) -> None:
    first = jobs.add(key="nightly")
    with pytest.raises(Refused, match="key"):
        jobs.add(key="nightly")
    others = jobs.add(key="nightly", user="bob")
    with records.read() as reader:
        assert reader.job_with_key("alice", "nightly") == first
        assert reader.job_with_key("bob", "nightly") == others
        assert reader.job_with_key("carol", "nightly") is None


@pytest.mark.parametrize(("outcome", "to", "free"), [
    (Outcome.SUCCEEDED, S.COMPLETED, False),
    (Outcome.EXIT_NONZERO, S.FAILED, True),
    (Outcome.CANCELLED, S.CANCELLED, True),
])  # fmt: skip
def test_a_key_is_free_again_after_a_job_that_did_not_succeed(
    jobs: Any, records: SqlRecords, outcome: Outcome, to: JobState, free: bool
) -> None:
    first = jobs.add(key="k")
    jobs.finish(first, jobs.run(first), to, outcome)
    with records.read() as reader:
        assert reader.job_with_key("alice", "k") == (None if free else first)
    if not free:
        with pytest.raises(Refused):
            jobs.add(key="k")
        return
    second = jobs.add(key="k")
    with pytest.raises(Refused, match="key"):
        jobs.move(first, S.QUEUED, to)
    assert jobs.get(first).state is to
    with records.read() as reader:
        assert reader.job_with_key("alice", "k") == second


def test_a_request_is_answered_once_a_user(jobs: Any, records: SqlRecords) -> None:
    with records.write() as tx:
        assert tx.request("alice", "r1") is None
        ids = tx.add_jobs([jobs.new(), jobs.new()], actor="alice", request_key="r1", fingerprint="f")
        assert tx.request("alice", "r1") == AnsweredRequest(ids, "f")
    with records.read() as reader:
        assert reader.request("alice", "r1") == AnsweredRequest(ids, "f")
        assert reader.request("bob", "r1") is None
    with pytest.raises(Refused), records.write() as tx:
        tx.add_jobs([jobs.new()], actor="alice", request_key="r1")
    with records.read() as reader:
        assert reader.count(JobFilter()) == 2


def test_requests_are_forgotten_by_age(jobs: Any, records: SqlRecords) -> None:
    with records.write() as tx:
        tx.add_jobs([jobs.new(submitted_at=100.0)], actor="alice", request_key="old")
        tx.add_jobs([jobs.new(submitted_at=200.0)], actor="alice", request_key="new")
        assert tx.forget_requests(150.0) == 1
        assert tx.request("alice", "old") is None
        assert tx.request("alice", "new") is not None


def test_an_update_changes_the_row_and_the_stored_submission(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add(time_limit_s=60, group="a")
    values = {"priority": Priority.LOW, "time_limit_s": None, "score": 7.0, "signal": "TERM", "group": "b"}
    with records.write() as tx:
        tx.update_job(job_id, values, expect=frozenset({S.QUEUED}))
    job = jobs.get(job_id)
    assert (job.priority, job.time_limit_s, job.score, job.group) == (Priority.LOW, None, 7.0, "b")
    with records.read() as reader:
        spec, _, _ = reader.spec(job_id)
    assert (spec.priority, spec.time_limit_s, spec.signal, spec.group) == (Priority.LOW, None, "TERM", "b")


def test_an_update_may_replace_the_whole_submission(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add(gpus=1)
    spec = JobSpec(command=["x"], gpus=3, kill_grace_s=1.0)
    with records.write() as tx:
        tx.update_job(job_id, {"gpus": 3, "spec": spec}, expect=frozenset({S.QUEUED}))
    with records.read() as reader:
        assert reader.spec(job_id)[0] == spec
    assert jobs.get(job_id).gpus == 3


def test_an_update_keeps_what_another_release_stored(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    with records.database.write() as connection:
        statement = text("UPDATE specs SET spec = :more || substr(spec, 2)")
        connection.execute(statement, {"more": '{"of_tomorrow":1,'})
    with records.write() as tx:
        tx.update_job(job_id, {"name": "new"}, expect=frozenset({S.QUEUED}))
        assert tx.spec(job_id)[0].name == "new"
    with records.database.read() as connection:
        assert json.loads(connection.execute(text("SELECT spec FROM specs")).scalar_one())["of_tomorrow"] == 1


def test_an_update_of_dependencies_is_followed(jobs: Any, records: SqlRecords) -> None:
    a, b, c = jobs.add(), jobs.add(), jobs.add()
    job_id = jobs.add(state=S.BLOCKED, after=[a, b], after_any=[c])
    with records.write() as tx:
        tx.update_job(job_id, {"after": [b]}, expect=frozenset({S.BLOCKED}))
        assert [on_id for on_id, _, _ in tx.open_dependencies(job_id)] == [b, c]
    job = jobs.get(job_id)
    assert (job.after, job.after_any) == ((b,), (c,))


def test_an_update_names_the_state_that_it_expects(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.in_state(S.RUNNING)
    with pytest.raises(WrongState), records.write() as tx:
        tx.update_job(job_id, {"score": 1.0}, expect=frozenset({S.QUEUED}))
    with pytest.raises(NotFound), records.write() as tx:
        tx.update_job(999, {"score": 1.0}, expect=frozenset({S.QUEUED}))
    with pytest.raises(ValueError, match="token"), records.write() as tx:
        tx.update_job(job_id, {"token": "x"}, expect=frozenset({S.RUNNING}))
    assert jobs.get(job_id).score == 100.0


def test_a_part_that_fails_is_undone_and_the_rest_of_the_transaction_goes_on(jobs: Any, records: SqlRecords) -> None:
    jobs.add(key="taken")
    ids: list[int] = []
    with records.write() as tx:
        for fields, error in (
            ({}, None),
            # Refused by the database itself, after something was written.
            ({"key": "taken"}, Refused),
            ({"after": [999]}, NotFound),
            ({"gpus": -1}, ValueError),
            ({"name": "last"}, None),
        ):
            spec = JobSpec.model_construct(command=["x"], **fields)
            with contextlib.nullcontext() if error is None else pytest.raises(error), tx.part():
                added = tx.add_jobs([jobs.new(), jobs.new(spec=spec)], actor="alice", request_key=f"r{len(ids)}")
                ids += added
    with records.read() as reader:
        found = [job.id for job in reader.jobs(JobFilter(ids=tuple(range(ids[0], ids[-1] + 1))))]
        assert found == ids
        assert {event.job_id for event in reader.events()} == {ids[0] - 1, *ids}


def test_a_part_that_is_undone_is_no_longer_seen_in_its_transaction(jobs: Any, records: SqlRecords) -> None:
    with records.write() as tx:
        with contextlib.suppress(KeyError), tx.part():
            tx.add_jobs([jobs.new()], actor="alice", request_key="r")
            assert tx.request("alice", "r") is not None
            raise KeyError
        assert tx.request("alice", "r") is None
        assert list(tx.queued()) == []
        # Nor remembered beside the database as given.
        assert isinstance(tx, SqlWriter)
        assert (tx.last_event, tx.last_job) == (None, None)

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.priority import Priority
from gpuq.domain.states import FINAL, WAITING, JobState
from gpuq.ports.records import DeadLetter, HopelessDependent, JobFilter, ReadyDependent, Waiting
from gpuq.stores.sql import SqlRecords

S = JobState


def test_the_line_is_by_score_and_then_by_id(jobs: Any, records: SqlRecords) -> None:
    late, early = jobs.add(score=30.0), jobs.add(score=10.0)
    tie_a, tie_b = jobs.add(score=20.0), jobs.add(score=20.0)
    jobs.add(score=1.0, state=S.HELD)
    with records.read() as reader:
        assert [job.id for job in reader.line()] == [early, tie_a, tie_b, late]
        assert [job.id for job in reader.line(offset=1, limit=2)] == [tie_a, tie_b]
        places = [reader.position(job.score, job.id) for job in reader.line()]
    assert places == [1, 2, 3, 4]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_the_queue_is_streamed_by_id_in_batches(jobs: Any, records: SqlRecords, batch: int) -> None:
    ids = [jobs.add(score=float(9 - index), gpus=index) for index in range(3)]
    jobs.add(state=S.DELAYED)
    with records.read() as reader:
        assert list(reader.queued(batch=batch)) == [(ids[0], 0, 9.0), (ids[1], 1, 8.0), (ids[2], 2, 7.0)]
        assert list(reader.queued(batch=batch, after_id=ids[1])) == [(ids[2], 2, 7.0)]


def test_waiting_gives_the_queued_ones_of_what_is_asked(jobs: Any, records: SqlRecords) -> None:
    queued = jobs.add(
        score=5.0, priority="low", group="g", gpus=2, gpu_mem_mb=100, gpu_model="A", gpu_ids=[1], time_limit_s=60,
        preemptible=True, command=["a", "b"],
    )  # fmt: skip
    held = jobs.add(state=S.HELD)
    with records.read() as reader:
        found = reader.waiting([held, queued, 999])
        assert reader.waiting([]) == {}
    assert found == {
        queued: Waiting(
            queued,
            5.0,
            Priority.LOW,
            "alice",
            1000,
            "g",
            2,
            100,
            "A",
            (1,),
            60.0,
            True,
            None,
            None,
            jobs.NOW,
            ("a", "b"),
            0,
        )
    }


def test_states_are_counted(jobs: Any, records: SqlRecords) -> None:
    for state in JobState:
        jobs.in_state(state)
    jobs.add()
    with records.read() as reader:
        assert reader.count_by_state() == {state: 2 if state is S.QUEUED else 1 for state in JobState}


def test_filters_hold_together(jobs: Any, records: SqlRecords) -> None:
    a = jobs.add(user="alice", group="g", name="x")
    b = jobs.add(user="alice", group="h", name="y", state=S.HELD)
    c = jobs.add(user="bob", group="g", name="x")
    cases: list[tuple[JobFilter, list[int]]] = [
        (JobFilter(), [a, b, c]),
        (JobFilter(user="alice"), [a, b]),
        (JobFilter(group="g"), [a, c]),
        (JobFilter(name="x", user="bob"), [c]),
        (JobFilter(states=frozenset({S.HELD})), [b]),
        (JobFilter(states=frozenset(WAITING)), [a, b, c]),
        (JobFilter(states=frozenset()), []),
        (JobFilter(ids=(c, a, 999)), [a, c]),
        (JobFilter(ids=()), []),
        (JobFilter(after_id=a), [b, c]),
        (JobFilter(newest_first=True), [c, b, a]),
        (JobFilter(newest_first=True, after_id=c), [b, a]),
        (JobFilter(limit=2), [a, b]),
        (JobFilter(newest_first=True, limit=1), [c]),
        (JobFilter(limit=0), []),
    ]
    with records.read() as reader:
        for where, expected in cases:
            assert [job.id for job in reader.jobs(where)] == expected, where
            assert reader.count(where) == len(expected), where


def test_finished_jobs_are_found_by_the_time_of_their_end(jobs: Any, records: SqlRecords) -> None:
    ids = []
    for at in (100.0, 200.0, 300.0):
        job_id = jobs.add()
        jobs.finish(job_id, jobs.run(job_id), S.COMPLETED, Outcome.SUCCEEDED, at=at)
        ids.append(job_id)
    jobs.add()
    with records.read() as reader:
        assert [job.id for job in reader.jobs(JobFilter(finished_since=200.0))] == ids[1:]
        assert [job.id for job in reader.jobs(JobFilter(finished_until=200.0))] == ids[:1]
        assert [job.id for job in reader.jobs(JobFilter(states=frozenset(FINAL), finished_since=150.0))] == ids[1:]


def test_more_ids_than_a_statement_has_room_for_can_be_asked_for(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    with records.read() as reader:
        assert [job.id for job in reader.jobs(JobFilter(ids=tuple(range(1, 100_000))))] == [job_id]
        assert list(reader.waiting(range(1, 100_000))) == [job_id]


def test_delayed_jobs_come_due_in_order(jobs: Any, records: SqlRecords) -> None:
    with records.read() as reader:
        assert reader.delayed_until() is None
    later, sooner = jobs.add(state=S.DELAYED, eligible_at=30.0), jobs.add(state=S.DELAYED, eligible_at=20.0)
    jobs.add()
    with records.read() as reader:
        assert reader.delayed_until() == 20.0
        assert reader.due(19.999, 10) == []
        assert reader.due(20.0, 10) == [sooner]
        assert reader.due(99.0, 10) == [sooner, later]
        assert reader.due(99.0, 1) == [sooner]


def test_the_line_can_be_read_past_users_groups_and_arrays(jobs: Any, records: SqlRecords) -> None:
    first = jobs.add(score=1.0)
    jobs.add(score=2.0, user="bob", group="g")
    big = jobs.add(score=3.0, user="carol", gpus=8)
    grouped = jobs.add(score=4.0, user="carol", group="g")
    (element,) = (jobs.add(score=5.0, user="dave", array_first=True, array_index=0),)
    jobs.add(score=0.5, user="carol", state=S.HELD)
    last = jobs.add(score=6.0, user="eve", group="h")

    def past(gpus: int | None = None, limit: int = 9, **names: Any) -> list[int]:
        with records.read() as reader:
            return reader.line_past(
                gpus, **{"users": (), "groups": (), "arrays": (), **names}, limit=limit
            )  # fmt: skip

    assert past(users={"alice", "bob"}) == [big, grouped, element, last]
    assert past(gpus=1, users={"alice", "bob"}) == [grouped, element, last]
    assert past(groups={"g"}) == [first, big, element, last]
    assert past(arrays={element}, groups={"g"}, users={"alice"}) == [big, last]
    assert past(groups={"g"}, limit=2) == [first, big]
    former = jobs.add(score=7.0, user="eve", uid=1001)
    unknown = jobs.add(score=8.0, user="eve", uid=None)
    others = [first, big, grouped, element]
    assert past(accounts={("eve", 1000), ("bob", 1000)}) == [*others, former, unknown]
    assert past(accounts={("eve", 1001), ("bob", 1000), ("eve", 100)}) == [*others, last, unknown]
    assert past(accounts={("eve", None), ("bob", 1000)}) == [*others, last, former]


def test_the_last_of_others_before_a_place_is_any_that_waits(jobs: Any, records: SqlRecords) -> None:
    tied = [jobs.add(score=5.0, user=user) for user in ("bob", "alice", "bob", "carol")]
    held = jobs.add(score=4.0, user="carol", state=S.HELD)
    first = jobs.add(score=3.0, user="carol")
    jobs.run(jobs.add(score=4.5, user="dave"))
    with records.read() as reader:
        assert reader.before(5.0, tied[3], "alice") == (5.0, tied[2])
        assert reader.before(5.0, tied[3], "bob") == (5.0, tied[1])
        assert reader.before(5.0, tied[0], "bob") == (4.0, held)
        assert reader.before(4.0, held, "bob") == (3.0, first)
        assert reader.before(5.0, tied[0], "carol") is None
        assert reader.before(3.0, first, "bob") is None


def test_groups_are_counted_without_what_is_final(jobs: Any, records: SqlRecords) -> None:
    for _ in range(2):
        jobs.add(group="g")
    jobs.run(jobs.add(group="g"))
    done = jobs.add(group="h")
    jobs.finish(done, jobs.run(done), S.COMPLETED, Outcome.SUCCEEDED)
    jobs.add()
    with records.read() as reader:
        assert reader.count_by_group() == {"g": {S.QUEUED: 2, S.RUNNING: 1}}


def test_the_front_is_the_first_of_all_waiting_jobs_of_the_priority(jobs: Any, records: SqlRecords) -> None:
    ids = {50.0: jobs.add(score=50.0)}
    ids[40.0] = jobs.add(score=40.0, user="bob", state=S.HELD)
    ids[30.0] = jobs.add(score=30.0, priority="low")
    jobs.add(score=40.0)
    jobs.add(score=30.0, priority="low", state=S.HELD)
    done = jobs.add(score=1.0)
    jobs.finish(done, jobs.run(done), S.COMPLETED, Outcome.SUCCEEDED)
    with records.read() as reader:
        assert reader.front(Priority.NORMAL) == (40.0, ids[40.0])
        assert reader.front(Priority.NORMAL, "bob") == (40.0, ids[40.0])
        assert reader.front(Priority.NORMAL, user="carol") is None
        assert reader.front(Priority.LOW) == (30.0, ids[30.0])
        assert reader.front(Priority.CRITICAL) is None


def test_dependencies_are_open_until_they_ended_as_asked(jobs: Any, records: SqlRecords) -> None:
    ok, bad, running = jobs.in_state(S.COMPLETED), jobs.in_state(S.FAILED), jobs.in_state(S.RUNNING)
    job_id = jobs.add(state=S.BLOCKED, after=[ok, bad, running], after_any=[ok, bad, running])
    with records.read() as reader:
        assert reader.open_dependencies(job_id) == [
            (bad, "success", S.FAILED),
            (running, "any", S.RUNNING),
            (running, "success", S.RUNNING),
        ]
        assert reader.open_dependencies(ok) == []


def test_ready_dependents_are_the_blocked_ones_with_nothing_left_to_wait_for(jobs: Any, records: SqlRecords) -> None:
    first, other = jobs.in_state(S.COMPLETED), jobs.add()
    ready = jobs.add(
        state=S.BLOCKED, after=[first], after_any=[first], gpus=3, score=7.0, env={"begin": '"begin":null'}
    )
    later = jobs.add(state=S.BLOCKED, after=[first], begin=jobs.NOW + 60.5, env={"A": '"begin":null', "NUL": "\\u0000"})
    dated = jobs.add(state=S.BLOCKED, after_any=[first], begin="2026-11-22T10:00:00Z")
    jobs.add(state=S.BLOCKED, after=[first, other])
    jobs.add(state=S.HELD, after=[first])
    jobs.move(jobs.add(state=S.BLOCKED, after=[first]), S.QUEUED, S.BLOCKED)
    with records.read() as reader:
        assert reader.ready_dependents(first) == [
            ReadyDependent(ready, 3, 7.0, 0, None, None),
            ReadyDependent(later, 1, 100.0, 0, None, jobs.NOW + 60.5),
            ReadyDependent(dated, 1, 100.0, 0, None, "2026-11-22T10:00:00Z"),
        ]
        assert reader.ready_dependents(other) == []


def test_hopeless_dependents_are_the_waiting_ones_that_can_never_run_with_whom_they_wait_for(
    jobs: Any, records: SqlRecords
) -> None:
    failed, ok = jobs.in_state(S.FAILED), jobs.in_state(S.COMPLETED)
    first = jobs.add(state=S.BLOCKED, after=[ok, failed])
    patient = jobs.add(state=S.BLOCKED, after=[failed], keep_waiting=True)
    jobs.add(state=S.BLOCKED, after_any=[failed])
    jobs.add(state=S.BLOCKED, after=[patient])
    jobs.add(state=S.HELD, after=[failed], held_by="past")
    second = jobs.add(state=S.BLOCKED, after=[first, failed])
    third = jobs.add(state=S.HELD, after=[second])
    jobs.move(jobs.add(state=S.BLOCKED, after=[failed]), S.CANCELLED, S.BLOCKED, **jobs.fields_for(S.CANCELLED))
    outcome = jobs.get(failed).outcome
    with records.write() as tx:
        assert tx.hopeless_dependents_of([failed]) == [
            HopelessDependent(first, S.BLOCKED, 0, None, failed, S.FAILED, outcome, jobs.get(failed).exit_code),
            HopelessDependent(second, S.BLOCKED, 0, None, failed, S.FAILED, outcome, jobs.get(failed).exit_code),
            HopelessDependent(third, S.HELD, 0, None, second, S.BLOCKED, None, None),
        ]
        assert tx.hopeless_dependents_of([]) == []


def test_a_dependent_of_a_failed_job_is_ready_only_if_any_end_will_do(jobs: Any, records: SqlRecords) -> None:
    failed = jobs.in_state(S.FAILED)
    jobs.add(state=S.BLOCKED, after=[failed])
    any_end = jobs.add(state=S.BLOCKED, after_any=[failed])
    with records.read() as reader:
        assert [job.id for job in reader.ready_dependents(failed)] == [any_end]


def test_submissions_are_read_together(jobs: Any, records: SqlRecords) -> None:
    first, second = jobs.add(kill_grace_s=5.0), jobs.add(begin=jobs.NOW)
    with records.read() as reader:
        assert reader.specs([]) == {}
        assert reader.specs([first, second, 999]) == {job_id: reader.spec(job_id)[0] for job_id in (first, second)}


def test_events_can_be_followed(jobs: Any, records: SqlRecords) -> None:
    first, second = jobs.add(), jobs.add()
    jobs.move(first, S.HELD, S.QUEUED, held_by="alice")
    with records.write() as tx:
        tx.add_event(second, S.QUEUED, "alice", 5.0, "a remark", attempt=3)
    with records.read() as reader:
        events = reader.events()
        assert [event.id for event in events] == sorted(event.id for event in events)
        assert events[-1].id == reader.last_event_id()
        remark = events[-1]
        assert (remark.from_state, remark.to_state, remark.attempt, remark.detail) == (
            S.QUEUED,
            S.QUEUED,
            3,
            "a remark",
        )
        assert reader.events(after_id=events[1].id) == events[2:]
        assert reader.events(limit=2) == events[:2]
        assert [event.job_id for event in reader.events(job_id=first)] == [first, first]


def test_an_empty_record_answers(records: SqlRecords) -> None:
    with records.read() as reader:
        assert reader.last_event_id() == 0
        assert reader.line() == []
        assert reader.jobs(JobFilter()) == []
        assert reader.live_attempts() == []
        assert reader.position(1.0, 1) == 1


def test_dead_letters_come_newest_first_and_one_a_job(jobs: Any, records: SqlRecords) -> None:
    first, second = jobs.in_state(S.FAILED), jobs.in_state(S.FAILED)
    old = DeadLetter(first, 10.0, "exit_nonzero", "no", 1, "tail\0\n")
    with records.write() as tx:
        tx.add_dead_letter(old)
        tx.add_dead_letter(DeadLetter(second, 20.0, "lost", None, 5, None))
    with records.read() as reader:
        assert [letter.job_id for letter in reader.dead_letters()] == [second, first]
        assert reader.dead_letters(1) == [DeadLetter(second, 20.0, "lost", None, 5, None)]
        assert reader.dead_letters()[1].log_tail == "tail\ufffd\n"
        assert reader.dead_letter(second) == DeadLetter(second, 20.0, "lost", None, 5, None)
        assert reader.dead_letter(999) is None
        assert reader.count_dead_letters() == 2
    with records.write() as tx:
        tx.add_dead_letter(DeadLetter(first, 30.0, "signal", None, 2, None))
        assert [letter.job_id for letter in tx.dead_letters()] == [first, second]
        assert tx.remove_dead_letter(first) is True
        assert tx.remove_dead_letter(first) is False
        assert [letter.job_id for letter in tx.dead_letters()] == [second]


def test_values_of_the_installation_are_kept_as_json(records: SqlRecords) -> None:
    with records.write() as tx:
        tx.set_value("paused", {"by": "ü", "at": 1.5, "why": None}, 1.0)
        tx.set_value("drained:GPU-1", True, 1.0)
        tx.set_value("drained:GPU-2", [], 1.0)
        tx.set_value("drained%", 0, 1.0)
        tx.set_value("paused", {"by": "bob"}, 2.0)
    with records.write() as tx:
        assert tx.value("paused") == {"by": "bob"}
        assert tx.values("drained:") == {"drained:GPU-1": True, "drained:GPU-2": []}
        assert tx.values("nothing") == {}
        tx.set_value("paused", None, 3.0)
        tx.set_value("never there", None, 3.0)
        assert tx.value("paused") is None


def test_a_reader_sees_one_moment(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    with records.read() as reader:
        assert reader.count_by_state() == {S.QUEUED: 1}
        jobs.add()
        jobs.move(job_id, S.HELD, S.QUEUED, held_by="alice")
        assert reader.count_by_state() == {S.QUEUED: 1}
        assert reader.job(job_id).state is S.QUEUED
    with records.read() as reader:
        assert reader.count_by_state() == {S.QUEUED: 1, S.HELD: 1}


def test_the_oldest_in_line_are_found_by_priority_and_age(jobs: Any, records: SqlRecords) -> None:
    young, old = jobs.add(submitted_at=50.0, gpus=2), jobs.add(submitted_at=10.0)
    urgent = jobs.add(submitted_at=40.0, priority="high")
    jobs.add(submitted_at=5.0, gpus=0)
    jobs.add(submitted_at=5.0, state=S.HELD)
    with records.read() as reader:
        assert reader.oldest_queued(before=99.0, gpus=1, limit=9) == [urgent, old, young]
        assert reader.oldest_queued(before=50.0, gpus=1, limit=9) == [urgent, old]
        assert reader.oldest_queued(before=99.0, gpus=1, limit=1) == [urgent]
        assert reader.oldest_queued(before=99.0, gpus=2, limit=9) == [young]

"""Writers at the same time, in threads and in processes: no update is lost, nothing is given twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.states import JobState
from gpuq.errors import LeaseLost, WrongState
from gpuq.ports.records import JobFilter
from gpuq.stores.sql import SqlRecords, open_records

S = JobState

_COUNT = """
import sys
from gpuq.domain.states import JobState
from gpuq.stores.sql import open_records
records = open_records(sys.argv[1])
for _ in range(int(sys.argv[3])):
    with records.write() as tx:
        job = tx.job(int(sys.argv[2]))
        tx.update_job(job.id, {"lost_count": job.lost_count + 1}, expect=frozenset({JobState.QUEUED}))
records.close()
"""

_SUBMIT_FOR_EVER = """
import sys
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.ports.records import NewJob
from gpuq.stores.sql import open_records
records = open_records(sys.argv[1])
new = NewJob(JobSpec(command=["x"]), "alice", 1, 1, "x", "/", JobState.QUEUED, 1.0, 0, 1.0)
while True:
    with records.write() as tx:
        ids = tx.add_jobs([new, new], actor="alice")
    print(*ids, flush=True)
"""


def in_threads(count: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as error:  # noqa: BLE001 - handed to the test below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_threads_and_processes_that_count_together_lose_nothing(url: str, jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    words = [sys.executable, "-c", _COUNT, url, str(job_id), "25"]
    processes = [subprocess.Popen(words, stderr=subprocess.PIPE) for _ in range(2)]
    other = open_records(url)

    def count(index: int) -> None:
        for _ in range(10):
            with (records if index % 2 else other).write() as tx:
                job = tx.job(job_id)
                tx.update_job(job_id, {"lost_count": job.lost_count + 1}, expect=frozenset({S.QUEUED}))

    in_threads(4, count)
    for process in processes:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    other.close()
    assert jobs.get(job_id).lost_count == 90


def test_a_job_that_many_claim_is_claimed_once(jobs: Any, records: SqlRecords) -> None:
    ids = [jobs.add() for _ in range(10)]
    won: list[int] = []

    def claim_all(_: int) -> None:
        for job_id in ids:
            try:
                jobs.claim(job_id)
            except (WrongState, LeaseLost):
                continue
            won.append(job_id)

    in_threads(4, claim_all)
    assert sorted(won) == ids
    with records.read() as reader:
        assert len(reader.live_attempts()) == 10


def test_one_request_sent_at_the_same_time_is_answered_with_the_same_jobs(jobs: Any, records: SqlRecords) -> None:
    answers: list[list[int]] = []

    def send(_: int) -> None:
        with records.write() as tx:
            known = tx.request("alice", "r")
            new = [jobs.new(), jobs.new()]
            answers.append(known.job_ids if known else tx.add_jobs(new, actor="alice", request_key="r"))

    in_threads(6, send)
    assert len(answers) == 6
    assert all(answer == answers[0] for answer in answers)
    with records.read() as reader:
        assert reader.count(JobFilter()) == 2


def test_one_key_used_at_the_same_time_gives_one_job(jobs: Any, records: SqlRecords) -> None:
    answers: list[int] = []

    def submit(_: int) -> None:
        with records.write() as tx:
            known = tx.job_with_key("alice", "k")
            answers.append(known if known is not None else tx.add_jobs([jobs.new(key="k")], actor="alice")[0])

    in_threads(6, submit)
    assert len(set(answers)) == 1


def test_ids_of_many_submitters_are_all_different(jobs: Any, records: SqlRecords) -> None:
    given: list[int] = []

    def submit(_: int) -> None:
        for _ in range(5):
            with records.write() as tx:
                ids = tx.add_jobs([jobs.new(), jobs.new(), jobs.new()], actor="alice")
            assert ids == sorted(ids)
            given.extend(ids)

    in_threads(4, submit)
    assert len(set(given)) == len(given) == 60


def test_events_become_visible_in_the_order_of_their_ids(jobs: Any, records: SqlRecords) -> None:
    done = threading.Event()
    seen: list[int] = []

    def submit() -> None:
        for _ in range(15):
            jobs.add()

    def follow() -> None:
        while True:
            last_look = done.is_set()
            with records.read() as reader:
                seen.extend(event.id for event in reader.events(after_id=seen[-1] if seen else 0))
            if last_look:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    in_threads(3, lambda _: submit())
    done.set()
    follower.join(60)
    with records.read() as reader:
        assert seen == [event.id for event in reader.events()]
    assert len(seen) == 45


def test_a_write_inside_a_write_of_the_same_thread_fails_at_once(records: SqlRecords) -> None:
    with records.write(), pytest.raises(RuntimeError, match="inside a write"), records.write():
        pass
    with records.write() as tx:
        tx.set_value("still", "working", 1.0)


def test_a_reader_does_not_wait_for_a_writer(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    with records.write() as tx:
        tx.set_value("paused", True, 1.0)
        with records.read() as reader:
            assert reader.value("paused") is None
            assert reader.job(job_id).state is S.QUEUED
    with records.read() as reader:
        assert reader.value("paused") is True


def test_a_killed_submitter_loses_no_answered_job(url: str, records: SqlRecords) -> None:
    process = subprocess.Popen([sys.executable, "-c", _SUBMIT_FOR_EVER, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [process.stdout.readline() for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=30)
    # A line that was cut off in the middle was not answered.
    answered += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    ids = [int(word) for line in answered for word in line.split()]
    assert len(ids) >= 80
    with records.read() as reader:
        stored = {job.id for job in reader.jobs(JobFilter())}
        told = {event.job_id for event in reader.events()}
    assert set(ids) <= stored
    assert stored == told
    assert len(stored) % 2 == 0, "half a submission was stored"

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from gpuq.domain.ids import new_token
from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.job import Attempt, Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.states import JobState
from gpuq.errors import LeaseLost
from gpuq.stores.sql import SqlRecords

S = JobState


def attempts_of(records: SqlRecords, job_id: int) -> list[Attempt]:
    with records.read() as reader:
        return reader.attempts(job_id)


def test_an_attempt_is_stored_whole(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    token = jobs.claim(job_id, at=jobs.NOW + 1, gpus=(3, 1), node="box")
    now = jobs.NOW
    with records.write() as tx:
        tx.launched(job_id, 1, token, Launched(11, 10**12, 12, 10**12 + 5, now + 2))
        tx.end_attempt(
            job_id, 1, token,
            Result(Outcome.GPU_OOM, exit_code=1, error="out of memory", finished_at=now + 9, peak_gpu_mem_mb=40000,
                   avg_gpu_util=0.5),
        )  # fmt: skip
    run_dir = f"/gpuq/jobs/{job_id}/1"
    assert attempts_of(records, job_id) == [
        Attempt(job_id, 1, token, "box", "", (3, 1), ("GPU-3", "GPU-1"), None, run_dir, run_dir + "/output.log",
                now + 1, now + 2, now + 9, 11, 10**12, 12, 10**12 + 5, Outcome.GPU_OOM, 1, None, "out of memory",
                40000, 0.5)
    ]  # fmt: skip


def test_an_attempt_ends_once(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    token = jobs.run(job_id)
    result = Result(Outcome.SUCCEEDED, exit_code=0, finished_at=jobs.NOW + 5)
    with records.write() as tx:
        tx.end_attempt(job_id, 1, token, result)
    with pytest.raises(LeaseLost), records.write() as tx:
        tx.end_attempt(job_id, 1, token, Result(Outcome.LOST, finished_at=jobs.NOW + 6))
    assert attempts_of(records, job_id)[0].outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("wrong", ["job", "number", "token"])
@pytest.mark.parametrize("verb", ["launched", "end_attempt"])
def test_a_write_about_an_attempt_that_is_not_live_loses(jobs: Any, records: SqlRecords, verb: str, wrong: str) -> None:
    job_id = jobs.add()
    token = jobs.claim(job_id)
    before = attempts_of(records, job_id)
    named = (
        job_id + 1 if wrong == "job" else job_id,
        2 if wrong == "number" else 1,
        new_token() if wrong == "token" else token,
    )
    extra: dict[str, tuple[Any, ...]] = {
        "launched": (Launched(1, 1, 2, 2, jobs.NOW),),
        "end_attempt": (Result(Outcome.LOST, finished_at=jobs.NOW),),
    }
    with pytest.raises(LeaseLost), records.write() as tx:
        getattr(tx, verb)(*named, *extra[verb])
    assert attempts_of(records, job_id) == before


def test_the_end_of_an_attempt_needs_a_time(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    token = jobs.claim(job_id)
    with pytest.raises(ValueError, match="finished_at"), records.write() as tx:
        tx.end_attempt(job_id, 1, token, Result(Outcome.LOST))


def test_the_start_that_the_launch_noted_survives_an_end_without_one(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    token = jobs.run(job_id, at=jobs.NOW + 2)
    with records.write() as tx:
        tx.end_attempt(job_id, 1, token, Result(Outcome.LOST, finished_at=jobs.NOW + 5))
    assert attempts_of(records, job_id)[0].started_at == jobs.NOW + 2


def test_a_job_cannot_have_two_live_attempts(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    token = jobs.claim(job_id)
    jobs.move(job_id, S.QUEUED, S.STARTING, guard=(1, token))
    with pytest.raises(ValueError, match="refused a row"):
        jobs.claim(job_id)
    assert jobs.get(job_id).state is S.QUEUED


def test_live_attempts_are_those_of_active_jobs_by_node(jobs: Any, records: SqlRecords) -> None:
    first, second, done = jobs.add(), jobs.add(), jobs.in_state(S.COMPLETED)
    jobs.run(second, node="other")
    jobs.claim(first, node="box")
    jobs.add()
    with records.read() as reader:
        everywhere = reader.live_attempts()
        here = reader.live_attempts("box")
        nowhere = reader.live_attempts("elsewhere")
    assert [(job.id, job.state, attempt.number) for job, attempt in everywhere] == [
        (first, S.STARTING, 1),
        (second, S.RUNNING, 1),
    ]
    assert [(job, attempt.node) for job, attempt in here] == [(jobs.get(first), "box")]
    assert nowhere == []
    assert done not in {job.id for job, _ in everywhere}


def test_a_job_shows_where_its_current_attempt_is(jobs: Any) -> None:
    job_id = jobs.add()
    token = jobs.run(job_id, gpus=(2, 5))
    job = jobs.get(job_id)
    assert (job.node, job.gpu_indices, job.gpu_uuids, job.pid) == ("box", (2, 5), ("GPU-2", "GPU-5"), 12)
    jobs.finish(job_id, token, S.QUEUED, Outcome.PREEMPTED)
    job = jobs.get(job_id)
    assert (job.node, job.gpu_indices, job.gpu_uuids, job.pid) == (None, None, None, None)
    assert job.log_path == f"/gpuq/jobs/{job_id}/1/output.log"


def test_text_that_a_database_cannot_hold_is_stored_readably(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    token = jobs.run(job_id)
    with records.write() as tx:
        tx.end_attempt(
            job_id, 1, token, Result(Outcome.SIGNAL, signal=11, error="bad\0byte \udcff ü", finished_at=jobs.NOW + 3)
        )
        tx.add_event(job_id, S.RUNNING, "gpuq", jobs.NOW, "log said \0")
    error = attempts_of(records, job_id)[0].error
    assert error is not None
    assert error.startswith("bad\ufffdbyte ")
    assert error.endswith(" ü")
    assert "\udcff" not in error


def test_preemptions_are_counted_from_a_time_on(jobs: Any, records: SqlRecords) -> None:
    often, once, never = jobs.add(preemptible=True), jobs.add(preemptible=True), jobs.add()
    for job_id, at in ((often, 100.0), (often, 200.0), (once, 300.0)):
        jobs.finish(job_id, jobs.run(job_id, at=at - 10), S.QUEUED, Outcome.PREEMPTED, at=at)
    jobs.finish(never, jobs.run(never, at=200.0), S.QUEUED, Outcome.LAUNCH_ERROR, at=250.0)
    with records.read() as reader:
        ids = [often, once, never]
        assert reader.preemptions(ids, since=0.0) == {often: 2, once: 1}
        assert reader.preemptions(ids, since=100.0) == {often: 1, once: 1}
        assert reader.preemptions([never, once], since=0.0) == {once: 1}
        assert reader.preemptions([], since=0.0) == {}


def test_a_peak_is_noted_on_a_live_attempt_only(jobs: Any, records: SqlRecords) -> None:
    job_id = jobs.add()
    token = jobs.run(job_id)
    with records.write() as tx:
        assert tx.note_peak(job_id, 1, token, 9000)
        assert not tx.note_peak(job_id, 1, new_token(), 9999)
        assert not tx.note_peak(job_id, 2, token, 9999)
    assert jobs.get(job_id).peak_gpu_mem_mb == 9000
    jobs.finish(job_id, token, S.COMPLETED, Outcome.SUCCEEDED)
    with records.write() as tx:
        assert not tx.note_peak(job_id, 1, token, 9999)
    # The end did not know better.
    assert [attempt.peak_gpu_mem_mb for attempt in attempts_of(records, job_id)] == [9000]


def test_what_is_seen_of_an_attempts_processes_is_kept_while_it_lives(jobs: Any, records: SqlRecords) -> None:
    first, second = jobs.add(), jobs.add()
    token, other = jobs.run(first), jobs.run(second)
    with records.write() as tx:
        assert tx.note_processes(first, 1, token, [(5, 10**12), (6, 7)], jobs.NOW)
        assert tx.note_processes(second, 1, other, [(8, 9)], jobs.NOW)
        assert tx.processes(first, 1) == [(5, 10**12), (6, 7)]
        assert tx.note_processes(first, 1, token, [(6, 7)], jobs.NOW)
        assert not tx.note_processes(first, 1, other, [(1, 1)], jobs.NOW)
        assert not tx.note_processes(first, 2, token, [(1, 1)], jobs.NOW)
        assert tx.processes(first, 1) == [(6, 7)]
        assert tx.processes(first, 2) == []
        assert tx.forget_processes() == 0
        tx.end_attempt(first, 1, token, Result(Outcome.LOST, finished_at=jobs.NOW + 5))
        assert not tx.note_processes(first, 1, token, [(1, 1)], jobs.NOW)
        assert tx.forget_processes() == 1
        assert (tx.processes(first, 1), tx.processes(second, 1)) == ([], [(8, 9)])


def test_paths_that_follow_from_the_numbers_are_told_and_not_stored(jobs: Any, records: SqlRecords) -> None:
    elsewhere = jobs.in_state(JobState.COMPLETED)
    with records.write() as tx:
        tx.set_value(InstallationKey.RUNS.of("box"), "/gpuq/jobs", jobs.NOW)
    ended, lives = jobs.in_state(JobState.COMPLETED), jobs.in_state(JobState.RUNNING)
    with records.database.read() as connection:
        stored = {row[0]: row[1] for row in connection.execute(text("SELECT job_id, run_dir FROM attempts"))}
        view = {row[0]: row[1] for row in connection.execute(text("SELECT job_id, log_path FROM attempt_history"))}
    assert stored == {elsewhere: f"/gpuq/jobs/{elsewhere}/1", ended: None, lives: None}
    assert view == {job_id: f"/gpuq/jobs/{job_id}/1/output.log" for job_id in stored}
    for job_id in stored:
        (attempt,) = attempts_of(records, job_id)
        assert (attempt.run_dir, attempt.log_path) == (f"/gpuq/jobs/{job_id}/1", view[job_id])
        assert jobs.get(job_id).log_path == view[job_id]
        assert (attempt.boot_id == "") == (job_id != lives)


def test_a_later_home_of_a_node_names_its_folders_in_full(jobs: Any, records: SqlRecords) -> None:
    with records.write() as tx:
        tx.set_value(InstallationKey.RUNS.of("box"), "/first/jobs", jobs.NOW)
    job_id = jobs.in_state(JobState.RUNNING)
    assert attempts_of(records, job_id)[0].run_dir == f"/gpuq/jobs/{job_id}/1"

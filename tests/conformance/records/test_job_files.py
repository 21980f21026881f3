"""What is known of the files of finished jobs, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.job import Attempt
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.states import JobState as S
from gpuq.errors import NotFound
from gpuq.ports.job_files import Choice, Removed, Share, Sizes, Totals, What
from gpuq.ports.records import DeadLetter
from gpuq.stores.sql import SqlJobFiles, SqlRecords, open_job_files

NOW = 1_800_000_000.0
SOME = Sizes(1000, 200, 30)
NONE = Sizes(None, None, None)
LATER = NOW + 10_000


@pytest.fixture
def files(records: SqlRecords) -> SqlJobFiles:
    return open_job_files(records.database)


def ended(jobs: Any, *, at: float, state: S = S.COMPLETED, **fields: Any) -> int:
    """A job that ran once and ended then."""
    job_id = jobs.add(**fields)
    token = jobs.run(job_id)
    outcome = Outcome.SUCCEEDED if state is S.COMPLETED else Outcome.EXIT_NONZERO
    with jobs.records.write() as tx:
        tx.end_attempt(job_id, 1, token, Result(outcome, finished_at=at))
    jobs.move(job_id, state, S.RUNNING, at=at, guard=(1, token), outcome=outcome, finished_at=at)
    return int(job_id)


def letter(jobs: Any, job_id: int) -> None:
    with jobs.records.write() as tx:
        tx.add_dead_letter(DeadLetter(job_id, NOW, "exit_nonzero", None, 1, None))


def measure(files: SqlJobFiles, sizes: Sizes = SOME) -> None:
    files.note_measured([(job, sizes) for job in files.ends_after(0, 1000)[1]])


def ids(found: Any) -> list[int]:
    return [job.id for job in found]


def test_the_ends_of_jobs_are_told_once_from_event_to_event(jobs: Any, files: SqlJobFiles) -> None:
    first = ended(jobs, at=NOW + 50)
    jobs.add()
    at, found = files.ends_after(0, 1000)
    assert [(job.id, job.user, job.uid, job.state, job.attempt, job.finished_at, job.sizes) for job in found] == [
        (first, "alice", 1000, S.COMPLETED, 1, NOW + 50, None)
    ]
    assert files.ends_after(at, 1000) == (at, [])
    second = ended(jobs, at=NOW + 60)
    assert ids(files.ends_after(at, 1000)[1]) == [second]
    # A few events at a time come to the same.
    seen, place = [], 0
    while (step := files.ends_after(place, 2))[0] > place:
        place = step[0]
        seen += ids(step[1])
    assert seen == [first, second]


def test_a_job_that_is_in_line_again_has_not_ended(jobs: Any, files: SqlJobFiles) -> None:
    job_id = ended(jobs, at=NOW + 50, state=S.FAILED)
    assert files.still_ended(job_id, NOW + 50)
    measure(files)
    jobs.move(job_id, S.QUEUED, S.FAILED, at=NOW + 60)
    assert files.ends_after(0, 1000)[1] == []
    assert files.due(What.OUTPUT, LATER, 10) == []
    assert files.chosen(Choice(), after_id=0, limit=10) == []
    assert not files.still_ended(job_id, NOW + 50)
    assert files.unended(10) == [(job_id, "alice", None, 1)]


def test_what_is_due_comes_oldest_first_without_dead_letters_and_what_is_gone(jobs: Any, files: SqlJobFiles) -> None:
    late, early, dead = (ended(jobs, at=NOW + at, state=S.FAILED) for at in (90, 50, 40))
    young = ended(jobs, at=NOW + 500)
    letter(jobs, dead)
    measure(files)
    assert ids(files.due(What.OUTPUT, NOW + 100, 10)) == [early, late]
    assert ids(files.due(What.OUTPUT, NOW + 100, 1)) == [early]
    assert ids(files.due(What.OUTPUT, NOW + 100, 10, skip=[early])) == [late]
    files.note_removed(What.OUTPUT, [early], NOW + 200, "kept for 90d")
    assert ids(files.due(What.OUTPUT, NOW + 100, 10)) == [late]
    assert ids(files.due(What.CHECKPOINTS, NOW + 100, 10)) == [early, late]
    files.note_removed(What.CHECKPOINTS, [early], NOW + 300, "cleaned by alice")
    assert ids(files.due(What.CHECKPOINTS, NOW + 100, 10)) == [late]
    assert files.removed(early, What.OUTPUT) == Removed(NOW + 200, "kept for 90d")
    assert files.removed(early, What.CHECKPOINTS) == Removed(NOW + 300, "cleaned by alice")
    assert files.removed(late, What.OUTPUT) is None
    assert files.removed(999, What.OUTPUT) is None
    assert ids(files.due(What.OUTPUT, LATER, 10)) == [late, young]


def test_a_live_attempt_is_never_due_whatever_the_row_of_its_job_says(jobs: Any, files: SqlJobFiles) -> None:
    job_id = ended(jobs, at=NOW + 50)
    measure(files)
    with jobs.records.write() as tx:
        tx.add_attempt(Attempt(job_id, 2, "t" * 32, "box", "b", (), (), None, "/r", "/r/o", NOW))
    assert files.due(What.OUTPUT, LATER, 10) == []
    assert files.chosen(Choice(ids=(job_id,)), after_id=0, limit=10) == []
    assert not files.still_ended(job_id, NOW + 50)
    assert files.ends_after(0, 1000)[1] == []


def test_a_retried_job_is_measured_anew_and_what_was_removed_before_stays_noted(jobs: Any, files: SqlJobFiles) -> None:
    job_id = ended(jobs, at=NOW + 50, state=S.FAILED)
    measure(files)
    files.note_removed(What.OUTPUT, [job_id], NOW + 70, "cleaned by alice")
    jobs.move(job_id, S.QUEUED, S.FAILED, at=NOW + 80)
    jobs.move(job_id, S.CANCELLED, S.QUEUED, at=NOW + 90, outcome=Outcome.CANCELLED, finished_at=NOW + 90)
    [job] = files.not_measured(Choice(), 10)
    assert (job.id, job.sizes) == (job_id, None)
    files.note_measured([(job, Sizes(7, 8, None))])
    assert files.not_measured(Choice(), 10) == []
    assert files.chosen(Choice(), after_id=0, limit=10)[0].sizes == Sizes(7, 8, None)
    assert files.removed(job_id, What.OUTPUT) == Removed(NOW + 70, "cleaned by alice")


def test_jobs_are_chosen_by_owner_group_state_age_and_id(jobs: Any, files: SqlJobFiles) -> None:
    mine = ended(jobs, at=NOW + 50, group="nightly")
    bobs = ended(jobs, at=NOW + 60, user="bob", state=S.FAILED)
    dead = ended(jobs, at=NOW + 70, state=S.FAILED)
    letter(jobs, dead)
    measure(files)

    def chosen(**conditions: Any) -> list[int]:
        return ids(files.chosen(Choice(**conditions), after_id=0, limit=10))

    assert chosen() == [mine, bobs]
    assert chosen(user="bob") == [bobs]
    assert chosen(group="nightly") == [mine]
    assert chosen(states=frozenset({S.FAILED})) == [bobs]
    assert chosen(before=NOW + 55) == [mine]
    assert chosen(ids=(bobs, dead)) == [bobs]
    assert ids(files.chosen(Choice(), after_id=mine, limit=10)) == [bobs]
    assert files.totals(Choice()) == Totals(2, 2000, 400, 60, 0, 1)
    files.note_removed(What.OUTPUT, [mine], NOW, "x")
    assert chosen() == [bobs]
    assert chosen(checkpoints=True) == [mine, bobs]
    late = ended(jobs, at=NOW + 80)
    assert chosen() == [bobs, late]
    assert files.totals(Choice()) == Totals(2, 1000, 200, 30, 1, 1)
    assert files.totals(Choice(user="nobody")) == Totals(0, 0, 0, 0, 0, 0)


def test_shares_are_summed_by_user_group_and_job_with_what_will_go(jobs: Any, files: SqlJobFiles) -> None:
    mine = ended(jobs, at=NOW + 50, group="nightly")
    bobs = [ended(jobs, at=NOW + at, user="bob", state=S.FAILED) for at in (60, 400)]
    measure(files)
    assert files.shares("user", NOW + 100, None, 10) == [
        Share("bob", 2, 2000, 400, 60, 1200),
        Share("alice", 1, 1000, 200, 30, 1200),
    ]
    assert files.shares("user", None, NOW + 500, 1) == [Share("bob", 2, 2000, 400, 60, 60)]
    assert [share.key for share in files.shares("group", None, None, 10)] == ["-", "nightly"]
    assert [share.key for share in files.shares("job", None, None, 10)] == [str(mine), *map(str, bobs)]
    letter(jobs, bobs[0])
    assert files.shares("user", NOW + 100, None, 10)[0].freed == 0


def test_history_is_forgotten_with_all_of_its_rows_once_nothing_is_on_the_disk(jobs: Any, files: SqlJobFiles) -> None:
    old, kept_files, dead = (ended(jobs, at=NOW + at, state=S.FAILED) for at in (50, 51, 52))
    before = ended(jobs, at=NOW + 53)
    after = jobs.add(after=[before], state=S.BLOCKED)
    young = ended(jobs, at=NOW + 500)
    measure(files)
    letter(jobs, dead)
    assert files.forget(NOW + 100, 10) == 0
    for what in What:
        files.note_removed(what, [old, dead, before, young], NOW + 200, "x")
    files.note_removed(What.OUTPUT, [kept_files], NOW + 200, "x")
    newest = jobs.add()
    assert files.forget(NOW + 100, 10) == 1
    with jobs.records.read() as reader:
        assert reader.events(job_id=old) == []
        assert reader.attempts(old) == []
        with pytest.raises(NotFound):
            reader.job(old)
        assert [reader.job(one).id for one in (kept_files, dead, before, after, young, newest)]
    assert files.forget(NOW + 100, 10) == 0


def test_the_newest_job_is_not_forgotten_because_a_database_is_recognised_by_it(jobs: Any, files: SqlJobFiles) -> None:
    first, last = ended(jobs, at=NOW + 50), ended(jobs, at=NOW + 51)
    measure(files, NONE)
    assert files.forget(LATER, 1) == 1
    assert files.forget(LATER, 10) == 0
    assert jobs.get(last).id == last
    with pytest.raises(NotFound):
        jobs.get(first)


def test_the_database_tells_its_size(files: SqlJobFiles) -> None:
    assert files.database_bytes() > 50_000

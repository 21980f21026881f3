"""Many jobs that move at once: how many questions that takes while nobody else can write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.engine.actions import dead_letters
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.maintenance import promote as promotion
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.maintenance.retain import retain
from gpuq.engine.queries.health import stats
from gpuq.ports.records import DeadLetter, JobFilter
from gpuq.server.process.stop_all import stop_jobs
from gpuq.stores.sql.core.rows import Prepared


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many statements of each kind the database was given: SELECT, UPDATE, INSERT; and how many of
    them read `submissions`, and `letters with their logs`."""
    counted: Counter[str] = Counter()
    execute = Prepared.__call__

    def counting(self: Prepared, *arguments: Any) -> Any:
        counted[self.text.partition(" ")[0]] += 1
        counted["submissions"] += "specs.spec" in self.text
        counted["letters with their logs"] += "SELECT dead_letter_queue" in self.text
        return execute(self, *arguments)

    monkeypatch.setattr(Prepared, "__call__", counting)
    return counted


def questions_to_end(world: Any, statements: Counter[str], elements: int) -> int:
    """How many SELECTs it takes to end a job that an array of so many elements waits for."""
    first = world.submit("prepare", hold=True)
    array = world.submit("train", after_any=[first], array=f"1-{elements}")
    statements.clear()
    cancel(world.ctx, first, world.user)
    asked = statements["SELECT"]
    with world.ctx.records.read() as tx:
        assert {job.state for job in tx.jobs(JobFilter(array_id=array))} == {JobState.QUEUED}
        assert tx.count(JobFilter(array_id=array)) == elements
    return asked


def test_an_array_behind_one_job_is_woken_with_as_few_questions_as_a_single_job(
    world: Any, statements: Counter[str]
) -> None:
    assert questions_to_end(world, statements, 1) == questions_to_end(world, statements, 60)


def questions_to_promote(world: Any, statements: Counter[str], count: int) -> int:
    """How many SELECTs it takes to put so many due jobs in line."""
    jobs = [world.submit("train", begin=world.clock.now() + 60) for _ in range(count)]
    world.clock.forward(61)
    statements.clear()
    assert promote(world.ctx) is None
    asked = statements["SELECT"]
    assert {world.state(job_id) for job_id in jobs} == {"queued"}
    return asked


def test_due_jobs_are_put_in_line_with_as_few_questions_as_a_single_one(world: Any, statements: Counter[str]) -> None:
    assert questions_to_promote(world, statements, 1) == questions_to_promote(world, statements, 30)


def test_more_due_jobs_than_one_batch_are_all_put_in_line(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "BATCH", 3)
    due = [world.submit("train", begin=world.clock.now() + seconds) for seconds in range(1, 8)]
    tomorrow = world.clock.now() + 86400
    later = world.submit("train", begin=tomorrow)
    world.clock.forward(60)
    assert promote(world.ctx) == tomorrow
    assert [world.state(job_id) for job_id in due] == ["queued"] * 7
    assert world.state(later) == "delayed"
    assert world.story(due[-1]) == ["delayed", "queued"]


def test_submissions_of_all_that_runs_are_read_at_once_when_it_is_stopped(world: Any, statements: Counter[str]) -> None:
    jobs = [world.submit("train", gpus=0, kill_grace_s=float(second)) for second in range(5)]
    world.agent().run_once()
    for job_id in jobs:
        world.launcher.run(job_id)
        world.launcher.end(job_id, Outcome.SUCCEEDED, exit_code=0)
    statements.clear()
    assert stop_jobs(world.ctx) == 0
    assert statements["submissions"] == 1
    graces = {stop["run_dir"]: stop["grace_s"] for stop in world.launcher.stops}
    assert graces == {world.launcher.order_of(job_id).run_dir: float(second) for second, job_id in enumerate(jobs)}


def give_dead_letters(world: Any, count: int) -> list[int]:
    jobs = [world.submit(f"train{number}", hold=True) for number in range(count)]
    with world.ctx.records.write() as tx:
        for job_id in jobs:
            tx.add_dead_letter(DeadLetter(job_id, world.clock.now(), "exit_nonzero", None, 1, "last words"))
    return jobs


def test_dead_letters_are_listed_counted_and_found_without_a_question_for_each(
    world: Any, statements: Counter[str]
) -> None:
    jobs = give_dead_letters(world, 5)
    statements.clear()
    listed = dead_letters.list_letters(world.ctx, world.user)
    assert statements["SELECT"] == 2
    assert {(letter["job_id"], letter["name"]) for letter in listed} == {
        (job_id, f"train{number}") for number, job_id in enumerate(jobs)
    }
    statements.clear()
    assert dead_letters.show_letter(world.ctx, jobs[3], world.user) == next(
        item for item in listed if item["job_id"] == jobs[3]
    )
    assert stats(world.ctx)["dead_letters"] == 5
    assert statements["letters with their logs"] == 1, "the one that was asked for"


def test_dead_letters_are_dropped_by_age_and_by_number(make_world: Callable[..., Any]) -> None:
    world = make_world(dlq_days=7.0, dlq_max=3)
    [old] = give_dead_letters(world, 1)
    world.clock.forward(3 * 86400)
    [young] = give_dead_letters(world, 1)
    assert retain(world.ctx) == 0
    world.clock.forward(4 * 86400 + 1)
    assert retain(world.ctx) == 1
    assert [letter["job_id"] for letter in dead_letters.list_letters(world.ctx, world.user)] == [young]
    assert world.job(old).id == old, "the job itself stays"
    world.clock.forward(60)
    newer = give_dead_letters(world, 3)
    assert retain(world.ctx) == 1
    assert {letter["job_id"] for letter in dead_letters.list_letters(world.ctx, world.user)} == set(newer)

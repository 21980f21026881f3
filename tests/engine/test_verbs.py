"""What each verb does to a job in each state: every column, event, topic and hint of it, and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.change import top, update
from gpuq.engine.actions.hold import hold, release
from gpuq.engine.actions.retry import retry
from gpuq.errors import Constraint, Forbidden, UsageError, WrongState

VERBS = {
    "hold": hold,
    "release": release,
    "top": top,
    "retry": retry,
    "cancel": cancel,
    "update": lambda ctx, job_id, caller: update(ctx, job_id, caller, {"name": "other"}),
}
WAITING = ("held", "queued", "delayed", "blocked")
RESULTS = {
    "hold": dict.fromkeys(WAITING, "held"),
    "release": {"held": "queued"},
    "top": {state: state for state in WAITING},
    "update": {state: state for state in (*WAITING, "starting", "running")},
    "retry": {"failed": "queued", "cancelled": "queued"},
    "cancel": {
        **dict.fromkeys(WAITING, "cancelled"),
        **dict.fromkeys(("starting", "running", "stopping"), "stopping"),
    },
}


@pytest.fixture
def jobs(make_world: Any) -> tuple[Any, dict[str, int]]:
    """A job in each of the ten states, by its name."""
    world = make_world("sim:8")
    agent = world.agent()
    found = {state: world.submit("run") for state in ("starting", "running", "stopping", "completed")}
    found["failed"] = world.submit("run", max_retries=0)
    agent.wake()
    agent.run_once()
    for state in ("running", "stopping", "completed", "failed"):
        world.launcher.run(found[state])
    agent.run_once()
    world.launcher.end(found["completed"], Outcome.SUCCEEDED, exit_code=0)
    world.launcher.end(found["failed"], Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    cancel(world.ctx, found["stopping"], world.user, grace_s=90)
    found["queued"] = world.submit("run")
    found["held"] = world.submit("run", hold=True)
    found["delayed"] = world.submit("run", begin=world.clock.now() + 1000)
    found["blocked"] = world.submit("run", after=[found["queued"]], keep_waiting=True)
    found["cancelled"] = world.submit("run")
    cancel(world.ctx, found["cancelled"], world.user)
    assert {state: world.state(job_id) for state, job_id in found.items()} == {state: state for state in found}
    world.clock.forward(10)
    return world, found


def events(world: Any, job_id: int) -> list[tuple[Any, ...]]:
    with world.ctx.records.read() as tx:
        return [
            (str(e.from_state), str(e.to_state), e.actor, e.at, e.detail, e.attempt) for e in tx.events(job_id=job_id)
        ]


class Change:
    """`row`: the columns that differ after the verb; `events`: the new ones; `topics` in the order published; `hints`:
    (id, gpus, score) that stand in the hot queue now and did not before, and those that are gone from it."""

    def __init__(
        self, world: Any, job_id: int, verb: Any, *words: Any, by: Caller | None = None, **options: Any
    ) -> None:
        before, told = asdict(world.job(job_id)), len(events(world, job_id))
        topics: list[str] = []
        line = self._line(world)
        unsubscribe = world.ctx.notifier.subscribe(lambda topic: topics.append(str(topic)))
        try:
            answer = verb(world.ctx, job_id, by or world.user, *words, **options)
        finally:
            unsubscribe()
        assert answer == world.job(job_id)
        after = asdict(answer)
        self.row = {name: after[name] for name in after if after[name] != before[name]}
        self.events = events(world, job_id)[told:]
        self.topics = topics
        self.hints = self._line(world) - line, line - self._line(world)

    @staticmethod
    def _line(world: Any) -> set[tuple[int, int, float]]:
        return {(entry.job_id, entry.gpus, entry.score) for entry in world.ctx.queue.heads(100)}


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_done_to_the_states_it_is_for_and_refused_to_the_others(jobs: Any, verb: str) -> None:
    world, found = jobs
    results: dict[str, str] = {}
    for state, job_id in found.items():
        before, told = world.job(job_id), events(world, job_id)
        try:
            results[state] = str(VERBS[verb](world.ctx, job_id, world.user).state)
        except WrongState:
            assert (world.job(job_id), events(world, job_id)) == (before, told)
    assert results == RESULTS[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_is_done_to_somebody_elses_job_but_by_an_administrator(jobs: Any, verb: str) -> None:
    world, found = jobs
    stranger = Caller("bob", uid=1001, gid=1001)
    for state in RESULTS[verb]:
        with pytest.raises(Forbidden):
            VERBS[verb](world.ctx, found[state], stranger)
        assert world.state(found[state]) == state
        assert str(VERBS[verb](world.ctx, found[state], world.admin).state) == RESULTS[verb][state]


def test_all_that_a_hold_and_its_release_write_and_tell(jobs: Any) -> None:
    world, found = jobs
    job_id, now = found["queued"], world.clock.now()
    place = (job_id, 1, world.job(job_id).score)
    held = Change(world, job_id, hold)
    assert held.row == {"state": "held", "held_by": "user"}
    assert held.events == [("queued", "held", "alice", now, "held by alice", None)]
    assert (held.topics, held.hints) == (["events"], (set(), {place}))
    again = Change(world, job_id, hold)
    assert (again.row, again.events, again.hints) == ({}, [], (set(), set()))
    freed = Change(world, job_id, release)
    assert freed.row == {"state": "queued", "held_by": None}
    assert freed.events == [("held", "queued", "alice", now, "released by alice", None)]
    assert (freed.topics, freed.hints) == (["queue", "events"], ({place}, set()))


def test_what_is_released_before_its_time_or_its_dependency_waits_for_them(jobs: Any) -> None:
    world, found = jobs
    for state in ("delayed", "blocked"):
        before = world.job(found[state])
        assert Change(world, found[state], hold).hints == (set(), set())
        freed = Change(world, found[state], release)
        assert world.job(found[state]) == before
        assert freed.topics == (["delayed", "events"] if state == "delayed" else ["events"])
        assert freed.hints == (set(), set())


def test_what_an_administrator_holds_its_owner_cannot_release(jobs: Any) -> None:
    world, found = jobs
    assert Change(world, found["queued"], hold, by=world.admin).row == {"state": "held", "held_by": "admin"}
    with pytest.raises(Forbidden, match="is held by an administrator"):
        release(world.ctx, found["queued"], world.user)
    assert release(world.ctx, found["queued"], world.admin).state == "queued"


@pytest.mark.parametrize("state", WAITING)
def test_all_that_the_cancel_of_a_waiting_job_writes_and_tells(jobs: Any, state: str) -> None:
    world, found = jobs
    job, now = world.job(found[state]), world.clock.now()
    done = Change(world, job.id, cancel, reason="a typo")
    cleared = {"eligible_at": None} if state == "delayed" else {"held_by": None} if state == "held" else {}
    assert done.row == {
        "state": "cancelled", "outcome": "cancelled", "finished_at": now, "error": "a typo", **cleared,
    }  # fmt: skip
    assert done.events == [(state, "cancelled", "alice", now, "a typo", None)]
    assert done.topics[-1] == "events"
    assert done.hints == (set(), {(job.id, 1, job.score)} if state == "queued" else set())


@pytest.mark.parametrize("state", ["starting", "running"])
def test_all_that_the_cancel_of_an_active_job_writes_and_asks_for(jobs: Any, state: str) -> None:
    world, found = jobs
    job, now = world.job(found[state]), world.clock.now()
    done = Change(world, job.id, cancel, reason="enough", grace_s=7)
    assert done.row == {"state": "stopping", "stop_reason": "cancel", "stop_deadline": now + 7}
    assert done.events == [(state, "stopping", "alice", now, "cancel: enough; SIGKILL after 7 s", 1)]
    assert (done.topics, done.hints) == (["stops", "events"], (set(), set()))
    run_dir = world.launcher.order_of(job.id).run_dir
    assert world.launcher.stops[-1] == {"run_dir": run_dir, "reason": "cancel", "grace_s": 7, "signal": None}


def test_a_second_cancel_and_a_forced_one_kill_at_once(jobs: Any) -> None:
    world, found = jobs
    now = world.clock.now()
    again = Change(world, found["stopping"], cancel, grace_s=500)
    assert again.row == {"stop_deadline": now}
    assert again.events == [("stopping", "stopping", "alice", now, "cancel; SIGKILL after 0 s", 1)]
    assert world.launcher.stops[-1]["grace_s"] == 0
    assert Change(world, found["running"], cancel, force=True, grace_s=500).row["stop_deadline"] == now
    assert world.launcher.stops[-1]["grace_s"] == 0


def test_all_that_a_retry_writes_and_tells(jobs: Any) -> None:
    world, found = jobs
    for state in ("failed", "cancelled"):
        job, now = world.job(found[state]), world.clock.now()
        done = Change(world, job.id, retry)
        cleared = dict.fromkeys(("outcome", "finished_at", "started_at", "exit_code", "error"))
        assert {name: done.row.get(name) for name in cleared} == cleared
        assert done.row["state"] == "queued"
        assert done.row["score"] == pytest.approx(job.score + now - job.submitted_at)
        assert done.events == [(state, "queued", "alice", now, "retried by alice", None)]
        assert (done.topics, done.hints) == (["queue", "events"], ({(job.id, 1, done.row["score"])}, set()))
    with world.ctx.records.read() as tx:
        assert tx.dead_letter(found["failed"]) is None


def test_top_by_an_administrator_puts_a_job_one_second_before_the_first_of_its_priority(jobs: Any) -> None:
    world, found = jobs
    first = world.job(found["queued"]).score
    other = world.submit("run")
    done = Change(world, other, top, by=world.admin)
    assert done.row == {"score": first - 1}
    assert done.events == [("queued", "queued", "root", world.clock.now(), "moved to the front of its priority", None)]
    assert done.topics == ["changed", "queue", "events"]
    assert done.hints[0] == {(other, 1, first - 1)}
    again = Change(world, other, top, by=world.admin)
    assert (again.row, again.events, again.hints) == ({}, [], (set(), set()))
    unseen = Change(world, found["delayed"], top, by=world.admin)
    assert (unseen.row, unseen.topics, unseen.hints) == ({"score": first - 2}, ["events"], (set(), set()))


def test_an_update_writes_the_named_fields_and_moves_the_job_only_for_those_that_rank_it(jobs: Any) -> None:
    world, found = jobs
    job, now = world.job(found["queued"]), world.clock.now()
    named = Change(world, job.id, update, {"name": "other", "max_retries": 9})
    assert named.row == {"name": "other", "max_retries": 9}
    assert named.events == [("queued", "queued", "alice", now, "changed: name = other, max_retries = 9", None)]
    assert (named.topics, named.hints) == (["changed", "queue", "events"], (set(), set()))
    kept = Change(world, job.id, update, {"group": "g"})
    assert kept.row == {"group": "g"}
    general = Change(world, job.id, update, {"max_retries": None})
    assert general.row == {"max_retries": world.settings.default_max_retries}
    short = Change(world, job.id, update, {"time_limit_s": 60.0})
    place = job.score - 10 * (8 * 3600 - 60)
    assert short.row == {"time_limit_s": 60.0, "score": place}
    assert short.hints == ({(job.id, 1, place)}, {(job.id, 1, job.score)})
    wide = Change(world, job.id, update, {"gpus": 3})
    assert (wide.row, wide.hints) == ({"gpus": 3}, ({(job.id, 3, place)}, {(job.id, 1, place)}))
    unseen = Change(world, found["held"], update, {"gpus": 2})
    assert (unseen.row, unseen.topics, unseen.hints) == ({"gpus": 2}, ["events"], (set(), set()))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"command": ["x"]}, UsageError),
        ({"gpus": -1}, UsageError),
        ({"name": None}, UsageError),
        ({"gpus": 9}, Constraint),
    ],
)
def test_a_refused_update_leaves_everything_as_it_was(jobs: Any, changes: Any, error: type[Exception]) -> None:
    world, found = jobs
    before, told = world.job(found["queued"]), events(world, found["queued"])
    with pytest.raises(error):
        update(world.ctx, found["queued"], world.user, changes)
    assert (world.job(found["queued"]), events(world, found["queued"])) == (before, told)


def test_dependents_move_on_when_what_they_wait_for_has_ended(jobs: Any) -> None:
    world, found = jobs
    now = world.clock.now()
    ready = world.submit("run", after_any=[found["held"]])
    later = world.submit("run", after_any=[found["held"]], begin=now + 50)
    never = world.submit("run", after=[found["held"]], keep_waiting=True)
    done = Change(world, found["held"], cancel)
    detail = f"job {found['held']} ended; nothing left to wait for"
    assert events(world, ready)[-1] == ("blocked", "queued", "gpuq", now, detail, None)
    assert events(world, later)[-1] == ("blocked", "delayed", "gpuq", now, detail, None)
    assert (world.state(never), world.job(later).eligible_at, world.job(ready).eligible_at) == (
        "blocked",
        now + 50,
        None,
    )
    assert done.hints == ({(ready, 1, world.job(ready).score)}, set())

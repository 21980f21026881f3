"""A database of the past meets the folders of attempts: what ran is not run again without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.engine.actions.hold import release
from gpuq.engine.actions.retry import retry
from gpuq.engine.home_mark import HomeMark
from gpuq.engine.recovery.import_strays import import_strays
from gpuq.engine.recovery.reconcile import Reconciled, reconcile, summary
from gpuq.engine.recovery.take_on import take_on
from gpuq.engine.strays import Strays
from gpuq.errors import WrongState
from gpuq.ports.records import Standing


class Folders:
    """The folders of attempts as a newer database left them."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.specs: dict[tuple[int, int, str], dict[str, Any]] = {}

    def add(self, job_id: int, number: int, outcome: Outcome | None = None, *, alive: bool = False, **spec: Any) -> str:
        """With an exit record if there is an outcome; its job had the first simulated GPU."""
        run_dir: str = self.world.ctx.run_dir(job_id, number)
        launcher, now = self.world.launcher, self.world.clock.now()
        env = {"CUDA_VISIBLE_DEVICES": "0", "GPUQ_JOB_NAME": "train", "LANG": "C"}
        made = {"token": f"{job_id}-{number}", "argv": ["train", "x"], "env": env, "user": "alice", "cwd": "/x", **spec}
        self.specs[(job_id, number, run_dir)] = made
        if outcome is not None:
            launcher._results[run_dir] = Result(outcome, exit_code=0, started_at=now - 9, finished_at=now - 1)
        if alive:
            launcher._alive.add(run_dir)
            launcher._launched[run_dir] = Launched(5_100_000, 1, 5_100_001, 1, now - 9)
        return run_dir

    def spec_of(self, run_dir: str) -> dict[str, Any]:
        return next(spec for (_, _, folder), spec in self.specs.items() if folder == run_dir)

    def reconcile(self) -> Reconciled:
        return reconcile(self.world.ctx, self.specs, self.spec_of)

    def attempts(self, job_id: int) -> list[tuple[int, str]]:
        with self.world.ctx.records.read() as tx:
            return [(one.number, str(one.outcome)) for one in tx.attempts(job_id)]


@pytest.fixture
def folders(world: Any) -> Folders:
    return Folders(world)


def running(world: Any) -> int:
    """A job that is, as SQL says, in its first attempt."""
    job_id: int = world.submit("train")
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    world.agents.pop().stop()
    assert world.state(job_id) == "running"
    return job_id


WAITS: dict[str, Callable[[Any], int]] = {
    "queued": lambda world: int(world.submit("train")),
    "held": lambda world: int(world.submit("train", hold=True)),
    "delayed": lambda world: int(world.submit("train", begin=world.clock.now() + 900)),
    "blocked": lambda world: int(world.submit("train", after=[world.submit("first")])),
    "running": running,
}


@pytest.mark.parametrize("state", WAITS)
def test_a_job_whose_later_attempt_succeeded_is_completed_and_wakes_who_waits(
    world: Any, folders: Folders, state: str
) -> None:
    job_id = WAITS[state](world)
    dependent = world.submit("next", after=[job_id])
    before = world.job(job_id).attempt
    folders.add(job_id, before + 1, Outcome.EXIT_NONZERO)
    folders.add(job_id, before + 2, Outcome.SUCCEEDED)
    done = folders.reconcile()
    assert (done.completed, done.held, done.strays) == ([job_id], [], [])
    job = world.job(job_id)
    assert (job.state, job.outcome, job.attempt) == ("completed", Outcome.SUCCEEDED, before + 2)
    assert folders.attempts(job_id)[-2:] == [(before + 1, "exit_nonzero"), (before + 2, "succeeded")]
    assert world.state(dependent) == "queued"
    assert "its folder says" in " ".join(event.detail or "" for event in events(world, job_id))


def events(world: Any, job_id: int) -> list[Any]:
    with world.ctx.records.read() as tx:
        return list(tx.events(job_id=job_id))


@pytest.mark.parametrize("outcome", [Outcome.EXIT_NONZERO, None])
@pytest.mark.parametrize("state", WAITS)
def test_a_job_that_ran_to_another_end_is_held_until_somebody_decides(
    world: Any, folders: Folders, state: str, outcome: Outcome | None
) -> None:
    job_id = WAITS[state](world)
    last = world.job(job_id).attempt + 2
    folders.add(job_id, last, outcome)
    assert folders.reconcile().held == [job_id]
    assert (world.state(job_id), world.job(job_id).held_by, world.job(job_id).attempt) == ("held", "past", last)
    reason = world.queries.why(job_id)["reason"]
    assert reason["code"] == "HeldByAdmin"
    assert f"gpuq release {job_id}" in reason["text"]
    assert ((last, "exit_nonzero") in folders.attempts(job_id)) == (outcome is not None)
    # What was written is not found again.
    assert folders.reconcile() == Reconciled()
    # Its owner may let it run again, under a number that was never given.
    release(world.ctx, job_id, world.user)
    assert world.job(job_id).attempt == last


def test_a_record_without_the_token_of_its_attempt_proves_nothing(world: Any, folders: Folders) -> None:
    job_id = world.submit("train")
    folders.add(job_id, 1, Outcome.SUCCEEDED, token=None)
    assert folders.reconcile().held == [job_id]


def test_a_job_that_ended_keeps_its_end_and_its_retry_gets_a_number_of_its_own(world: Any, folders: Folders) -> None:
    job_id = world.submit("train", max_retries=0)
    agent = world.agent()
    agent.run_once()
    world.launcher.run(job_id)
    agent.run_once()
    world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
    agent.run_once()
    assert world.state(job_id) == "failed"
    folders.add(job_id, 2, Outcome.SUCCEEDED)
    done = folders.reconcile()
    assert (done.held, done.completed) == ([], [])
    assert world.state(job_id) == "failed"
    retry(world.ctx, job_id, world.user)
    agent.wake()
    agent.run_once()
    assert world.job(job_id).attempt == 3


def test_what_the_database_knows_to_run_is_left_alone(world: Any, folders: Folders) -> None:
    job_id = running(world)
    folders.add(job_id, 1, alive=True)
    assert folders.reconcile() == Reconciled()
    assert world.state(job_id) == "running"


def test_strays_are_told_and_their_job_never_gets_a_second_attempt(world: Any, folders: Folders) -> None:
    ran, waits = running(world), world.submit("train")
    folders.add(waits, 1, alive=True)
    folders.add(ran, 2, alive=True)
    folders.add(99, 1, alive=True)
    folders.add(98, 1, Outcome.SUCCEEDED)
    done = folders.reconcile()
    assert [(one.job_id, one.attempt, one.gpus) for one in done.strays] == [
        (ran, 2, ("0",)),
        (waits, 1, ("0",)),
        (99, 1, ("0",)),
    ]
    assert (done.held, done.unknown) == ([ran, waits], [98, 99])
    assert any("98, 99" in line for line in summary(done))
    strays = Strays(world.ctx.home, world.launcher.alive, world.clock.monotonic)
    strays.write(done.strays)
    world.ctx = replace(world.ctx, strays=strays)
    with pytest.raises(WrongState, match="its attempt 1 runs"):
        release(world.ctx, waits, world.user)
    # Also when it stands in line again by whatever way.
    world.ctx = replace(world.ctx, strays=None)
    release(world.ctx, waits, world.user)
    world.ctx = replace(world.ctx, strays=strays)
    world.agent().run_once()
    assert world.state(waits) == "queued"


def test_a_stray_holds_its_gpu_until_its_lock_is_free(world: Any, folders: Folders) -> None:
    run_dir = folders.add(99, 1, alive=True)
    strays = Strays(world.ctx.home, world.launcher.alive, world.clock.monotonic)
    strays.write(folders.reconcile().strays)
    # As the next process finds it.
    world.ctx = replace(world.ctx, strays=Strays(world.ctx.home, world.launcher.alive, world.clock.monotonic))
    all_gpus = world.submit("train", gpus=4)
    agent = world.agent()
    agent.run_once()
    assert world.state(all_gpus) == "queued"
    assert "job 99 attempt 1" in world.queries.why(all_gpus)["reason"]["text"]
    world.launcher._alive.discard(run_dir)
    world.clock.forward(1.0)
    agent.wake()
    agent.run_once()
    assert world.state(all_gpus) == "starting"


def test_an_import_makes_a_job_of_a_stray_that_the_next_agent_adopts(world: Any, folders: Folders) -> None:
    ran, held = running(world), world.submit("train")
    folders.add(held, 1, alive=True)
    folders.add(99, 4, alive=True, time_limit_s=900.0, uid=1000, gid=1000)
    strays = Strays(world.ctx.home, world.launcher.alive, world.clock.monotonic)
    found = folders.reconcile().strays
    # One that the database has in the meantime is not imported over it.
    known = replace(found[0], job_id=ran)
    folders.add(ran, 1, alive=True)
    strays.write([*found, known])
    told = import_strays(world.ctx, strays, folders.spec_of)
    assert [(one.job_id, why) for one, why in told] == [
        (held, None),
        (99, None),
        (ran, "the job is running in the database"),
    ]
    assert strays.living() == (known,)
    job = world.job(99)
    assert (job.state, job.attempt, job.user, job.uid, job.gpus) == ("running", 4, "alice", 1000, 1)
    assert (job.command, job.name, job.cwd, job.time_limit_s) == (("train", "x"), "train", "/x", 900.0)
    assert (job.gpu_indices, job.max_retries) == ((0,), 0)
    with world.ctx.records.read() as tx:
        assert tx.spec(99)[0].env == {"LANG": "C"}
    assert {one.job.id for one in world.agent().tracked} == {held, ran, 99}


def at(name: str | None, last_event: int, last_job: int) -> Standing:
    """All that was given is committed."""
    return Standing(name, last_event, last_job, last_event, last_job)


@pytest.mark.parametrize(
    "damage",
    [
        {"env": [1], "argv": {"a": 1}, "user": None},
        {"env": None, "argv": [], "cwd": 7, "uid": "x"},
        {"argv": [""], "time_limit_s": -1},
        {"time_limit_s": "soon", "token": 5},
    ],
)
def test_a_damaged_spec_is_its_own_trouble_and_nobody_elses(
    world: Any, folders: Folders, damage: dict[str, Any]
) -> None:
    folders.add(98, 1, alive=True, **damage)
    folders.add(99, 1, alive=True)
    strays = Strays(world.ctx.home, world.launcher.alive, world.clock.monotonic)
    strays.write(folders.reconcile().strays)
    told = {one.job_id: why for one, why in import_strays(world.ctx, strays, folders.spec_of)}
    assert told.keys() == {98, 99}
    assert told[99] is None
    assert world.state(99) == "running"


class PlayedIdentity:
    """A database of that name that gave `last_job` ids."""

    def __init__(self, name: str | None, last_job: int) -> None:
        self.now = at(name, 5, last_job)

    def standing(self) -> Standing:
        return self.now

    def name_first(self, name: str) -> str:
        raise AssertionError("it is named when it is taken on")

    def take_on(self, name: str, *, last_job: int) -> Standing:
        self.now = at(name, 5, max(self.now.last_job, last_job))
        return self.now


@pytest.mark.parametrize(("name", "keeps"), [("a", False), (None, False), ("by-another-home", True)])
def test_a_database_gets_a_new_name_unless_another_home_has_given_it_one(
    world: Any, folders: Folders, name: str | None, keeps: bool
) -> None:
    mark = HomeMark(world.ctx.home)
    mark.take("a", at("a", 50, 90))
    folders.add(95, 1, Outcome.SUCCEEDED)
    identity = PlayedIdentity(name, 7)
    take_on(world.ctx, identity, mark, folders.specs, folders.spec_of, last_job=94)
    assert identity.now.last_job == 95
    assert (identity.now.installation == name) is keeps
    remembered = HomeMark(world.ctx.home).read()
    assert remembered is not None
    assert (remembered.installation, remembered.last_event) == (identity.now.installation, 5)

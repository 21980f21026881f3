"""Thousands of random steps of people, supervisors, crashes and outages, on the real stores.

After each step the promises are checked against what the played supervisors really did and against a record of what
was answered; at the end of every story all that was broken is mended, and then every job must come to its end.
`pytest --hypothesis-seed=N` repeats a run; MODEL_STORIES=N tells more or fewer stories, of sixty steps each.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from counting import counted, kept
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from world import World

from gpuq.domain import failpoints
from gpuq.domain.job import Job
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import ACTIVE, FINAL, JobState, allowed
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.change import top, update
from gpuq.engine.actions.hold import hold, release
from gpuq.engine.actions.pause import pause, resume
from gpuq.engine.actions.retry import retry
from gpuq.engine.agent import Agent
from gpuq.engine.hot.cold_store import is_cold
from gpuq.engine.maintenance.promote import promote
from gpuq.engine.maintenance.reap import reap
from gpuq.engine.maintenance.rehydrate import Reconciler, rehydrate
from gpuq.errors import DatabaseUnavailable, GpuqError, HotStoreUnavailable
from gpuq.ports.launcher import LaunchOrder
from gpuq.ports.records import JobFilter

GPUS = 3
GPU_MB = 24_000
# No story lasts so long.
LONG_S = 1e8
OF_REASON = {"cancel": Outcome.CANCELLED, "preempt": Outcome.PREEMPTED, "shutdown": Outcome.LOST}
# Points at which a process of the daemon can die in this test; the supervisors are played.
CRASHES = sorted(name for name in failpoints.POINTS if not name.startswith(("supervisor.", "launch.")))

# Outside of transactions, with something in hand that a sleeper would go on with.
SLEEPS = ["lease.taken", "claim.committed", "start.heard", "end.heard"]


class Died(BaseException):
    """The process is gone: nothing may catch this."""


class AwayRecords:
    """The real records, which refuse while the database is away."""

    def __init__(self, records: Any, machine: Queue) -> None:
        self._records = records
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    @contextlib.contextmanager
    def write(self) -> Iterator[Any]:
        if self._machine.away["sql"]:
            raise DatabaseUnavailable("the database is away")
        with self._records.write() as tx:
            yield tx


class Queue(RuleBasedStateMachine):
    """What is known without asking gpuq: what was answered, and what the supervisors did."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="gpuq-model-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self.world = World(self.home, f"sim:{GPUS}x{GPU_MB}M", order="fifo")
        # For how many more steps these do not answer.
        self.away = {"sql": 0, "redis": 0}
        self.bomb: tuple[str, int] | None = None
        self.sleeps: str | None = None
        self.answered: set[int] = set()
        # Job id → how many attempts it had when it was cancelled, or ended well, for good.
        self.no_more: dict[int, int] = {}
        self.cancel_asked: set[int] = set()
        # Jobs that somebody retried: one that waits for another which has not succeeded waits for a retry of that.
        self.by_hand: set[int] = set()
        self.checked_events = 0
        self.states: dict[int, str | None] = {}
        self.launcher = self.world.launcher
        self.plain_point = failpoints.point
        failpoints.point = self.pass_by
        self.agent: Agent | None = None
        self.boot()

    def teardown(self) -> None:
        try:
            self.mend()
            self.everything_ends()
        finally:
            failpoints.point = self.plain_point
            self.world.close()
            shutil.rmtree(self.home)

    # -- the process -------------------------------------------------------------------------------------------

    def pass_by(self, name: str) -> None:
        if self.sleeps == name:
            # The agent sleeps here for longer than the reaper waits, which runs meanwhile; then it goes on.
            self.sleeps = None
            self.world.clock.forward(25)
            with contextlib.suppress(GpuqError):
                reap(self.world.ctx)
        if self.bomb is not None and self.bomb[0] == name:
            left = self.bomb[1] - 1
            self.bomb = (name, left) if left else None
            if not left:
                raise Died(name)

    def boot(self) -> None:
        """As the daemon starts: a fresh view of the stores, the hot queue rebuilt, what runs adopted."""
        self.world.ctx.records.close()
        self.world.ctx = self.world.open()
        records = AwayRecords(self.world.ctx.records, self)
        self.world.ctx = replace(self.world.ctx, records=records)  # type: ignore[arg-type]
        self.reconciler = Reconciler(self.world.ctx)
        with contextlib.suppress(HotStoreUnavailable, DatabaseUnavailable):
            rehydrate(self.world.ctx)
            self.leases_are_held()
        self.agent = self.world.agent()

    def leases_are_held(self) -> None:
        """After a rebuild: of all that lives, before any agent has had a turn."""
        held = self.world.holders()
        with self.world.ctx.records.read() as tx:
            for job, attempt in tx.live_attempts("box"):
                for uuid in attempt.gpu_uuids:
                    assert attempt.token in held.get(uuid, ()), f"job {job.id} lives and its lease of {uuid} is not set"

    def bury(self) -> None:
        if self.world.agents:
            self.world.agents.pop().stop()
        self.agent = None

    def alive(self, work: Callable[[], Any]) -> bool:
        """Whether the process outlived this and had no error. Errors of gpuq's own are answers."""
        try:
            work()
        except GpuqError as error:
            note(f"  refused: {error.message}")
            return False
        except Died as death:
            note(f"  died at {death}")
            self.bury()
            while self.agent is None:
                try:
                    self.boot()
                except Died as again:
                    note(f"  died again at {again}")
                    self.bury()
                except GpuqError as error:
                    # A store is away. Somebody starts it again when all is well, see `mend`.
                    note(f"  not started: {error.message}")
                    self.bury()
                    break
            return False
        return True

    # -- people ------------------------------------------------------------------------------------------------

    @rule(
        gpus=st.integers(0, GPUS),
        priority=st.sampled_from(["low", "normal", "high"]),
        retries=st.integers(0, 2),
        options=st.sampled_from(
            [
                {},
                {},
                {"hold": True},
                {"preemptible": True},
                {"array": "0-2%2"},
                {"begin": 40},
                {"share": 10_000},
                {"time_limit_s": LONG_S},
                {"keep_waiting": True},
            ]
        ),
        behind=st.sampled_from([None, None, "after", "after_any"]),
        which=st.integers(0, 1000),
    )
    def submit(
        self, gpus: int, priority: str, retries: int, options: dict[str, Any], behind: str | None, which: int
    ) -> None:
        fields: dict[str, Any] = {"gpus": gpus, "priority": priority, "max_retries": retries, **options}
        if "begin" in fields:
            fields["begin"] = self.world.clock.now() + fields["begin"]
        if (share := fields.pop("share", None)) is not None and gpus:
            fields["gpu_mem_mb"] = share
        if behind is not None and self.answered:
            fields[behind] = [sorted(self.answered)[which % len(self.answered)]]
        self.alive(lambda: self.answered.update(self.submitted(fields)))

    @rule(gpus=st.integers(0, GPUS))
    def submit_plainly(self, gpus: int) -> None:
        self.alive(lambda: self.answered.update(self.submitted({"gpus": gpus})))

    @rule(gpus=st.integers(0, GPUS), at_once=st.booleans())
    def submit_to_the_agent(self, gpus: int, at_once: bool) -> None:
        """In the agent's own process: the job may start with its submission, and else the agent is told of it."""
        if at_once:
            # Most of the time somebody waits. Here all ends first, until the line is empty.
            for _ in range(3):
                for order in self.running():
                    self.start(order)
                    if self.launcher.alive(order.run_dir):
                        self.end(order, self.asked_to_stop(order) or Outcome.SUCCEEDED)
                self.turn(1)
        self.alive(lambda: self.answered.update(self.world.submit_to(self.agent, {"gpus": gpus})))

    def submitted(self, fields: dict[str, Any]) -> list[int]:
        from gpuq.domain.spec import JobSpec
        from gpuq.engine.intake.submit import submit

        spec = JobSpec.parse({"command": ["train"], "cwd": "/", **fields})
        return [job.id for job in submit(self.world.ctx, [spec], self.world.user)]

    def cancel(self, job_id: int) -> None:
        before = self.world.job(job_id).state
        cancel(self.world.ctx, job_id, self.world.user)
        self.cancel_asked.add(job_id)
        if before not in ACTIVE:
            self.no_more[job_id] = self.launches(job_id)

    def retry(self, job_id: int) -> None:
        # Noted first: a crash may cut off the answer to a retry that was written.
        if self.world.state(job_id) in {"failed", "cancelled"}:
            self.no_more.pop(job_id, None)
            self.cancel_asked.discard(job_id)
            self.by_hand.add(job_id)
        retry(self.world.ctx, job_id, self.world.user)

    def change(self, job_id: int) -> None:
        for changes in ({"priority": "critical"}, {"gpus": 1}, {"gpus": 0, "gpu_mem_mb": None}, {"name": "n"}):
            update(self.world.ctx, job_id, self.world.user, changes)

    def update(self, job_id: int) -> None:
        """Another time limit, also of a job that runs."""
        changes = {"time_limit_s": LONG_S} if self.world.job(job_id).time_limit_s is None else {"time_add_s": 3600}
        update(self.world.ctx, job_id, self.world.user, changes)

    @precondition(lambda self: self.answered)
    @rule(
        which=st.integers(0, 1000),
        verb=st.sampled_from(["cancel", "cancel", "retry", "change", "update", "update", "hold", "release", "top"]),
        cut_off=st.booleans(),
    )
    def somebody_asks(self, which: int, verb: str, cut_off: bool) -> None:
        """`cut_off`: the process dies when the request is written and not yet carried out; then preferably one about a
        job that runs."""
        runs = {order.job_id for order in self.running()} & self.answered if cut_off else set()
        job_id = sorted(runs or self.answered)[which % len(runs or self.answered)]
        if cut_off and f"{verb}.committed" in failpoints.POINTS:
            self.bomb = (f"{verb}.committed", 1)
        ours = {"cancel": self.cancel, "retry": self.retry, "change": self.change, "update": self.update}
        plain: dict[str, Callable[..., Any]] = {"hold": hold, "release": release, "top": top}
        if verb in ours:
            self.alive(lambda: ours[verb](job_id))
        else:
            self.alive(lambda: plain[verb](self.world.ctx, job_id, self.world.user))

    @rule(on=st.sampled_from([True, False, False]))
    def pause_or_resume(self, on: bool) -> None:
        self.alive(lambda: (pause if on else resume)(self.world.ctx, self.world.admin))

    # -- the daemon --------------------------------------------------------------------------------------------

    @rule(times=st.integers(1, 3))
    def turn(self, times: int) -> None:
        for _ in range(times):
            if self.agent is not None:
                self.agent.wake()
                self.alive(self.agent.run_once)

    @rule()
    def turn_of_what_is_new(self) -> None:
        """The agent believes what it has read before."""
        if self.agent is not None:
            self.agent.wake()
            self.alive(lambda: self.agent and self.agent.turn(0.0, write_after_s=0.0))

    @rule()
    def all_goes_well(self) -> None:
        """What was queued is started, and runs."""
        self.turn(1)
        for order in self.running():
            self.start(order)
        self.turn(1)

    @rule(task=st.sampled_from(["promote", "reap", "reconcile", "rebuild"]))
    def maintenance(self, task: str) -> None:
        tasks: dict[str, Callable[[], object]] = {
            "promote": lambda: promote(self.world.ctx),
            "reap": lambda: reap(self.world.ctx),
            "reconcile": self.reconciler.run,
            "rebuild": lambda: is_cold(self.world.ctx) and rehydrate(self.world.ctx),
        }
        self.alive(tasks[task])

    @rule(seconds=st.sampled_from([0.5, 3, 12, 50, 4000]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.forward(seconds)

    # -- what breaks -------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["flush", "leases expire", "redis", "sql", "launch", "clock", "crash"]),
        size=st.integers(1, 4),
    )
    def trouble(self, what: str, size: int) -> None:
        if what == "crash":
            self.bury()
            if size > 2:
                # The daemon was down for longer than its leases last.
                self.forget("*lease*")
            self.alive(self.boot)
        elif what in {"redis", "sql"}:
            self.away[what] = size
            self.world.redis.connected = not self.away["redis"]
        elif what == "launch":
            self.launcher.fail_next = OSError(28, "No space left on device")
        elif what == "clock":
            self.world.clock.jump((-5000, -10, 60, 7200)[size - 1])
        else:
            # Expired: as after a suspension longer than their time to live.
            self.forget("*lease*" if what == "leases expire" else "*")

    def forget(self, keys: str) -> None:
        if not self.away["redis"]:
            client = self.world.link.client
            for key in client.keys(keys):
                client.delete(key)

    @rule(point=st.sampled_from(CRASHES), passes=st.integers(1, 2))
    def plant(self, point: str, passes: int) -> None:
        """The process will die there."""
        self.bomb = (point, passes)

    @rule(point=st.sampled_from(SLEEPS))
    def fall_asleep(self, point: str) -> None:
        """The agent will sleep there, and go on as if nothing had happened."""
        self.sleeps = point

    @invariant()
    def outages_pass(self) -> None:
        self.away = {what: max(0, left - 1) for what, left in self.away.items()}
        self.world.redis.connected = not self.away["redis"]

    # -- supervisors -------------------------------------------------------------------------------------------

    def running(self) -> list[LaunchOrder]:
        return [order for order in self.launcher.orders if self.launcher.alive(order.run_dir)]

    def asked_to_stop(self, order: LaunchOrder) -> Outcome | None:
        reasons = [stop["reason"] for stop in self.launcher.stops if stop["run_dir"] == order.run_dir]
        return OF_REASON[reasons[0]] if reasons else None

    def start(self, order: LaunchOrder) -> None:
        if self.launcher.launched(order.run_dir, order.token) is not None:
            return
        if (outcome := self.asked_to_stop(order)) is not None:
            self.launcher.end(order.job_id, outcome)
        else:
            self.launcher.run(order.job_id)

    def end(self, order: LaunchOrder, outcome: Outcome) -> None:
        code = {Outcome.SUCCEEDED: 0, Outcome.EXIT_NONZERO: 3}.get(outcome)
        self.launcher.end(order.job_id, outcome, exit_code=code, signal=11 if outcome is Outcome.SIGNAL else None)
        if outcome is Outcome.SUCCEEDED:
            self.no_more[order.job_id] = self.launches(order.job_id)

    @precondition(lambda self: self.running())
    @rule(
        which=st.integers(0, 1000),
        what=st.sampled_from(["starts", "ends", "ends", "fails", "crashes", "obeys", "dies"]),
    )
    def supervisor(self, which: int, what: str) -> None:
        order = self.running()[which % len(self.running())]
        launched = self.launcher.launched(order.run_dir, order.token) is not None
        stop = self.asked_to_stop(order)
        ends = {"ends": Outcome.SUCCEEDED, "fails": Outcome.EXIT_NONZERO, "crashes": Outcome.SIGNAL}
        if what == "dies":
            self.launcher.die(order.job_id)
        elif what == "starts" or not launched:
            self.start(order)
        elif what in ends:
            self.end(order, ends[what])
        elif stop is not None:
            self.launcher.end(order.job_id, stop)

    # -- promises ----------------------------------------------------------------------------------------------

    def launches(self, job_id: int) -> int:
        return sum(order.job_id == job_id for order in self.launcher.orders)

    @invariant()
    def answered_jobs_are_there(self) -> None:
        with self.world.ctx.records.read() as tx:
            found = {job.id for job in tx.jobs(JobFilter(ids=tuple(sorted(self.answered))))}
        assert found == self.answered

    @invariant()
    def totals_are_those_of_a_full_count(self) -> None:
        with self.world.ctx.records.read() as tx:
            told = kept(tx.totals())
        assert told == counted(self.world.ctx.records.database)  # type: ignore[attr-defined]

    @invariant()
    def one_live_attempt_a_job(self) -> None:
        counts = Counter(order.job_id for order in self.running())
        assert all(count == 1 for count in counts.values()), counts

    @invariant()
    def no_gpu_is_given_twice(self) -> None:
        used: Counter[str] = Counter()
        for order in self.running():
            with self.world.ctx.records.read() as tx:
                share = tx.jobs(JobFilter(ids=(order.job_id,)))[0].gpu_mem_mb
            for gpu in filter(None, order.spec["env"]["GPUQ_GPUS"].split(",")):
                used[gpu] += GPU_MB if share is None else share
        assert all(memory <= GPU_MB for memory in used.values()), used

    @invariant()
    def what_is_over_is_over(self) -> None:
        for job_id, count in self.no_more.items():
            assert self.launches(job_id) == count, f"job {job_id} was started again"

    @invariant()
    def ends_are_the_true_ones(self) -> None:
        with self.world.ctx.records.read() as tx:
            for job_id in self.answered:
                for attempt in tx.attempts(job_id):
                    if attempt.outcome is None:
                        continue
                    assert not self.launcher.alive(attempt.run_dir), f"job {job_id} lives, SQL says {attempt.outcome}"
                    truth = self.launcher.outcome(attempt.run_dir, attempt.token)
                    if truth is None:
                        assert attempt.outcome in {Outcome.LOST, Outcome.LAUNCH_ERROR}
                    else:
                        assert (attempt.outcome, attempt.exit_code) == (truth.outcome, truth.exit_code)

    @invariant()
    def every_change_has_its_event(self) -> None:
        with self.world.ctx.records.read() as tx:
            events = tx.events(after_id=self.checked_events)
            jobs = {job.id: job for job in tx.jobs(JobFilter())}
        for event in events:
            before = self.states.get(event.job_id)
            assert (str(event.from_state) if event.from_state else None) == before, event
            assert event.from_state in {None, event.to_state} or allowed(event.from_state, event.to_state)
            self.states[event.job_id] = str(event.to_state)
            self.checked_events = event.id
        assert {job_id: str(job.state) for job_id, job in jobs.items()} == self.states

    @invariant()
    def supervisors_know_of_every_stop(self) -> None:
        with self.world.ctx.records.read() as tx:
            stopping = {job.id for job in tx.jobs(JobFilter(states=frozenset({JobState.STOPPING})))}
        for order in self.running():
            assert order.job_id not in stopping or self.asked_to_stop(order) is not None, order.job_id

    def supervisors_go_by_the_limits_of_sql(self) -> None:
        """Once the agent has had a turn while all was well."""
        with self.world.ctx.records.read() as tx:
            live = {attempt.token: job for job, attempt in tx.live_attempts("box")}
        for order in self.running():
            job = live.get(order.token)
            if job is not None and job.state is not JobState.STOPPING:
                known = self.launcher.limits(order.run_dir, order.token)
                assert known is not None
                assert known.time_limit_s == job.time_limit_s, f"job {job.id}"

    @invariant()
    def hopeless_jobs_are_cancelled(self) -> None:
        """Unless they keep waiting, were retried or released since, or were held when the database was of the past."""
        with self.world.ctx.records.read() as tx:
            for job in tx.jobs(JobFilter(states=frozenset({JobState.BLOCKED}))):
                if job.id in self.by_hand or tx.spec(job.id)[0].keep_waiting:
                    continue
                lost = [on for on, kind, state in tx.open_dependencies(job.id) if kind == "success" and state in FINAL]
                assert not lost, f"job {job.id} waits in vain for {lost}"

    @invariant()
    def a_cancel_is_never_forgotten(self) -> None:
        # While the database takes no writes, the supervisor of an active job is told, and SQL hears of it later.
        told = {order.token for order in self.launcher.orders if self.asked_to_stop(order) is not None}
        for job_id in self.cancel_asked:
            job = self.world.job(job_id)
            assert job.state in {"stopping", "cancelled", "completed"} or (job.state in ACTIVE and job.token in told)

    # -- the end of the story ----------------------------------------------------------------------------------

    def mend(self) -> None:
        self.away = {"sql": 0, "redis": 0}
        self.world.redis.connected = True
        self.bomb = self.sleeps = None
        self.launcher.fail_next = None
        if self.agent is None:
            # Its start was refused while a store was away; somebody starts it again.
            self.bury()
            self.alive(self.boot)
        self.trouble("leases expire", 1)
        self.maintenance("rebuild")
        resume(self.world.ctx, self.world.admin)

    def everything_ends(self) -> None:
        """Nothing was lost: with all well again every job comes to its end by itself."""
        for _ in range(60):
            open_jobs = self.open_jobs()
            if not open_jobs:
                break
            for job in open_jobs:
                if job.state is JobState.HELD:
                    release(self.world.ctx, job.id, self.world.user)
            self.maintenance("rebuild")
            self.reconciler.run()
            self.world.clock.forward(4000)
            promote(self.world.ctx)
            reap(self.world.ctx)
            self.turn(2)
            self.supervisors_go_by_the_limits_of_sql()
            for order in self.running():
                self.start(order)
                if not self.launcher.alive(order.run_dir):
                    continue
                self.turn(1)
                self.launcher.end(order.job_id, self.asked_to_stop(order) or Outcome.SUCCEEDED)
            self.turn(1)
            self.check_invariants_of_the_end()
        assert not self.open_jobs(), [(job.id, job.state) for job in self.open_jobs()]
        # A cancel that Redis did not hear of leaves a member in the queue until the agent's next slow look.
        self.world.clock.forward(10)
        self.turn(1)
        assert self.world.holders() == {}
        assert sum(self.world.ctx.queue.sizes().values()) == 0

    def check_invariants_of_the_end(self) -> None:
        self.one_live_attempt_a_job()
        self.no_gpu_is_given_twice()
        self.every_change_has_its_event()
        self.ends_are_the_true_ones()

    def open_jobs(self) -> list[Job]:
        """Jobs that should still get somewhere: not those that wait for one that failed."""
        with self.world.ctx.records.read() as tx:
            jobs = tx.jobs(JobFilter(states=frozenset(JobState) - FINAL))
            stuck = {job.id for job in jobs if job.state is JobState.BLOCKED}
            return [job for job in jobs if job.id not in stuck or not self.waits_for_ever(tx, job.id)]

    def waits_for_ever(self, tx: Any, job_id: int) -> bool:
        for on_id, kind, state in tx.open_dependencies(job_id):
            if state in FINAL and kind == "success":
                return True
            if state is JobState.BLOCKED and self.waits_for_ever(tx, on_id):
                return True
        return False


STORIES = int(os.environ.get("MODEL_STORIES", "150"))


@pytest.mark.timeout(600)
def test_no_story_of_crashes_and_outages_breaks_a_promise() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Queue,
        settings=settings(
            max_examples=STORIES,
            stateful_step_count=60,
            deadline=None,
            print_blob=True,
            database=None,
            derandomize=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )

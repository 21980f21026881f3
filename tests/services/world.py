"""The engine on a real SQLite database, Redis scripts on fakeredis, and a launcher that the test plays."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypedDict

import fakeredis
import pytest

from gpuq.domain.caller import Caller
from gpuq.domain.job import Job, Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.oversight import Family, Sight, SupervisorState
from gpuq.domain.proof_of_death import Evidence, Sign
from gpuq.domain.spec import JobSpec
from gpuq.engine.accounts import Accounts
from gpuq.engine.agent import Agent
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.engine.epoch import EpochCell
from gpuq.engine.file_lock import FileLock
from gpuq.engine.intake.request import Asked
from gpuq.engine.intake.submit import store, submit
from gpuq.engine.intake.to_agent import chance_of, tell
from gpuq.engine.maintenance.rehydrate import rehydrate
from gpuq.engine.node_lock import NodeLocks
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.engine.run_times import RunTimes
from gpuq.gpus.simulated import SimulatedGpus
from gpuq.ports.launcher import AttemptLimits, LaunchOrder, Oversight
from gpuq.settings import Settings
from gpuq.stores import redis as redis_stores
from gpuq.stores import sql as sql_stores
from gpuq.stores.secret_key import SecretKeyFile

BOOT = "boot-1"
WELL = Sight(SupervisorState.RUNS, pid=7, start=1)


class FakeClock:
    """The wall clock may jump, the monotonic one only goes on."""

    def __init__(self) -> None:
        self.time = 1_795_341_600.0
        self.jumped = 0.0

    def now(self) -> float:
        return round(self.time + self.jumped, 3)

    def monotonic(self) -> float:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock, forward or back."""
        self.jumped += seconds


class Stop(TypedDict):
    """A stop request as the supervisor would find it. `grace_s` in seconds."""

    run_dir: str
    reason: str
    grace_s: float
    signal: str | None


class PlayedRehearsal:
    """Is over when the test says so, and went as it says."""

    def __init__(self, over: bool, failure: str | None) -> None:
        self._over, self._failure = over, failure

    def over(self) -> bool:
        return self._over

    def close(self) -> str | None:
        return self._failure if self._over else "no supervisor takes a launch"


class PlayedOversight:
    """Supervisors look as the test says, by job id; nothing helps, unless the test makes it."""

    def __init__(self, launcher: PlayedLauncher) -> None:
        self._launcher = launcher
        self.sights: dict[int, Sight] = {}
        self.families: dict[int, Family | None] = {}
        self.looks = 0
        self.resumed: list[Sight] = []
        self.taken_over: list[tuple[int, str | None, float]] = []

    def is_well(self, known: Launched) -> bool:
        for order in self._launcher.orders:
            if self._launcher.launched(order.run_dir, order.token) == known:
                sight = self.sights.get(order.job_id, WELL)
                return sight.state is not SupervisorState.STANDS_STILL and not sight.main_ended
        return True

    def look(self, run_dir: str, known: Launched | None) -> Sight:
        self.looks += 1
        return self.sights.get(self._job(run_dir), WELL)

    def family(self, known: Launched) -> Family | None:
        return self.families.get(known.pid, Family([], grouped=True))

    def resume(self, sight: Sight) -> None:
        self.resumed.append(sight)

    def resume_fork_server(self) -> bool:
        return False

    def take_over(
        self, run_dir: str, token: str, known: Launched | None, *, reason: str | None, grace_s: float
    ) -> float | None:
        self.taken_over.append((self._job(run_dir), reason, round(grace_s, 3)))
        return None

    def _job(self, run_dir: str) -> int:
        return next(order.job_id for order in self._launcher.orders if order.run_dir == run_dir)


class PlayedLauncher:
    """A launcher whose supervisors do what the test says. Locks and folders are dictionaries."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.oversight: Oversight = PlayedOversight(self)
        self.orders: list[LaunchOrder] = []
        self.stops: list[Stop] = []
        # By folder of the attempt, what its supervisor goes by besides its order; `deaf`: of an earlier release.
        self.limits_told: dict[str, tuple[float | None, float | None]] = {}
        self.deaf = False
        self.fail_limits: OSError | None = None
        self.fail_next: Exception | None = None
        self.fail_rehearsal: OSError | None = None
        self.rehearsal_over = True
        self.rehearsal_failure: str | None = None
        self.rehearsals = 0
        self._alive: set[str] = set()
        self._launched: dict[str, Launched] = {}
        self._results: dict[str, Result] = {}
        self._report_ends: dict[str, int] = {}
        self._end_pipes: dict[int, int] = {}
        self.swept: list[str] = []
        self.written: list[str] = []
        self.swept_seen: list[tuple[int, int]] = []
        self.unkillable: set[str] = set()
        # By token: what the test says that there is to see of it.
        self.signs: dict[str, Evidence] = {}

    def warm_up(self) -> None: ...

    def start(self, order: LaunchOrder) -> int:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        assert order.run_dir not in {done.run_dir for done in self.orders}, "an attempt was launched twice"
        read_end, write_end = os.pipe()
        if any(stop["run_dir"] == order.run_dir for stop in self.stops):
            # A supervisor that finds a stop request in the folder does not start the job.
            self._results[order.run_dir] = Result(Outcome.LOST, finished_at=self.clock.now())
            os.close(write_end)
            return read_end
        self.orders.append(order)
        self._alive.add(order.run_dir)
        self._report_ends[order.run_dir] = write_end
        return read_end

    def begun(self, run_dir: str) -> bool:
        return run_dir in self._launched

    def rehearse(self, folder: str) -> PlayedRehearsal:
        self.rehearsals += 1
        if self.fail_rehearsal is not None:
            raise self.fail_rehearsal
        return PlayedRehearsal(self.rehearsal_over, self.rehearsal_failure)

    def order_of(self, job_id: int) -> LaunchOrder:
        return [order for order in self.orders if order.job_id == job_id][-1]

    def launched_of(self, job_id: int) -> Launched:
        return self._launched[self.order_of(job_id).run_dir]

    def run(self, job_id: int, *, supervisor_pid: int | None = None, pid: int | None = None) -> None:
        """The supervisor of the job's last attempt reports that its process exists. The numbers are those of no
        process unless the test gives those of real ones."""
        run_dir = self.order_of(job_id).run_dir
        unused = 5_000_000 + 10 * len(self._launched)
        self._launched[run_dir] = Launched(supervisor_pid or unused, 1, pid or unused + 1, 1, self.clock.now())
        # The agent that wanted the report may be dead.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._report_ends[run_dir], run_dir.encode())

    def end(self, job_id: int, outcome: Outcome, **facts: Any) -> None:
        """The supervisor writes its exit record and is gone."""
        run_dir = self.order_of(job_id).run_dir
        launched = self._launched.get(run_dir)
        started = launched.started_at if launched else None
        self._results[run_dir] = Result(outcome, started_at=started, finished_at=self.clock.now(), **facts)
        self.die(job_id)

    def die(self, job_id: int) -> None:
        """Gone without a record, unless one was written before."""
        run_dir = self.order_of(job_id).run_dir
        self._alive.discard(run_dir)
        if run_dir in self._report_ends:
            os.close(self._report_ends.pop(run_dir))
        launched = self._launched.get(run_dir)
        if launched is not None and launched.supervisor_pid in self._end_pipes:
            os.close(self._end_pipes.pop(launched.supervisor_pid))

    def report(self, fd: int) -> Launched | None:
        return self._launched.get(os.read(fd, 4096).decode())

    def take_spare(self, checkpoint: str, uid: int | None, gid: int | None) -> bool:
        return False

    def end_written(
        self, run_dir: str, token: str, launched: Launched | None, result: Result, gpus: Sequence[str]
    ) -> None:
        self.written.append(run_dir)

    def told_end(self, token: str) -> Result | None:
        return None

    def launched(self, run_dir: str, token: str) -> Launched | None:
        return self._launched.get(run_dir)

    def alive(self, run_dir: str) -> bool:
        return run_dir in self._alive

    def evidence(
        self,
        run_dir: str,
        token: str,
        launched: Launched | None,
        uid: int | None,
        family: Collection[tuple[int, int]] = (),
    ) -> Evidence:
        lock = Sign.LIVES if self.alive(run_dir) else Sign.GONE
        marked = Sign.LIVES if token in self.unkillable else Sign.GONE
        return self.signs.get(token) or Evidence(lock, Sign.UNTOLD, marked=marked)

    def watch(self, running: Launched) -> int | None:
        for run_dir, launched in self._launched.items():
            if launched == running and run_dir in self._alive:
                read_end, write_end = os.pipe()
                self._end_pipes[running.supervisor_pid] = write_end
                return read_end
        return None

    def outcome(self, run_dir: str, token: str) -> Result | None:
        return self._results.get(run_dir)

    def told_to_cancel(self, run_dir: str) -> bool:
        return any(stop["run_dir"] == run_dir and stop["reason"] == "cancel" for stop in self.stops)

    def request_stop(self, run_dir: str, *, reason: str, grace_s: float, signal: str | None = None) -> None:
        self.stops.append(Stop(run_dir=run_dir, reason=reason, grace_s=grace_s, signal=signal))

    def limits(self, run_dir: str, token: str) -> AttemptLimits | None:
        for order in self.orders:
            if (order.run_dir, order.token) == (run_dir, token):
                time_limit_s, grace_s = order.spec["time_limit_s"], order.spec["kill_grace_s"]
                told = self.limits_told.get(run_dir)
                if told is not None:
                    time_limit_s, grace_s = told[0], grace_s if told[1] is None else told[1]
                return AttemptLimits(time_limit_s, grace_s, heard=not self.deaf)
        return None

    def change_limits(
        self, run_dir: str, token: str, *, time_limit_s: float | None, kill_grace_s: float | None
    ) -> None:
        if self.fail_limits is not None:
            raise self.fail_limits
        self.limits_told[run_dir] = (time_limit_s, kill_grace_s)

    def progress(self, run_dir: str, uid: int | None) -> dict[str, Any] | None:
        return None

    def sweep(
        self,
        token: str,
        session: int | None,
        session_start: int | None = None,
        uid: int | None = None,
        seen: Collection[tuple[int, int]] = (),
    ) -> int:
        self.swept_seen = list(seen)
        if token in self.unkillable:
            raise TimeoutError("a process of it cannot be killed")
        self.swept.append(token)
        return 0

    def close(self) -> None:
        for fd in [*self._report_ends.values(), *self._end_pipes.values()]:
            os.close(fd)


class World:
    """One installation and the people who use it."""

    def __init__(self, home: Path, gpus: str, **settings: Any) -> None:
        self.clock = FakeClock()
        # Its users may ask for every priority, unless a test is about that.
        self.settings = Settings(home=home, gpus=gpus, node="box", **{"user_priority": "critical", **settings})
        self.redis = fakeredis.FakeServer()
        self.launcher = PlayedLauncher(self.clock)
        self.user = Caller("alice", uid=1000, gid=1000)
        self.admin = Caller("root", uid=0, gid=0, admin=True)
        self.accounts = Accounts(daemon_uid=4242)
        self.agents: list[Agent] = []
        self.random = Random(1)
        sql_stores.migrate.ensure(self.settings.database_url)
        self.ctx = self.open()

    def open(self) -> Context:
        """What a newly started process sees."""
        url = self.settings.database_url
        base = sql_stores.open_database(url)
        records, history = sql_stores.open_records(base), sql_stores.open_history(base)
        client = fakeredis.FakeRedis(server=self.redis, decode_responses=True)
        link = redis_stores.RedisLink(client, self.settings.namespace)
        self.link = link
        epoch = EpochCell(records)
        return Context(
            settings=self.settings,
            records=records,
            history=history,
            tokens=sql_stores.open_tokens(base),
            web_sessions=sql_stores.open_web_sessions(base),
            maintenance_runs=sql_stores.open_maintenance(base),
            files=sql_stores.open_job_files(base),
            queue=redis_stores.RedisHotQueue(link, expected_epoch=epoch.get),
            leases=redis_stores.RedisLeases(link, expected_epoch=epoch.get),
            agent_key=redis_stores.RedisAgentKey(link),
            notifier=redis_stores.LocalNotifier(),
            clock=self.clock,
            # Nobody's accounts are asked for: its users are made up.
            accounts=self.accounts,
            gpus=SimulatedGpus(self.settings.gpus, self.settings.home / "sim-gpus.json"),
            launcher=self.launcher,
            run_times=RunTimes(history),
            epoch=epoch,
            boot_id=BOOT,
            new_token=lambda: f"{self.random.getrandbits(128):032x}",
            secrets=SecretKeyFile(self.settings.home),
            random=Random(1),
        )

    def submit(self, *command: str, by: Caller | None = None, **fields: Any) -> int:
        spec = JobSpec.parse({"command": list(command) or ["true"], "cwd": "/", **fields})
        return submit(self.ctx, [spec], by or self.user)[0].id

    def submit_to(
        self, agent: Agent | None, *jobs: dict[str, Any], by: Caller | None = None, **options: Any
    ) -> list[int]:
        """As the daemon does: the job may start with its submission, or the agent is told of it."""
        specs = [JobSpec.parse({"command": ["train"], "cwd": "/", **fields}) for fields in jobs or ({},)]
        asked = Asked(specs, by or self.user, **options)
        with chance_of(self.ctx, agent, asked) as chance:
            done = store(self.ctx, asked, chance)
        tell(self.ctx, done, agent)
        return done.ids

    def agent(self) -> Agent:
        """An agent without its thread, so the test takes the turns; adopts what runs, as after a restart."""
        lock = FileLock(self.ctx.agent_lock_path, "an agent")
        key = redis_stores.RedisAgentKey(self.link)
        locks = NodeLocks(lock, key, node="box", token=f"agent-{len(self.agents)}", ttl_s=30)
        agent = Agent(self.ctx, locks)
        self.agents.append(agent)
        agent.open()
        return agent

    @property
    def queries(self) -> JobQueries:
        return JobQueries(self.ctx)

    def job(self, job_id: int) -> Job:
        with self.ctx.records.read() as tx:
            return tx.job(job_id)

    def ended(self, job_id: int, result: Result | None = None, *, number: int = 1) -> TrackedAttempt:
        """An attempt of the job as one sees it who knows of its end: without `result`, by its exit record."""
        with self.ctx.records.read() as tx:
            [attempt] = [attempt for attempt in tx.attempts(job_id) if attempt.number == number]
            tracked = TrackedAttempt.of_record(tx.job(job_id), attempt, None)
        tracked.result = result or self.launcher.outcome(attempt.run_dir, attempt.token)
        assert tracked.result is not None
        return tracked

    def state(self, job_id: int) -> str:
        return str(self.job(job_id).state)

    def story(self, job_id: int) -> list[str]:
        """States that the job went through, as its events tell."""
        with self.ctx.records.read() as tx:
            return [str(event.to_state) for event in tx.events(job_id=job_id)]

    def driver_says(self, gpus: Mapping[int, Mapping[str, object]]) -> None:
        """The driver's readings from now on, by GPU index as in the state file of simulated GPUs; a GPU that is not
        named is empty and healthy."""
        path = self.settings.home / "sim-gpus.json"
        # Replaced, so that a second change within one tick of the file system's clock is seen.
        path.with_suffix(".new").write_text(json.dumps(gpus))
        path.with_suffix(".new").replace(path)

    def holders(self) -> dict[str, list[str]]:
        return self.ctx.leases.holders("box")

    def close(self) -> None:
        for agent in self.agents:
            agent.stop()
        self.launcher.close()
        self.ctx.records.close()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(gpus: str = "sim:4", **settings: Any) -> World:
        home = tmp_path / f"home{len(worlds)}"
        home.mkdir()
        world = World(home, gpus, **settings)
        rehydrate(world.ctx)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()

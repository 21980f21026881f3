"""The only file that names concrete stores: settings in, a Context and running services out."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

from gpuq.domain import failpoints
from gpuq.domain.ids import new_token
from gpuq.engine.accounts import Accounts
from gpuq.engine.agent import Agent
from gpuq.engine.context import Context
from gpuq.engine.disk_reserve import DiskReserve
from gpuq.engine.epoch import EpochCell
from gpuq.engine.file_lock import FileLock
from gpuq.engine.home_mark import HomeMark
from gpuq.engine.maintenance.timers import Maintenance
from gpuq.engine.node_lock import NodeLocks
from gpuq.engine.overseer import Overseer
from gpuq.engine.recovery.recognise import recognise, recognise_again
from gpuq.engine.run_times import RunTimes
from gpuq.engine.service import Service
from gpuq.engine.strays import Strays
from gpuq.errors import ForeignDatabase, HotStoreUnavailable
from gpuq.home import prepare_home
from gpuq.ports.gpus import GpuSource
from gpuq.ports.notify import Notifier, Topic
from gpuq.settings import Settings
from gpuq.stores import redis as redis_stores
from gpuq.stores import sql as sql_stores
from gpuq.stores.redis.health import check
from gpuq.stores.secret_key import SecretKeyFile
from gpuq.supervise import attempt_folders, previous_folders, rehearsal
from gpuq.supervise.launch import ForkServerLauncher
from gpuq.user_files import make_passage

log = logging.getLogger(__name__)
Role = Literal["server", "agent", "maintain"]
ALL_ROLES: frozenset[Role] = frozenset({"server", "agent", "maintain"})
REDIS_WATCH_S = 1.0


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        return round(time.time(), 3)

    def monotonic(self) -> float:
        # BOOTTIME also counts while the machine is suspended, as leases do.
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def database() -> ModuleType:
    """The migration functions: upgrade, current, backup, restore."""
    from gpuq.stores.sql import migrate

    return migrate


def report_role() -> ModuleType:
    """The functions for PostgreSQL's login of reports: make, excess, may_harm."""
    from gpuq.stores.sql.questions import report_role

    return report_role


def open_gpus(settings: Settings) -> GpuSource:
    """The GPUs that the settings name: those of the NVIDIA driver, or simulated ones."""
    if settings.gpus == "nvml":
        from gpuq.gpus.exclusive import nvidia_gpus

        return nvidia_gpus(str(settings.home))
    from gpuq.gpus.simulated import SimulatedGpus

    return SimulatedGpus(settings.gpus, settings.home / "sim-gpus.json")


def stop_means(settings: Settings) -> str | None:
    """By what a daemon of this home, or one started by this process, ends all of a job's processes for certain; None:
    it can only look for them in /proc."""
    from gpuq.supervise import cgroup

    return cgroup.means(str(settings.home))


def why_not_isolated(settings: Settings) -> str | None:
    """None when jobs that a daemon like this process starts see only their own GPUs' device nodes; else why not."""
    if settings.isolate_gpus == "off":
        return "GPUQ_ISOLATE_GPUS is off"
    if os.geteuid() != 0:
        return "only a daemon of root's can hide the device nodes of other GPUs"
    from gpuq.supervise import isolation

    return isolation.works()


def _isolates(settings: Settings, gpus: GpuSource) -> bool:
    why_not = why_not_isolated(settings)
    if why_not is not None and settings.isolate_gpus == "on" and os.geteuid() == 0 and gpus.hidden_from(()):
        log.warning("jobs can open every GPU's device node: %s; see `gpuq doctor`", why_not)
    return why_not is None


def open_context(settings: Settings, *, roles: Collection[Role] = (), taking_on: bool = False) -> Context:
    """Opens (and, if it is new, creates) the database; connects to nothing else yet. `roles`: what this process is
    going to be; empty for a command that works straight on the database. Raises ForeignDatabase when it is not the one
    that this home worked with; without roles only a write does, and with `taking_on` nothing."""
    base, disk = _open_database(settings)
    mark = HomeMark(settings.home)
    history = sql_stores.open_history(base, settings.report_database_url)
    records = sql_stores.open_records(base, mark, None if taking_on else _recognised(settings, base, mark, roles))
    if roles:
        redis_stores.read_scripts()
    link = redis_stores.connect(settings.redis_url or private_redis_url(settings), settings.namespace)
    epoch, gpus = EpochCell(records), open_gpus(settings)
    expected = epoch.get if "agent" in roles or "maintain" in roles else None
    launcher = ForkServerLauncher(str(settings.home / "supervisors.log"), str(settings.home))
    return Context(
        settings=settings,
        records=records,
        history=history,
        **sql_stores.open_beside_the_records(base),
        # A daemon wakes its agent by the notifier; a command that works straight on the database has only this way.
        queue=redis_stores.RedisHotQueue(link, expected_epoch=expected, announce=not roles),
        leases=redis_stores.RedisLeases(link, expected_epoch=expected),
        agent_key=redis_stores.RedisAgentKey(link),
        notifier=_notifier(settings, link, roles),
        clock=SystemClock(),
        accounts=Accounts(),
        gpus=gpus,
        isolates_gpus="agent" in roles and _isolates(settings, gpus),
        launcher=launcher,
        run_times=RunTimes(history),
        epoch=epoch,
        boot_id=failpoints.boot_id() or Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        new_token=new_token,
        secrets=SecretKeyFile(settings.home),
        disk=disk,
        strays=Strays(settings.home, launcher.alive),
        safeguard=_safeguard(base, mark) if roles else None,
    )


def _open_database(settings: Settings) -> tuple[sql_stores.Database, DiskReserve]:
    prepare_home(settings.home)
    sql_stores.migrate.ensure(settings.database_url)
    base = sql_stores.open_database(settings.database_url)
    disk = DiskReserve(settings.home, _beside(base.path))
    if base.path is not None:
        base.make_room = disk.make_room
    return base, disk


def _recognised(
    settings: Settings, base: sql_stores.Database, mark: HomeMark, roles: Collection[Role]
) -> ForeignDatabase | None:
    folders = attempt_folders.job_ids(str(settings.home / "jobs")) if roles else []
    identity = sql_stores.SqlIdentity(base)
    refusal = recognise(identity, mark, highest_folder=max(folders, default=0), daemon=bool(roles), new_name=new_token)
    if refusal is not None and roles:
        base.close()
        raise refusal
    return refusal


def _safeguard(base: sql_stores.Database, mark: HomeMark) -> Callable[[], None]:
    identity, guard = sql_stores.SqlIdentity(base), sql_stores.DatabaseGuard(base, mark.is_in)

    def run() -> None:
        recognise_again(identity, mark, guard.refuse)
        sql_stores.checkpoint(base)

    return run


def _beside(database: Path | None) -> Path | None:
    """The write-ahead log of a SQLite database."""
    return None if database is None else database.with_name(f"{database.name}-wal")


def private_redis_url(settings: Settings) -> str:
    return redis_stores.private_url(settings.home)


def _notifier(settings: Settings, link: redis_stores.RedisLink, roles: Collection[Role]) -> Notifier:
    # One process that has every role and its own Redis makes all changes itself; others hear of them by pub/sub.
    if not roles or (settings.redis_url is None and set(roles) >= ALL_ROLES):
        return redis_stores.LocalNotifier()
    return redis_stores.RedisNotifier(link)


@dataclass
class Services:
    """What runs in this process, stopped in reverse order."""

    agent: Agent | None = None
    maintenance: Maintenance | None = None
    _stops: list[Callable[[], None]] = field(default_factory=list)

    def run(self, service: Service) -> None:
        """Starts a service; `stop` will stop it even when its start is interrupted."""
        # First, because a start that a signal interrupts may already have a child or a thread.
        self._stops.append(service.stop)
        service.start()

    def stop(self) -> None:
        """Stops the services, the last started first."""
        while self._stops:
            self._stops.pop()()


def start_services(ctx: Context, roles: Collection[Role]) -> Services:
    """Redis first (if it is ours to run), then maintenance, which fills it, then the agent. Raises AlreadyRunning and
    ConfigError; whatever was started before is stopped again."""
    services = Services()
    try:
        if ctx.settings.redis_url is None and ("maintain" in roles):
            services.run(_RedisKeeper(ctx))
        elif ctx.settings.redis_url is not None and "maintain" in roles:
            _warn_about_redis(ctx)
        ctx.run_times.refresh()
        if "maintain" in roles:
            services.maintenance = Maintenance(ctx, FileLock(ctx.home / "maintain.lock", "maintenance of this home"))
            services.run(services.maintenance)
        if "agent" in roles:
            lock = FileLock(ctx.agent_lock_path, f"an agent for the node {ctx.node}")
            locks = NodeLocks(lock, ctx.agent_key, node=ctx.node, token=new_token(), ttl_s=ctx.settings.lease_ttl)
            # On a disk that is full there is none yet; whatever is launched tells so.
            with contextlib.suppress(OSError):
                make_passage(str(ctx.home / "jobs"))
                previous_folders.close(str(ctx.home / "jobs"), ctx.launcher.alive)
            ctx.launcher.warm_up()
            agent = services.agent = Agent(ctx, locks)
            services.run(agent)
            rehearsal.clear(str(ctx.home / "jobs"))
            services.run(Overseer(ctx, lambda: agent.tracked))
    except BaseException:
        services.stop()
        raise
    return services


def _link(ctx: Context) -> redis_stores.RedisLink:
    assert isinstance(ctx.queue, redis_stores.RedisHotQueue)
    return ctx.queue.link


def _warn_about_redis(ctx: Context) -> None:
    try:
        for warning in check(_link(ctx)):
            log.warning("redis: %s", warning)
    except HotStoreUnavailable as error:
        log.warning("redis does not answer yet: %s", error.message)


class _RedisKeeper:
    """Keeps the private redis-server alive."""

    name = "private redis"

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._redis = redis_stores.PrivateRedis(ctx.home)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpuq-redis", daemon=True)

    def start(self) -> None:
        self._redis.ensure()
        self._thread.start()

    def run_once(self) -> None:
        if self._redis.ensure():
            log.warning("the private redis-server had died and was started again")
            self._ctx.notifier.publish(Topic.COLD)

    def stop(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._redis.stop()

    def _watch(self) -> None:
        while not self._stop.wait(REDIS_WATCH_S):
            try:
                self.run_once()
            except Exception:
                log.exception("the private redis-server could not be started")

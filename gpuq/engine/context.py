"""What the engine is given: the stores, the clock, the drivers, and the name of this machine.

One process has one `Context`, made by `gpuq.wiring`. Each room takes the slice of it that it uses, and with that slice
the slices of the rooms that it calls; so what a room cannot do, a type checker refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from gpuq.domain.gpu import Gpu
from gpuq.settings import Settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from gpuq.domain.job import Launched
    from gpuq.engine.accounts import Accounts
    from gpuq.engine.disk_reserve import DiskReserve
    from gpuq.engine.epoch import EpochCell
    from gpuq.engine.run_times import RunTimes
    from gpuq.engine.strays import Strays
    from gpuq.ports.admin import MaintenanceRuns, Tokens, WebSessions
    from gpuq.ports.clock import Clock
    from gpuq.ports.gpus import GpuSource
    from gpuq.ports.history import History
    from gpuq.ports.hot_queue import AgentKey, HotQueue, Leases
    from gpuq.ports.job_files import JobFiles
    from gpuq.ports.launcher import AttemptLimits, Launcher
    from gpuq.ports.notify import Notifier
    from gpuq.ports.records import Reader, Records
    from gpuq.ports.secrets import SecretBox


class ReadOnlyRecords(Protocol):
    """Records to those who may not change them."""

    def read(self) -> AbstractContextManager[Reader]:
        """A transaction that cannot write. Raises DatabaseUnavailable."""


class AttemptFolders(Protocol):
    """The launcher to those who may only look at attempts: see `gpuq.ports.launcher.Launcher`."""

    def launched(self, run_dir: str, token: str) -> Launched | None:
        """What the supervisor reported of its start; None when there is no report."""

    def progress(self, run_dir: str, uid: int | None) -> dict[str, Any] | None:
        """What the job of user `uid` wrote of its progress; None when there is nothing readable."""


class AttemptStops(Protocol):
    """The launcher to those who may only ask attempts to stop: see `gpuq.ports.launcher.Launcher`."""

    def request_stop(self, run_dir: str, *, reason: str, grace_s: float, signal: str | None = None) -> None:
        """Asks the supervisor to stop its job. Raises OSError when it cannot be written."""


class LimitChanges(Protocol):
    """The launcher to those who may only change the limits of attempts: see `gpuq.ports.launcher.Launcher`."""

    def limits(self, run_dir: str, token: str) -> AttemptLimits | None:
        """What its supervisor goes by. Raises OSError."""

    def change_limits(
        self, run_dir: str, token: str, *, time_limit_s: float | None, kill_grace_s: float | None
    ) -> None:
        """Tells its supervisor. Raises OSError when it cannot be written."""


class AttemptLocks(Protocol):
    """The launcher to those who only have to know whether an attempt lives: see `gpuq.ports.launcher.Launcher`."""

    def alive(self, run_dir: str) -> bool:
        """Whether a supervisor holds the attempt's lock."""


class StopsAndLocks(AttemptStops, LimitChanges, AttemptLocks, Protocol):
    """All of these."""


class HotContext(Protocol):
    """For `hot`."""

    @property
    def settings(self) -> Settings: ...
    @property
    def accounts(self) -> Accounts: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def queue(self) -> HotQueue: ...
    @property
    def notifier(self) -> Notifier: ...
    @property
    def epoch(self) -> EpochCell: ...


class IntakeContext(HotContext, Protocol):
    """For `intake`: no node and no launcher."""

    @property
    def records(self) -> Records: ...
    @property
    def gpus(self) -> GpuSource: ...
    @property
    def secrets(self) -> SecretBox: ...


class SnapshotContext(HotContext, Protocol):
    """For `snapshot`: SQL is only read."""

    @property
    def records(self) -> ReadOnlyRecords: ...
    @property
    def gpus(self) -> GpuSource: ...
    @property
    def run_times(self) -> RunTimes: ...
    @property
    def strays(self) -> Strays | None: ...
    @property
    def node(self) -> str: ...


class StopContext(Protocol):
    """For `attempt.stop_request`."""

    @property
    def launcher(self) -> AttemptStops: ...
    @property
    def notifier(self) -> Notifier: ...


class LimitContext(Protocol):
    """For `attempt.limit_order`."""

    @property
    def launcher(self) -> LimitChanges: ...
    @property
    def notifier(self) -> Notifier: ...


class CleaningContext(Protocol):
    """For `cleaning`."""

    @property
    def files(self) -> JobFiles: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def launcher(self) -> AttemptLocks: ...
    @property
    def home(self) -> Path: ...


class ActionContext(IntakeContext, StopContext, LimitContext, Protocol):
    """For `actions`: of attempts, their stop, and the removal of what they left."""

    @property
    def files(self) -> JobFiles: ...
    @property
    def launcher(self) -> StopsAndLocks: ...
    @property
    def home(self) -> Path: ...
    @property
    def strays(self) -> Strays | None: ...
    @property
    def node(self) -> str: ...
    def run_dir(self, job_id: int, number: int) -> str:
        """The own folder of an attempt, by job id and attempt number."""


class LeaseHolders(Protocol):
    """Leases to those who may not change them."""

    def holders(self, node: str) -> dict[str, list[str]]:
        """GPU uuid → tokens. Raises HotStoreUnavailable."""


class QueryContext(SnapshotContext, Protocol):
    """For `queries`: SQL is only read, and of attempts only what their folders tell."""

    @property
    def history(self) -> History: ...
    @property
    def files(self) -> JobFiles: ...
    @property
    def home(self) -> Path: ...
    @property
    def launcher(self) -> AttemptFolders: ...
    @property
    def maintenance_runs(self) -> MaintenanceRuns: ...
    @property
    def agent_key(self) -> AgentKey: ...
    @property
    def lease_holders(self) -> LeaseHolders: ...
    @property
    def agent_lock_path(self) -> Path: ...


class MaintenanceContext(HotContext, Protocol):
    """For those tasks of `maintenance` that meet neither processes nor leases."""

    @property
    def records(self) -> Records: ...


class CleanerContext(CleaningContext, Protocol):
    """For that task of `maintenance` that removes what finished jobs left."""

    @property
    def settings(self) -> Settings: ...
    @property
    def records(self) -> Records: ...
    @property
    def node(self) -> str: ...


@dataclass(frozen=True)
class Context:
    """One process's view of one installation. `new_token` and `random` are here so that tests can set them.
    `disk`: the room kept on the disk of the home, None where nobody keeps any."""

    settings: Settings
    records: Records
    history: History
    tokens: Tokens
    web_sessions: WebSessions
    maintenance_runs: MaintenanceRuns
    files: JobFiles
    queue: HotQueue
    leases: Leases
    agent_key: AgentKey
    notifier: Notifier
    clock: Clock
    accounts: Accounts
    gpus: GpuSource
    launcher: Launcher
    run_times: RunTimes
    epoch: EpochCell
    boot_id: str
    new_token: Callable[[], str]
    secrets: SecretBox
    random: Random = field(default_factory=Random)
    disk: DiskReserve | None = None
    # What lives here unknown to the database; None where nobody looked.
    strays: Strays | None = None
    # Makes sure that files which are copied or lost one by one miss little; None where the test plays the stores.
    safeguard: Callable[[], None] | None = None
    # Whether jobs are launched where the device nodes of other GPUs cannot be opened.
    isolates_gpus: bool = False

    @property
    def agent_lock_path(self) -> Path:
        return self.home / f"agent-{self.node}.lock"

    @property
    def lease_holders(self) -> LeaseHolders:
        return self.leases

    @property
    def node(self) -> str:
        return self.settings.node

    @property
    def home(self) -> Path:
        return self.settings.home

    def run_dir(self, job_id: int, number: int) -> str:
        return f"{self.home / 'jobs'}/{job_id}/{number}"

    def checkpoint_dir(self, job_id: int) -> str:
        return f"{self.home / 'jobs'}/{job_id}/checkpoint"

    def gpu_by_uuid(self) -> dict[str, Gpu]:
        return {gpu.uuid: gpu for gpu in self.gpus.inventory()}

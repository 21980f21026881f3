"""What every verb is given: the stores, the clock, and the name of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from gpuq.domain.gpu import Gpu
from gpuq.settings import Settings

if TYPE_CHECKING:
    from gpuq.engine.epoch import EpochCell
    from gpuq.engine.run_times import RunTimes
    from gpuq.ports.admin import MaintenanceRuns, Tokens
    from gpuq.ports.clock import Clock
    from gpuq.ports.gpus import GpuSource
    from gpuq.ports.history import History
    from gpuq.ports.hot_queue import AgentKey, HotQueue, Leases
    from gpuq.ports.launcher import Launcher
    from gpuq.ports.notify import Notifier
    from gpuq.ports.records import Records


@dataclass(frozen=True)
class Context:
    """One process's view of one installation. `new_token` and `random` are here so that tests can set them."""

    settings: Settings
    records: Records
    history: History
    tokens: Tokens
    maintenance_runs: MaintenanceRuns
    queue: HotQueue
    leases: Leases
    agent_key: AgentKey
    notifier: Notifier
    clock: Clock
    gpus: GpuSource
    launcher: Launcher
    run_times: RunTimes
    epoch: EpochCell
    boot_id: str
    new_token: Callable[[], str]
    random: Random = field(default_factory=Random)

    @property
    def agent_lock_path(self) -> Path:
        return self.home / f"agent-{self.node}.lock"

    @property
    def node(self) -> str:
        return self.settings.node

    @property
    def home(self) -> Path:
        return self.settings.home

    @cached_property
    def _jobs_dir(self) -> str:
        return str(self.home / "jobs")

    def run_dir(self, job_id: int, number: int) -> str:
        return f"{self._jobs_dir}/{job_id}/{number}"

    def checkpoint_dir(self, job_id: int) -> str:
        return f"{self._jobs_dir}/{job_id}/checkpoint"

    def gpu_by_uuid(self) -> dict[str, Gpu]:
        return {gpu.uuid: gpu for gpu in self.gpus.inventory()}

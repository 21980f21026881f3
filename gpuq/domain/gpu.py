"""A GPU (or MIG instance) as gpuq sees it. Memory in MiB, utilisation 0 to 1, power in watts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum


class GpuState(StrEnum):
    """What a GPU is doing: the state that reports show."""

    FREE = "free"
    LEASED = "leased"
    SHARED = "shared"
    EXTERNAL = "external"
    UNHEALTHY = "unhealthy"
    DRAINED = "drained"


SENTENCES: dict[GpuState, str] = {
    GpuState.FREE: "no holder, healthy, nothing on it",
    GpuState.LEASED: "held by one job alone",
    GpuState.SHARED: "held by jobs that share it by memory",
    GpuState.EXTERNAL: "a process outside the queue uses it, or its memory",
    GpuState.UNHEALTHY: "the driver does not answer for it, or reports a fatal error",
    GpuState.DRAINED: "an administrator took it out of the queue",
}


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that the driver sees on a GPU. `user` and `command` are None when not readable."""

    pid: int
    mem_mb: int | None = None
    user: str | None = None
    command: str | None = None
    graphics: bool = False


@dataclass(frozen=True, slots=True)
class Gpu:
    """What does not change while the machine runs.

    `uuid` is the name everywhere; `index` (PCI bus order) is for people. `parent` is the UUID of the
    card that a MIG instance lives on. `numa_node` is None when unknown. `links` gives, for other UUIDs,
    how well connected they are: 0 NVLink, 1 one PCIe switch, 2 several switches, 3 one host bridge,
    4 one NUMA node, 5 across NUMA nodes; absent means unknown.
    """

    index: int
    uuid: str
    model: str
    memory_mb: int
    parent: str | None = None
    numa_node: int | None = None
    links: dict[str, int] = field(default_factory=dict)
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class GpuObservation:
    """One reading. `problem` is None for a healthy GPU, else a sentence (Xid, ECC, driver silent).
    `processes` is None when the driver would not say who is on it: unknown users, so not free."""

    uuid: str
    at: float
    used_mb: int
    utilisation: float | None = None
    processes: tuple[GpuProcess, ...] | None = ()
    problem: str | None = None
    temperature_c: int | None = None
    power_w: float | None = None


# A GPU without processes may still show this much memory in use (driver, ECC, display server context).
IDLE_THRESHOLD_MB = 600


def suits(
    index: int,
    model: str,
    memory_mb: int,
    *,
    ids: Collection[int] | None,
    wanted_model: str | None,
    mem_mb: int | None,
) -> bool:
    """Whether a GPU is one that a job asks for; None asks for nothing. Memory in MiB. A model is named by any part of
    it, in either case: `a100` is an NVIDIA A100-SXM4-80GB."""
    if wanted_model is not None and wanted_model.lower() not in model.lower():
        return False
    if ids is not None and index not in ids:
        return False
    return mem_mb is None or memory_mb >= mem_mb

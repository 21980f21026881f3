"""Who is on a GPU: the driver's process lists, with user and command of each."""

from __future__ import annotations

from typing import Any

import psutil

from gpuq.domain.gpu import GpuProcess
from gpuq.gpus.driver import Driver
from gpuq.linux import pid_taken

MIB = 1024 * 1024
# What NVML says for a process whose memory it does not know (NVML_VALUE_NOT_AVAILABLE).
_NOT_AVAILABLE = 2**64 - 1
_LONGEST_COMMAND = 200


def occupants(driver: Driver, handle: Any) -> tuple[GpuProcess, ...] | None:
    """Every living process on a card or MIG instance, by pid; None when the driver would not say.

    The lists are three: compute, MPS clients and graphics. A device without graphics or MPS does not know
    those two questions, which is no secret kept; not knowing the first is. Raises DriverGone, GpuSilent.
    """
    compute = driver.ask("nvmlDeviceGetComputeRunningProcesses", handle)
    if compute is None:
        return None
    clients = driver.ask("nvmlDeviceGetMPSComputeRunningProcesses", handle, default=[])
    graphics = driver.ask("nvmlDeviceGetGraphicsRunningProcesses", handle, default=[])
    memory: dict[int, int | None] = {}
    for entry in [*compute, *clients, *graphics]:
        pid, used = int(entry.pid), entry.usedGpuMemory
        known = None if used is None or used == _NOT_AVAILABLE else int(used) // MIB
        if pid not in memory or (known or 0) > (memory[pid] or 0):
            memory[pid] = known
    computing = {int(entry.pid) for entry in [*compute, *clients]}
    return tuple(
        GpuProcess(pid, memory[pid], *_identity(pid), graphics=pid not in computing)
        for pid in sorted(memory)
        if pid_taken(pid)
    )


def _identity(pid: int) -> tuple[str | None, str | None]:
    """User and command line, as far as this process may read them."""
    user = command = None
    try:
        process = psutil.Process(pid)
        user = process.username()
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        # Gone in between, or not ours to read: what was found so far stands.
        pass
    return user, command[:_LONGEST_COMMAND] if command else None

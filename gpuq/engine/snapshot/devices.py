"""When is a GPU free? From one reading of the driver, the ledger of live attempts, and what people drained.

All must hold: no live attempt that leaves no room; healthy; not drained; no process on it that is not ours; and
no more memory in use than the idle threshold unless we hold it. What cannot be known counts as in use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gpuq.domain.gpu import IDLE_THRESHOLD_MB, Gpu, GpuObservation, GpuProcess, GpuState
from gpuq.domain.reasons import Reason, ReasonCode
from gpuq.engine.snapshot.ledger import Ledger
from gpuq.engine.strays import Strays
from gpuq.engine.switches import Drained
from gpuq.scheduler.snapshot import Device


def classify_gpu(
    gpu: Gpu,
    seen: GpuObservation | None,
    *,
    held: bool,
    drained: Drained | None,
    is_ours: Callable[[int], bool],
) -> tuple[GpuState | None, Reason | None, list[GpuProcess]]:
    """(state other than free/leased/shared, why nothing new may start on it, foreign processes)."""
    foreign = [] if seen is None or seen.processes is None else [p for p in seen.processes if not is_ours(p.pid)]
    if drained is not None:
        why = f"gpu {gpu.index} is drained by {drained.by}" + (f": {drained.reason}" if drained.reason else "")
        return GpuState.DRAINED, Reason(ReasonCode.GPU_UNHEALTHY, why), foreign
    if seen is None:
        return GpuState.UNHEALTHY, Reason(ReasonCode.GPU_UNHEALTHY, f"the driver says nothing of gpu {gpu.index}"), []
    if seen.problem is not None:
        return GpuState.UNHEALTHY, Reason(ReasonCode.GPU_UNHEALTHY, f"gpu {gpu.index}: {seen.problem}"), foreign
    if foreign:
        one = foreign[0]
        who = f"{one.user or 'somebody'}'s {(one.command or 'process').split()[0].rpartition('/')[2]}"
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        text = f"gpu {gpu.index} is used by {who}, pid {one.pid}{more}, outside the queue"
        return GpuState.EXTERNAL, Reason(ReasonCode.EXTERNAL_PROCESS, text), foreign
    if seen.processes is None and not held:
        text = f"the driver does not tell who uses gpu {gpu.index}"
        return GpuState.EXTERNAL, Reason(ReasonCode.EXTERNAL_PROCESS, text), []
    if not held and seen.used_mb > IDLE_THRESHOLD_MB:
        text = f"{seen.used_mb} MiB of gpu {gpu.index} are in use by a process that cannot be seen"
        return GpuState.EXTERNAL, Reason(ReasonCode.EXTERNAL_PROCESS, text), []
    return None, None, []


def devices(
    inventory: Sequence[Gpu],
    observations: Sequence[GpuObservation],
    ledger: Ledger,
    drained: Mapping[str, Drained],
    is_ours: Callable[[int], bool],
    strays: Strays | None = None,
) -> list[Device]:
    """What the scheduler is shown of the GPUs."""
    seen = {reading.uuid: reading for reading in observations}
    result = []
    for gpu in inventory:
        _, reason, _ = classify_gpu(
            gpu,
            seen.get(gpu.uuid),
            held=bool(ledger.held.get(gpu.uuid)),
            drained=drained.get(gpu.uuid),
            is_ours=is_ours,
        )
        stray = strays.on(gpu) if strays is not None else None
        result.append(
            Device(
                uuid=gpu.uuid,
                index=gpu.index,
                memory_mb=gpu.memory_mb,
                model=gpu.model,
                numa_node=gpu.numa_node,
                links=gpu.links,
                unavailable=reason if stray is None else stray.reason(gpu),
                unaccounted_mb=ledger.unaccounted_mb(seen.get(gpu.uuid)),
            )
        )
    return result

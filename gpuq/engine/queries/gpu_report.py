"""What `gpuq gpus` shows, and taking GPUs out of the queue."""

from __future__ import annotations

from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.gpu import Gpu, GpuObservation, GpuState
from gpuq.domain.job import Attempt, Job
from gpuq.domain.times import iso
from gpuq.engine.access import require_admin
from gpuq.engine.context import Context
from gpuq.engine.snapshot.devices import classify_gpu
from gpuq.engine.snapshot.gpu_processes import belongs_to, exists
from gpuq.engine.snapshot.switches import DRAINED, read_switches
from gpuq.errors import NotFound
from gpuq.ports.notify import Topic


def report(ctx: Context) -> list[dict[str, Any]]:
    """One row a GPU, ready for JSON: index, uuid, model, memory_mb, used_mb, state, reason, jobs, processes
    (foreign ones: pid, user, command, mem_mb), utilisation (0 to 1), temperature_c, power_w."""
    switches = read_switches(ctx)
    readings = {reading.uuid: reading for reading in ctx.gpus.observe(ctx.clock.now())}
    with ctx.records.read() as tx:
        active = tx.live_attempts(ctx.node)
    supervisors = {attempt.supervisor_pid for _, attempt in active if attempt.supervisor_pid}
    sessions = {attempt.pid for _, attempt in active if attempt.pid}
    rows = []
    for gpu in ctx.gpus.inventory():
        holders = [(job, attempt) for job, attempt in active if gpu.uuid in attempt.gpu_uuids]
        state, reason, foreign = classify_gpu(
            gpu,
            readings.get(gpu.uuid),
            held=bool(holders),
            drained=switches.drained.get(gpu.uuid),
            is_ours=lambda pid: not exists(pid) or belongs_to(pid, supervisors, sessions),
        )
        if state is None or (holders and state is GpuState.EXTERNAL and not foreign):
            shared = any(attempt.gpu_mem_mb is not None for _, attempt in holders)
            state = GpuState.FREE if not holders else GpuState.SHARED if shared else GpuState.LEASED
        row = _row(gpu, readings.get(gpu.uuid), holders)
        row["state"] = state
        row["reason"] = reason.to_json() if reason else None
        row["processes"] = [{"pid": p.pid, "user": p.user, "command": p.command, "mem_mb": p.mem_mb} for p in foreign]
        rows.append(row)
    return rows


def _row(gpu: Gpu, reading: GpuObservation | None, holders: list[tuple[Job, Attempt]]) -> dict[str, Any]:
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "model": gpu.model,
        "memory_mb": gpu.memory_mb,
        "used_mb": reading.used_mb if reading else None,
        "utilisation": reading.utilisation if reading else None,
        "temperature_c": reading.temperature_c if reading else None,
        "power_w": reading.power_w if reading else None,
        "jobs": [
            {
                "id": job.id,
                "name": job.name,
                "user": job.user,
                "gpu_mem_mb": attempt.gpu_mem_mb,
                "peak_gpu_mem_mb": attempt.peak_gpu_mem_mb,
                "since": iso(attempt.claimed_at),
            }
            for job, attempt in holders
        ],
        "job": holders[0][0].id if len(holders) == 1 else None,
    }


def _by_index(ctx: Context, index: int) -> Gpu:
    for gpu in ctx.gpus.inventory():
        if gpu.index == index:
            return gpu
    raise NotFound(f"this machine has no gpu {index}", hint="`gpuq gpus` lists them")


def drain(ctx: Context, index: int, caller: Caller, reason: str | None = None) -> None:
    """Nothing new starts on it; what runs there goes on. Survives restarts. Raises NotFound, Forbidden."""
    require_admin(caller, "drain a GPU")
    gpu = _by_index(ctx, index)
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        tx.set_value(f"{DRAINED}{ctx.node}:{gpu.uuid}", {"by": caller.user, "reason": reason, "at": iso(now)}, now)
    ctx.notifier.publish(Topic.CONTROL)


def undrain(ctx: Context, index: int, caller: Caller) -> None:
    """Puts the GPU with this index back in service. Raises Forbidden for all but administrators."""
    require_admin(caller, "undrain a GPU")
    gpu = _by_index(ctx, index)
    with ctx.records.write() as tx:
        tx.set_value(f"{DRAINED}{ctx.node}:{gpu.uuid}", None, ctx.clock.now())
    ctx.notifier.publish(Topic.CONTROL)

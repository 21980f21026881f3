"""What `gpuq gpus` shows."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import TypedDict

from gpuq.domain.gpu import Gpu, GpuObservation, GpuProcess, GpuState
from gpuq.domain.job import Attempt, Job
from gpuq.domain.reasons import Reason, ReasonCode, ReasonView
from gpuq.domain.times import iso
from gpuq.engine.context import QueryContext
from gpuq.engine.snapshot.devices import classify_gpu
from gpuq.engine.snapshot.gpu_processes import belongs_to, exists
from gpuq.engine.switches import read_switches
from gpuq.scheduler.explain import window_text


class GpuHolderView(TypedDict):
    """The JSON of a job that holds a GPU, `since` when (ISO 8601 in UTC). Memory in MiB."""

    id: int
    name: str
    user: str
    gpu_mem_mb: int | None
    peak_gpu_mem_mb: int | None
    since: str | None


class GpuProcessView(TypedDict):
    """The JSON of a process on a GPU that is not the queue's. Memory in MiB."""

    pid: int
    user: str | None
    command: str | None
    mem_mb: int | None


class GpuView(TypedDict):
    """The JSON of a GPU. Memory in MiB, utilisation 0 to 1, power in watts. `job`: the id of its holder, where there is
    one alone. `processes`: foreign ones."""

    index: int
    uuid: str
    model: str
    memory_mb: int
    used_mb: int | None
    utilisation: float | None
    temperature_c: int | None
    power_w: float | None
    jobs: list[GpuHolderView]
    job: int | None
    state: GpuState
    reason: ReasonView | None
    processes: list[GpuProcessView]


def report(ctx: QueryContext) -> list[GpuView]:
    """One row a GPU, ready for JSON."""
    readings = {reading.uuid: reading for reading in ctx.gpus.observe(ctx.clock.now())}
    with ctx.records.read() as tx:
        switches = read_switches(tx, ctx.node)
        active = tx.live_attempts(ctx.node)
    supervisors = {attempt.supervisor_pid for _, attempt in active if attempt.supervisor_pid}
    sessions = {attempt.pid for _, attempt in active if attempt.pid}
    now, window = ctx.clock.now(), switches.window
    if window is not None and not window.began(now):
        window = None
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
        if ctx.strays is not None and not holders and (stray := ctx.strays.on(gpu)) is not None:
            state, reason = GpuState.EXTERNAL, stray.reason(gpu)
        if window is not None and window.covers(gpu.uuid) and state is not GpuState.UNHEALTHY:
            state, reason = GpuState.DRAINED, Reason(ReasonCode.MAINTENANCE, window_text(window, [gpu.index], now))
        if state is None or (holders and state is GpuState.EXTERNAL and not foreign):
            shared = any(attempt.gpu_mem_mb is not None for _, attempt in holders)
            state = GpuState.FREE if not holders else GpuState.SHARED if shared else GpuState.LEASED
        rows.append(_row(gpu, readings.get(gpu.uuid), holders, state, reason, foreign))
    return rows


def _row(
    gpu: Gpu,
    reading: GpuObservation | None,
    holders: list[tuple[Job, Attempt]],
    state: GpuState,
    reason: Reason | None,
    foreign: Sequence[GpuProcess],
) -> GpuView:
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
        "state": state,
        "reason": reason.to_json() if reason else None,
        "processes": [{"pid": p.pid, "user": p.user, "command": p.command, "mem_mb": p.mem_mb} for p in foreign],
    }

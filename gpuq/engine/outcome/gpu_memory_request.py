"""What a job asks for when it runs again after it was out of GPU memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpuq.domain.gpu import suits
from gpuq.domain.gpu_memory import raised
from gpuq.domain.job import Job
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.retry import RetryDecision
from gpuq.domain.states import JobState
from gpuq.engine.context import Context


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """What changes in a job's request for GPU memory, and what its history says of that."""

    columns: dict[str, Any] = field(default_factory=dict)
    told: tuple[str, ...] = ()


def memory_request(ctx: Context, job: Job, result: Result, decision: RetryDecision) -> MemoryRequest:
    """A job that shares GPUs and ran out of their memory asks for more when it runs again."""
    asked = job.gpu_mem_mb
    if result.outcome is not Outcome.GPU_OOM or decision.state is not JobState.DELAYED or asked is None:
        return MemoryRequest()
    allowed = [
        gpu.memory_mb
        for gpu in ctx.gpus.inventory()
        if suits(gpu.index, gpu.model, gpu.memory_mb, ids=job.gpu_ids, wanted_model=job.gpu_model, mem_mb=None)
    ]
    peak = result.peak_gpu_mem_mb
    wanted = raised(asked, peak, job.gpus, allowed)
    seen = f", {peak} seen in use" if peak else ""
    if wanted is None:
        told = f"no longer shares its GPUs (asked for {asked} MiB on each{seen}; more is not on any)"
    else:
        told = f"asks for {wanted} MiB on each GPU instead of {asked}{seen}"
    return MemoryRequest({"gpu_mem_mb": wanted}, (told,))

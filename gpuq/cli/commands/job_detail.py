"""What a line about a job says of it: its reason, its GPUs, its end."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def index_text(indices: Sequence[int] | None) -> str:
    """`0,1`, `0-3,7`: GPUs by index, three and more in a row as a range."""
    parts: list[list[int]] = []
    for index in sorted(indices or ()):
        if parts and parts[-1][-1] == index - 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in parts)


def detail(job: Any) -> str:
    """What matters most about a job in its state."""
    from gpuq.cli.render import about, epoch, local_times, span

    parts = []
    if job["state"] in {"starting", "running", "stopping"}:
        if job["gpu_indices"]:
            parts.append("gpu " + index_text(job["gpu_indices"]))
        parts.append(outgrown(job))
        if job["progress"] is not None:
            parts.append(f"{job['progress']:.0%}")
        deadline = epoch(job.get("stop_deadline"))
        if job["state"] == "stopping" and deadline is not None:
            import time

            left = deadline - time.time()
            parts.append(f"killed in {span(left)}" if left > 0 else "being killed")
        elif job["estimated_end"]:
            parts.append(f"ends ~{about(job['estimated_end'], job.get('estimated_end_range'))}")
    elif job["finished_at"] is not None:
        parts.append(local_times(ending(job)))
    elif job["reason"]:
        parts.append(f"{job['reason']['code']}: {local_times(job['reason']['text'])}")
    return ", ".join(part for part in parts if part)


def outgrown(job: Any) -> str:
    """`uses 12G of 9G asked for`, of a job, or a holder of a GPU, that shares by memory and uses more."""
    from gpuq.cli.render import memory

    asked, peak = job["gpu_mem_mb"], job.get("peak_gpu_mem_mb")
    return f"uses {memory(peak)} of {memory(asked)} asked for" if asked and peak and peak > asked else ""


def ending(job: Any) -> str:
    """How a job, or an attempt, ended: `exit 3`, `signal 9`, `time_limit`."""
    outcome = job["outcome"] or ""
    if outcome == "exit_nonzero":
        return f"exit {job['exit_code']}"
    if outcome == "signal":
        return f"signal {job['signal']}"
    if outcome in {"", "succeeded"}:
        return ""
    return f"{outcome}: {job['error']}" if job["error"] else outcome

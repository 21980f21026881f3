"""Whether a job can ever run on this machine, and whether it may say how long it does."""

from __future__ import annotations

from collections.abc import Sequence

from gpuq.domain.caller import Caller
from gpuq.domain.gpu import Gpu, suits
from gpuq.domain.limits import LimitBook
from gpuq.domain.spec import JobSpec
from gpuq.engine.context import IntakeContext
from gpuq.errors import Constraint, Forbidden, Refused


def check_fits(ctx: IntakeContext, specs: Sequence[JobSpec]) -> None:
    """Raises Constraint for a job that can never run on this machine. Unknown machine: everything passes,
    the plan will say."""
    if not any(spec.gpus > 0 for spec in specs):
        return
    inventory = ctx.gpus.inventory()
    for index, spec in enumerate(specs):
        if spec.gpus > 0 and (error := _misfit(ctx, spec, inventory)) is not None:
            error.index = index
            raise error


def require_room_in_limits(ctx: IntakeContext, book: LimitBook, user: str, spec: JobSpec) -> None:
    """Raises Refused for a job that a limit would keep waiting for ever: it asks for more than its user may hold with
    nothing else running. What is set of the user while the queue runs counts in place of the setting, and such a limit
    only lets the job wait: it may change at any time."""
    most = ctx.settings.user_max_gpus
    if 0 < most < spec.gpus and book.of_user(user, "gpus") is None:
        raise Refused(
            f"the job asks for {spec.gpus} GPUs; one user may hold at most {most} at once (GPUQ_USER_MAX_GPUS)",
            hint=f"ask for at most {most} with -g, or ask an administrator of this queue for more",
        )


def require_honest_limit(ctx: IntakeContext, caller: Caller, spec: JobSpec) -> None:
    """Raises Forbidden, unless the caller is an administrator, for a job that stands early in line for its short time
    limit and then may run on for a long grace: at most as long again, or as GPUQ_KILL_GRACE says."""
    if caller.admin or spec.time_limit_s is None or spec.kill_grace_s is None:
        return
    most = max(spec.time_limit_s, ctx.settings.kill_grace)
    if spec.kill_grace_s > most:
        raise Forbidden(
            f"kill_grace_s: a job with a time limit of {spec.time_limit_s:g} s has at most {most:g} s of grace, not"
            f" {spec.kill_grace_s:g}",
            hint="ask for less with --kill-grace, or for more with --time",
        )


def _misfit(ctx: IntakeContext, spec: JobSpec, inventory: Sequence[Gpu]) -> Constraint | None:
    fitting = [
        gpu
        for gpu in inventory
        if suits(
            gpu.index,
            gpu.model,
            gpu.memory_mb,
            ids=spec.gpu_ids,
            wanted_model=spec.gpu_model,
            mem_mb=spec.gpu_mem_mb,
        )
    ]
    if len(fitting) >= spec.gpus:
        return None
    if not inventory:
        return Constraint(
            f"this machine has no GPU, the job asks for {spec.gpus}",
            hint=ctx.gpus.why_empty() or "submit with -g 0, or try gpuq out with GPUQ_GPUS=sim:4",
        )
    narrowed = "" if len(fitting) == len(inventory) else f", {len(fitting)} of them as asked for"
    absent = sorted(set(spec.gpu_ids or ()) - {gpu.index for gpu in inventory})
    if absent:
        narrowed += f"; there is no GPU {', '.join(map(str, absent))}"
    return Constraint(
        f"the job asks for {spec.gpus} {'GPU' if spec.gpus == 1 else 'GPUs'}; "
        f"this machine has {len(inventory)}{narrowed}",
        hint="ask for fewer GPUs (-g) or loosen --gpu-model, --gpu-ids, --gpu-mem; `gpuq gpus` lists what is here",
    )

"""`queued → starting`: the rows of a start, and the attempt as the agent tracks it from then on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gpuq.domain.caller import ACTOR
from gpuq.domain.gpu import Gpu
from gpuq.domain.job import Attempt, Job
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.engine.accounts import Account
from gpuq.engine.attempt.environment import job_environment, supervisor_spec
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.claim.leased import Leased
from gpuq.engine.claim.secrets import secrets_of
from gpuq.engine.context import Context
from gpuq.engine.intake.newborn import job_of
from gpuq.errors import WrongState
from gpuq.ports.launcher import LaunchOrder
from gpuq.ports.records import Move, NewJob, Writer


def record_starting(ctx: Context, tx: Writer, item: Leased) -> TrackedAttempt:
    """Nothing is launched yet: that waits in its `order`. Raises WrongState, LeaseLost or NotFound when the job is not
    waiting any more as it was planned with; then nothing is written. WrongState also when it is held now, because its
    secrets cannot be read: that is written."""
    job = tx.job(item.waiting.id)
    return _record(ctx, tx, item, job, *tx.spec(job.id))


def record_newborn_starting(ctx: Context, tx: Writer, item: Leased, new: NewJob) -> TrackedAttempt:
    """As `record_starting`, of a job that this very transaction has stored: nothing is read back."""
    return _record(ctx, tx, item, job_of(item.waiting.id, new), new.spec, new.uid, new.gid)


def _record(
    ctx: Context, tx: Writer, item: Leased, job: Job, spec: JobSpec, uid: int | None, gid: int | None
) -> TrackedAttempt:
    if ctx.strays is not None:
        ctx.strays.refuse(job.id)
    if (why := ctx.accounts.why_not(job.user, job.uid)) is not None:
        # Lost since the plan. The member of the line is brought back by the next comparison with SQL.
        raise WrongState(f"job {job.id} waits: {why}")
    secrets = secrets_of(ctx, tx, job, spec) if spec.secrets else {}
    tracked = _tracked(ctx, job, item)
    _move(tx, job, item, tracked.claimed_at)
    tx.add_attempt(
        Attempt(
            job_id=job.id,
            number=tracked.number,
            token=tracked.token,
            node=ctx.node,
            boot_id=ctx.boot_id,
            gpu_indices=tuple(gpu.index for gpu in item.gpus),
            gpu_uuids=tracked.gpu_uuids,
            gpu_mem_mb=tracked.mem_mb,
            run_dir=tracked.run_dir,
            log_path=tracked.log_path,
            claimed_at=tracked.claimed_at,
        )
    )
    tracked.order = _order(ctx, tracked, item.gpus, spec, uid, gid, secrets)
    return tracked


def _tracked(ctx: Context, job: Job, item: Leased) -> TrackedAttempt:
    number = item.waiting.attempt + 1
    run_dir = ctx.run_dir(job.id, number)
    return TrackedAttempt(
        job=replace(job, state=JobState.STARTING, attempt=number, token=item.token),
        number=number,
        token=item.token,
        gpu_uuids=tuple(gpu.uuid for gpu in item.gpus),
        mem_mb=item.waiting.gpu_mem_mb,
        run_dir=run_dir,
        log_path=f"{run_dir}/output.log",
        claimed_at=ctx.clock.now(),
    )


def _move(tx: Writer, job: Job, item: Leased, now: float) -> None:
    facts, gpus = item.waiting, item.gpus
    tx.move(
        Move(
            facts.id,
            JobState.STARTING,
            frozenset({JobState.QUEUED}),
            ACTOR,
            now,
            detail="on gpus " + ",".join(str(gpu.index) for gpu in gpus) if gpus else "without a gpu",
            # Guards against another attempt since the facts were read.
            attempt=facts.attempt,
            set={"attempt": facts.attempt + 1, "token": item.token, "started_at": None},
            seen=(job.state, job.attempt, job.token),
        )
    )


def _order(
    ctx: Context,
    tracked: TrackedAttempt,
    gpus: Sequence[Gpu],
    spec: JobSpec,
    uid: int | None,
    gid: int | None,
    secrets: dict[str, str],
) -> LaunchOrder:
    job_id = tracked.job.id
    account = ctx.accounts.of(tracked.job.user) if ctx.accounts.apart else None
    if account is not None:
        # The primary group may be another one since the submission.
        gid = account.gid
    checkpoint_dir = ctx.checkpoint_dir(job_id)
    env = job_environment(spec, tracked, gpus, home=str(ctx.home), checkpoint_dir=checkpoint_dir)
    if "HOME" not in env:
        env = {**_whose(account or ctx.accounts.of(ctx.accounts.daemon_uid)), **env}
    hidden = ctx.gpus.hidden_from(tracked.gpu_uuids) if ctx.isolates_gpus else ()
    payload = supervisor_spec(
        spec,
        tracked,
        env,
        uid=uid,
        gid=gid,
        kill_grace_s=ctx.settings.kill_grace,
        hide_devices=hidden,
        max_output_bytes=ctx.settings.max_output_bytes,
        max_result_bytes=ctx.settings.max_result_bytes,
        checkpoint_dir=checkpoint_dir,
    )
    return LaunchOrder(
        job_id, tracked.number, tracked.token, tracked.run_dir, tracked.log_path, payload, spec.script, secrets
    )


def _whose(account: Account | None) -> dict[str, str]:
    """For a job that was submitted without an environment of its own, from another machine for instance."""
    return {} if account is None else {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}

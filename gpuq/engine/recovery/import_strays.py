"""Strays become jobs of the database, with the ids that they have: the next agent adopts them as its own."""

from __future__ import annotations

from collections.abc import Callable

from gpuq.domain.caller import ACTOR
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import ACTIVE, JobState
from gpuq.engine.attempt.running import record_running
from gpuq.engine.context import Context
from gpuq.engine.recovery.reconcile import Spec, attempt_of, command_in, environment_in, move, start_as
from gpuq.engine.strays import Stray, Strays
from gpuq.errors import NotFound, Refused, UsageError
from gpuq.ports.records import NewJob, Writer

# What gpuq itself puts into the environment of a job.
_OURS = ("GPUQ_", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


def import_strays(ctx: Context, strays: Strays, spec_of: Callable[[str], Spec]) -> list[tuple[Stray, str | None]]:
    """Each stray that lives, and why it was not imported (None: it was). No agent may run meanwhile. Raises
    DatabaseUnavailable, OSError."""
    told: list[tuple[Stray, str | None]] = []
    for stray in strays.living():
        try:
            _import(ctx, stray, spec_of(stray.run_dir))
        except (Refused, UsageError) as error:
            told.append((stray, error.message))
        else:
            told.append((stray, None))
    strays.write([stray for stray, why in told if why is not None])
    return told


def _import(ctx: Context, stray: Stray, spec: Spec) -> None:
    launched = ctx.launcher.launched(stray.run_dir, stray.token)
    if launched is None:
        raise Refused("its supervisor has not said yet what runs: try again, or end it")
    attempt = attempt_of(ctx, stray.job_id, stray.attempt, stray.run_dir, spec)
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        try:
            job = tx.job(stray.job_id)
        except NotFound:
            new = _new_job(stray, spec, len(attempt.gpu_uuids), launched.started_at)
            tx.add_known_job(stray.job_id, new, actor=ACTOR)
            job = tx.job(stray.job_id)
        _check(tx, stray)
        if job.state is not JobState.QUEUED:
            move(tx, job, JobState.QUEUED, now, "imported: it runs")
            tx.remove_dead_letter(stray.job_id)
            job = tx.job(stray.job_id)
        start_as(tx, job, attempt, now, f"imported: attempt {stray.attempt} ran, unknown to the database")
        record_running(tx, tx.job(stray.job_id), stray.attempt, stray.token, launched)


def _check(tx: Writer, stray: Stray) -> None:
    job = tx.job(stray.job_id)
    if job.state in ACTIVE or job.state is JobState.COMPLETED:
        raise Refused(f"the job is {job.state} in the database")
    if any(known.number == stray.attempt for known in tx.attempts(stray.job_id)):
        raise Refused(f"the database has another attempt {stray.attempt} of that job")


def _new_job(stray: Stray, spec: Spec, gpus: int, began: float) -> NewJob:
    """It is not retried unless somebody says so: how often it may be is not known."""
    env = {key: value for key, value in environment_in(spec).items() if not key.startswith(_OURS)}
    limit = spec.get("time_limit_s")
    cwd = str(spec.get("cwd") or "/")
    asked = JobSpec.parse(
        {
            "command": command_in(spec),
            "name": stray.command,
            "cwd": cwd,
            "env": env,
            "gpus": gpus,
            "time_limit_s": limit if isinstance(limit, (int, float)) else None,
            "max_retries": 0,
        }
    )
    uid, gid = (value if isinstance(value, int) else None for value in (spec.get("uid"), spec.get("gid")))
    return NewJob(asked, stray.user, uid, gid, stray.command, cwd, JobState.QUEUED, began, 0, began)

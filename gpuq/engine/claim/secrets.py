"""The secrets of a job that is about to start, or why they cannot be had."""

from __future__ import annotations

from gpuq.domain.caller import ACTOR
from gpuq.domain.job import Job
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.engine.context import Context
from gpuq.errors import SecretsUnavailable, WrongState
from gpuq.ports.records import Move, Writer

# Who holds a job whose secrets cannot be read, in the column `held_by`.
HELD_BY = "secrets"


def secrets_of(ctx: Context, tx: Writer, job: Job, spec: JobSpec) -> dict[str, str]:
    """Opened. Where that cannot be done the job is held, so that nothing is charged and nothing tried again and again:
    that is written, and WrongState raised."""
    at_hand = {name: value for name, value in spec.secrets.items() if value is not None}
    if len(at_hand) == len(spec.secrets):
        return at_hand
    sealed = tx.sealed(job.id)
    try:
        if sealed is None:
            raise SecretsUnavailable("they are not in the database any more")
        return ctx.secrets.open(sealed)
    except SecretsUnavailable as error:
        _hold(ctx, tx, job, f"held: its secrets cannot be read: {error.message}")
        raise WrongState(f"job {job.id} is held: {error.message}") from None


def _hold(ctx: Context, tx: Writer, job: Job, told: str) -> None:
    tx.move(
        Move(
            job.id,
            JobState.HELD,
            frozenset({JobState.QUEUED}),
            ACTOR,
            ctx.clock.now(),
            detail=told,
            set={"held_by": HELD_BY},
            seen=(job.state, job.attempt, job.token),
        )
    )

"""Telling people of an attempt that does not come to its end: an event, and what `gpuq why` and `gpuq doctor` show."""

from __future__ import annotations

import logging

from gpuq.domain.caller import ACTOR
from gpuq.domain.installation_keys import InstallationKey
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.engine.switches import stuck_attempts
from gpuq.errors import GpuqError
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)


def tell(ctx: Context, tracked: TrackedAttempt, text: str) -> None:
    """Once for the same text. Only a report: a database that is away does not keep anybody from ending the attempt."""
    now = ctx.clock.now()
    value = {"attempt": tracked.number, "text": text}
    try:
        with ctx.records.read() as reader:
            if reader.value(_key(ctx, tracked.job.id)) == value:
                return
        with ctx.records.write() as tx:
            job = tx.job(tracked.job.id)
            if job.token != tracked.token:
                return
            tx.add_event(job.id, job.state, ACTOR, now, text, attempt=tracked.number)
            tx.set_value(_key(ctx, job.id), value, now)
    except GpuqError as error:
        log.info("job %d: not written: %s (%s)", tracked.job.id, text, error.message)
        return
    ctx.notifier.publish(Topic.EVENTS)


def clear(ctx: Context, tracked: TrackedAttempt) -> None:
    """It is well again."""
    try:
        with ctx.records.write() as tx:
            tx.set_value(_key(ctx, tracked.job.id), None, ctx.clock.now())
    except GpuqError as error:
        log.info("job %d is well again, which is not written: %s", tracked.job.id, error.message)


def forget(ctx: Context) -> None:
    """Removes what was told of attempts that have ended."""
    prefix = InstallationKey.STUCK.prefix(ctx.node)
    try:
        with ctx.records.read() as reader:
            told = reader.values(prefix)
            still = stuck_attempts(reader, ctx.node) if told else {}
        over = [key for key in told if int(key.removeprefix(prefix)) not in still]
        if over:
            with ctx.records.write() as tx:
                for key in over:
                    tx.set_value(key, None, ctx.clock.now())
    except GpuqError as error:
        log.info("what was told of ended attempts stays: %s", error.message)


def _key(ctx: Context, job_id: int) -> str:
    return InstallationKey.STUCK.of(ctx.node, str(job_id))

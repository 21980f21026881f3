"""Retention: how many dead letters are kept and for how long. A job's own history is never deleted here."""

from __future__ import annotations

import logging

from gpuq.engine.context import MaintenanceContext

log = logging.getLogger(__name__)

REQUEST_KEYS_KEPT_S = 2 * 86400.0


def retain(ctx: MaintenanceContext) -> int:
    """Returns how many dead letters were dropped."""
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        letters = sorted(tx.dead_letters(), key=lambda letter: letter.failed_at, reverse=True)
        oldest = now - ctx.settings.dlq_days * 86400
        drop = [
            letter for place, letter in enumerate(letters) if place >= ctx.settings.dlq_max or letter.failed_at < oldest
        ]
        for letter in drop:
            tx.remove_dead_letter(letter.job_id)
        tx.forget_requests(now - REQUEST_KEYS_KEPT_S)
    if drop:
        log.info("%d dead letters dropped (cap %d, %g days)", len(drop), ctx.settings.dlq_max, ctx.settings.dlq_days)
    return len(drop)

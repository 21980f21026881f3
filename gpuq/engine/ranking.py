"""The rule of the line that is in force: one for the whole installation, whatever a client's own settings say.

Scores are stored, so a rule that changes while jobs wait changes theirs with it: maintenance does that in the
transaction that begins a rebuild of the hot queue, which then takes the new scores. Everybody else asks SQL.
"""

from __future__ import annotations

import logging

from gpuq.domain.priority import Ranking
from gpuq.engine.context import Context
from gpuq.ports.records import Reader, Writer

log = logging.getLogger(__name__)

KEY = "ranking"


def wanted(ctx: Context) -> Ranking:
    """What this process's settings say."""
    return Ranking(ctx.settings.order, ctx.settings.priority_aging)


def ranking(ctx: Context, tx: Reader) -> Ranking:
    """The rule in force; before the first rebuild, what the settings say."""
    stored = tx.value(KEY)
    return wanted(ctx) if stored is None else Ranking(stored["order"], stored["aging_s"])


def enforce(ctx: Context, tx: Writer) -> None:
    """Puts the settings' rule in force. A job that somebody moved to the front stays as far ahead of the others of its
    priority as it was."""
    rule, stored = wanted(ctx), tx.value(KEY)
    # A release that kept no rule had no ageing.
    before = Ranking(rule.order) if stored is None else Ranking(stored["order"], stored["aging_s"])
    if stored is None or before != rule:
        tx.set_value(KEY, {"order": rule.order, "aging_s": rule.aging_s}, ctx.clock.now())
    if before != rule:
        moved = tx.rescore(rule.step_s - before.step_s, rule.factor - before.factor)
        log.info("the rule of the line has changed: %d waiting jobs have new places", moved)

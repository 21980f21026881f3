"""The rule of the line that is in force: one for the whole installation, whatever a client's own settings say.

Scores are stored, so a rule that changes while jobs wait changes theirs with it: maintenance does that in the
transaction that begins a rebuild of the hot queue, which then takes the new scores. Everybody else asks SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.priority import Ranking
from gpuq.domain.states import WAITING
from gpuq.engine.context import HotContext
from gpuq.ports.records import JobFilter, Reader, Writer

log = logging.getLogger(__name__)


def wanted(ctx: HotContext) -> Ranking:
    """What this process's settings say."""
    settings = ctx.settings
    return Ranking(settings.order, settings.priority_aging, settings.user_spacing)


def ranking(ctx: HotContext, tx: Reader) -> Ranking:
    """The rule in force; before the first rebuild, what the settings say."""
    return ranking_of(ctx, tx.value(InstallationKey.RANKING))


def ranking_of(ctx: HotContext, stored: Mapping[str, Any] | None) -> Ranking:
    """The same, from what is stored of it."""
    return wanted(ctx) if stored is None else Ranking(**stored)


def ahead(tx: Reader, rule: Ranking, user: str) -> int:
    """How many jobs of that user wait, where that matters."""
    return tx.count(JobFilter(states=WAITING, user=user)) if rule.spacing_s else 0


def enforce(ctx: HotContext, tx: Writer) -> None:
    """Puts the settings' rule in force. A job that somebody moved to the front stays as far ahead of the others of its
    priority as it was, and one that was spaced as far behind."""
    rule, stored = wanted(ctx), tx.value(InstallationKey.RANKING)
    # A release that kept no rule had no ageing.
    before = Ranking(rule.order) if stored is None else Ranking(**stored)
    if stored is None or before != rule:
        tx.set_value(InstallationKey.RANKING, asdict(rule), ctx.clock.now())
    shifts = rule.step_s - before.step_s, rule.factor - before.factor
    if any(shifts):
        moved = tx.rescore(*shifts)
        log.info("the rule of the line has changed: %d jobs have new places", moved)

"""What `gpuq groups` shows."""

from __future__ import annotations

from typing import Any

from gpuq.domain.states import ACTIVE, WAITING
from gpuq.engine.context import QueryContext
from gpuq.engine.switches import group_limits


def report(ctx: QueryContext) -> list[dict[str, Any]]:
    """One row for each group that has a limit or jobs that are not final, by name, ready for JSON: group, running,
    waiting, limit (None: none), limited_by."""
    with ctx.records.read() as tx:
        limits = group_limits(tx)
        counts = tx.count_by_group()
    return [
        {
            "group": name,
            "running": sum(counts.get(name, {}).get(state, 0) for state in ACTIVE),
            "waiting": sum(counts.get(name, {}).get(state, 0) for state in WAITING),
            "limit": limits.get(name, {}).get("running"),
            "limited_by": limits.get(name, {}).get("by"),
        }
        for name in sorted(limits.keys() | counts.keys())
    ]

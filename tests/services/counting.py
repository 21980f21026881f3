"""The totals as a full count of the rows gives them, to hold against those that are kept."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import text

from gpuq.domain.totals import WAIT_BOUNDS, Totals
from gpuq.stores.sql import Database


def counted(database: Database) -> dict[str, Any]:
    """By name, as `kept` tells them. True while no row was ever removed."""
    with database.read() as connection:

        def pairs(question: str) -> dict[str, int]:
            return {str(name): int(number) for name, number in connection.execute(text(question))}

        starts = "SELECT min(a.started_at) - j.submitted_at FROM attempts a JOIN jobs j ON j.id = a.job_id"
        waits = [
            float(row[0])
            for row in connection.execute(
                text(f"{starts} WHERE a.started_at IS NOT NULL GROUP BY a.job_id, j.submitted_at")
            )
        ]
        return {
            "jobs": pairs("SELECT state, count(*) FROM jobs GROUP BY state"),
            "attempts": pairs("SELECT outcome, count(*) FROM attempts WHERE outcome IS NOT NULL GROUP BY outcome"),
            "dead_letters": connection.execute(text("SELECT count(*) FROM dead_letter_queue")).scalar_one(),
            "waits": [sum(wait <= bound for wait in waits) for bound in WAIT_BOUNDS],
            "count": len(waits),
            "seconds": round(sum(waits), 2),
        }


def kept(totals: Totals) -> dict[str, Any]:
    """The same of what a reader tells."""
    return {
        "jobs": dict(Counter({str(state): count for state, count in totals.jobs.items()})),
        "attempts": dict(totals.attempts),
        "dead_letters": totals.dead_letters,
        "waits": list(totals.wait_counts),
        "count": totals.waits,
        "seconds": round(totals.wait_s, 2),
    }

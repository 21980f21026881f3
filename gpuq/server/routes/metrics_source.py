"""The numbers behind `GET /metrics`, gathered from the record at each scrape."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from gpuq import __version__
from gpuq.domain.states import JobState
from gpuq.engine.agent import Agent
from gpuq.engine.context import Context
from gpuq.engine.queries import gpu_report, health
from gpuq.engine.queries.demand import bounded
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.engine.switches import paused


def of(ctx: Context, agent: Agent | None, queries: JobQueries) -> dict[str, Any]:
    """What `gpuq.observe.metrics.render` takes."""
    with ctx.records.read() as tx:
        totals = tx.totals()
        standing = paused(tx)
    gpus = gpu_report.report(ctx)
    ready = health.readyz(ctx, queries.agent)
    demand = queries.demand.ask()
    users = bounded(demand.users)
    return {
        "jobs": {str(state): totals.jobs.get(state, 0) for state in JobState},
        "dead_letters": totals.dead_letters,
        "paused": standing is not None,
        "ready": ready["ready"],
        "stuck": len(ready["stuck"]),
        **_disk(ctx.settings.home),
        "gpus": Counter(str(row["state"]) for row in gpus),
        "gpu_utilisation": {row["index"]: row["utilisation"] for row in gpus},
        "gpu_used_mb": {row["index"]: row["used_mb"] for row in gpus},
        "gpu_holders": [(row["index"], job["id"], job["user"]) for row in gpus for job in row["jobs"]],
        "waiting": {priority.label: count for priority, count in demand.waiting.items()},
        "user_running": {user: total.running for user, total in users.items()},
        "user_waiting": {user: total.waiting for user, total in users.items()},
        "user_gpus": {user: total.gpus for user, total in users.items()},
        "attempts_finished": dict(totals.attempts),
        "queue_wait": {"counts": totals.wait_counts, "count": totals.waits, "sum": round(totals.wait_s, 3)},
        "agent_heartbeat_age_s": max(0.0, ctx.clock.now() - agent.last_turn_at) if agent else None,
        "maintenance": {
            run.task: {"last_ok": run.last_ok, "last_error": run.last_error} for run in ctx.maintenance_runs.runs()
        },
        "version": __version__,
    }


def _disk(home: Path) -> dict[str, Any]:
    """Of the home, where output and records are. Nothing, when it does not tell."""
    try:
        found = os.statvfs(home)
    except OSError:
        return {}
    return {"disk_free_bytes": found.f_bavail * found.f_frsize, "disk_bytes": found.f_blocks * found.f_frsize}

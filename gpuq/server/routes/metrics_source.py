"""The numbers behind `GET /metrics`, gathered from the record at each scrape."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gpuq import __version__
from gpuq.engine.agent import Agent
from gpuq.engine.context import Context
from gpuq.engine.queries import gpu_report, health
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.observe.metrics import WAIT_BOUNDS


def of(ctx: Context, agent: Agent | None, liveness: AgentLiveness) -> dict[str, Any]:
    """What `gpuq.observe.metrics.render` takes."""
    stats = health.stats(ctx)
    gpus = gpu_report.report(ctx)
    return {
        "jobs": stats["jobs"],
        "dead_letters": stats["dead_letters"],
        "paused": stats["paused"] is not None,
        "ready": health.readyz(ctx, liveness)["ready"],
        "gpus": Counter(str(row["state"]) for row in gpus),
        "gpu_utilisation": {row["index"]: row["utilisation"] for row in gpus},
        "gpu_used_mb": {row["index"]: row["used_mb"] for row in gpus},
        "attempts_finished": dict(
            ctx.history.query(
                "SELECT outcome, count(*) FROM attempt_history WHERE outcome IS NOT NULL GROUP BY outcome"
            )[1]
        ),
        "queue_wait": _waits(ctx),
        "agent_heartbeat_age_s": max(0.0, ctx.clock.now() - agent.last_turn_at) if agent else None,
        "maintenance": {
            run.task: {"last_ok": run.last_ok, "last_error": run.last_error} for run in ctx.maintenance_runs.runs()
        },
        "version": __version__,
    }


def _waits(ctx: Context) -> dict[str, Any]:
    buckets = ", ".join(f"sum(CASE WHEN wait_s <= {bound} THEN 1 ELSE 0 END)" for bound in WAIT_BOUNDS)
    _, [row] = ctx.history.query(
        f"SELECT {buckets}, count(wait_s), sum(wait_s) FROM job_history WHERE wait_s IS NOT NULL"
    )
    *counts, count, total = row
    return {"counts": [int(each or 0) for each in counts], "count": int(count), "sum": float(total or 0.0)}

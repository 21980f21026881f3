"""The numbers behind `GET /metrics`, gathered from the record at each scrape."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gpuq import __version__
from gpuq.domain.states import JobState
from gpuq.engine.agent import Agent
from gpuq.engine.context import Context
from gpuq.engine.queries import gpu_report, health
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.switches import paused


def of(ctx: Context, agent: Agent | None, liveness: AgentLiveness) -> dict[str, Any]:
    """What `gpuq.observe.metrics.render` takes."""
    with ctx.records.read() as tx:
        totals = tx.totals()
        standing = paused(tx)
    gpus = gpu_report.report(ctx)
    return {
        "jobs": {str(state): totals.jobs.get(state, 0) for state in JobState},
        "dead_letters": totals.dead_letters,
        "paused": standing is not None,
        "ready": health.readyz(ctx, liveness)["ready"],
        "gpus": Counter(str(row["state"]) for row in gpus),
        "gpu_utilisation": {row["index"]: row["utilisation"] for row in gpus},
        "gpu_used_mb": {row["index"]: row["used_mb"] for row in gpus},
        "attempts_finished": dict(totals.attempts),
        "queue_wait": {"counts": totals.wait_counts, "count": totals.waits, "sum": round(totals.wait_s, 3)},
        "agent_heartbeat_age_s": max(0.0, ctx.clock.now() - agent.last_turn_at) if agent else None,
        "maintenance": {
            run.task: {"last_ok": run.last_ok, "last_error": run.last_error} for run in ctx.maintenance_runs.runs()
        },
        "version": __version__,
    }

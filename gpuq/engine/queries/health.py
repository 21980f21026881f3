"""Is it well? Asked by people (`gpuq doctor`), by load balancers (`/readyz`) and by Prometheus (`/metrics`)."""

from __future__ import annotations

from typing import Any

from gpuq.domain.states import ACTIVE, FINAL, WAITING, JobState
from gpuq.domain.times import iso
from gpuq.engine import disk_reserve
from gpuq.engine.context import QueryContext
from gpuq.engine.hot.cold_store import is_cold
from gpuq.engine.queries.agent_liveness import AgentLiveness
from gpuq.engine.switches import launch_trouble, paused, stuck_attempts
from gpuq.errors import DatabaseUnavailable, GpuqError, HotStoreCold


def healthz(ctx: QueryContext) -> dict[str, Any]:
    """The process lives; asks nobody else."""
    return {"status": "ok", "node": ctx.node, "at": iso(ctx.clock.now())}


def readyz(ctx: QueryContext, agent: AgentLiveness) -> dict[str, Any]:
    """`{"ready": bool, "checks": {part: {"ok", "detail"}}, "maintenance": [...], "stuck": [...]}`."""
    checks = {"database": _database(ctx), "redis": _redis(ctx), "agent": _agent(ctx, agent), "disk": _disk(ctx)}
    return {
        "ready": all(check["ok"] for check in checks.values()),
        "checks": checks,
        "maintenance": maintenance(ctx) if checks["database"]["ok"] else [],
        "stuck": stuck(ctx) if checks["database"]["ok"] else [],
    }


def stuck(ctx: QueryContext) -> list[dict[str, Any]]:
    """The running jobs of this node that do not come to their end, and why, ready for JSON. Raises
    DatabaseUnavailable."""
    with ctx.records.read() as tx:
        return [{"job_id": job_id, "text": text} for job_id, text in sorted(stuck_attempts(tx, ctx.node).items())]


def maintenance(ctx: QueryContext) -> list[dict[str, Any]]:
    """When each task of maintenance last began, succeeded and failed, ready for JSON. Raises DatabaseUnavailable."""
    return [
        {
            "task": run.task,
            "last_start": iso(run.last_start),
            "last_ok": iso(run.last_ok),
            "last_error": iso(run.last_error),
            "error": run.error,
        }
        for run in ctx.maintenance_runs.runs()
    ]


def stats(ctx: QueryContext) -> dict[str, Any]:
    """Jobs by state, dead letters, GPUs and whether the queue is paused, ready for JSON. Raises DatabaseUnavailable."""
    with ctx.records.read() as tx:
        totals = tx.totals()
        pause = paused(tx)
    counts, letters = totals.jobs, totals.dead_letters
    return {
        "jobs": {str(state): counts.get(state, 0) for state in JobState},
        "running": sum(counts.get(state, 0) for state in ACTIVE),
        "waiting": sum(counts.get(state, 0) for state in WAITING),
        "finished": sum(counts.get(state, 0) for state in FINAL),
        "dead_letters": letters,
        "gpus": len(ctx.gpus.inventory()),
        "paused": pause,
        "node": ctx.node,
    }


def _database(ctx: QueryContext) -> dict[str, Any]:
    try:
        with ctx.records.read() as tx:
            paused(tx)
    except GpuqError as error:
        return {"ok": False, "detail": error.message}
    return {"ok": True, "detail": "answers"}


def _redis(ctx: QueryContext) -> dict[str, Any]:
    try:
        cold = is_cold(ctx)
        if not cold:
            # As a start does: what another program wrote under one of these names stands in its way.
            ctx.queue.heads(1)
            ctx.lease_holders.holders(ctx.node)
    except HotStoreCold:
        cold = True
    except DatabaseUnavailable:
        # Redis did answer. The rest is told as the database's trouble.
        return {"ok": True, "detail": "answers"}
    except GpuqError as error:
        return {"ok": False, "detail": error.message}
    return {"ok": not cold, "detail": "is being rebuilt from the database" if cold else "answers"}


def _disk(ctx: QueryContext) -> dict[str, Any]:
    """Of the home, where output and records are, whatever the database."""
    home = ctx.settings.home
    try:
        room = disk_reserve.look(home)
    except OSError as error:
        return {"ok": False, "detail": f"the disk of {home} does not answer: {error.strerror}"}
    if not room.low:
        return {"ok": True, "detail": room.text}
    return {
        "ok": False,
        "detail": f"the disk of {home} is full: {room.text}; nothing new is started until there is room",
    }


def _agent(ctx: QueryContext, agent: AgentLiveness) -> dict[str, Any]:
    alive = agent.is_alive()
    if alive and (trouble := _launch_trouble(ctx)) is not None:
        return {"ok": False, "detail": f"cannot start anything: {trouble}; tried again by itself"}
    return {"ok": alive, "detail": "runs" if alive else "no agent runs on this home; start one with `gpuq up`"}


def _launch_trouble(ctx: QueryContext) -> str | None:
    try:
        with ctx.records.read() as tx:
            return launch_trouble(tx, ctx.node)
    except GpuqError:
        # Told as the database's trouble.
        return None

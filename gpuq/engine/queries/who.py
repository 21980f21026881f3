"""Who uses the machine: per user what runs, waits, is held and stands idle, and the GPU-hours of a week."""

from __future__ import annotations

import json
from collections import defaultdict

from typing_extensions import TypedDict

from gpuq.domain.states import ACTIVE, WAITING
from gpuq.domain.times import iso
from gpuq.engine.context import QueryContext
from gpuq.engine.switches import idle_attempts
from gpuq.ports.records import JobFilter

WEEK_S = 7 * 86400.0


class IdleView(TypedDict):
    """The JSON of a job whose GPUs stand still, `since` when (ISO 8601 in UTC)."""

    job_id: int
    name: str
    gpus: int
    since: str | None


class WhoView(TypedDict):
    """The JSON of a user. `gpus`: held now, whole ones and shares alike; `idle_gpus`: those of them that stand still,
    in the jobs of `idle`. `gpu_hours`: of the last seven days, what runs included."""

    user: str
    running: int
    waiting: int
    gpus: int
    idle_gpus: int
    idle: list[IdleView]
    gpu_hours: float


def who(ctx: QueryContext) -> list[WhoView]:
    """Everybody who runs or waits, or ran within the week; who holds most first. Raises DatabaseUnavailable."""
    now = ctx.clock.now()
    with ctx.records.read() as tx:
        running = tx.jobs(JobFilter(states=ACTIVE))
        idle = idle_attempts(tx, ctx.node)
    waiting = _waiting(ctx)
    hours = _gpu_hours(ctx, now)
    found: dict[str, WhoView] = {}
    for user in {*waiting, *hours, *(job.user for job in running)}:
        found[user] = WhoView(
            user=user,
            running=0,
            waiting=waiting.get(user, 0),
            gpus=0,
            idle_gpus=0,
            idle=[],
            gpu_hours=round(hours.get(user, 0.0), 3),
        )
    for job in running:
        row, gpus = found[job.user], len(job.gpu_indices or ())
        row["running"] += 1
        row["gpus"] += gpus
        if job.id in idle:
            row["idle_gpus"] += gpus
            row["idle"].append(IdleView(job_id=job.id, name=job.name, gpus=gpus, since=iso(idle[job.id])))
    return sorted(found.values(), key=lambda row: (-row["gpus"], -row["waiting"], row["user"]))


def _waiting(ctx: QueryContext) -> dict[str, int]:
    states = ", ".join(f"'{state}'" for state in sorted(WAITING))
    _, rows = ctx.history.query(f'SELECT "user", count(*) FROM jobs WHERE state IN ({states}) GROUP BY 1')
    return dict(rows)


def _gpu_hours(ctx: QueryContext, now: float) -> dict[str, float]:
    """Added up by the database for runs alike in user and GPUs, within the window only."""
    since = now - WEEK_S
    start = f"(CASE WHEN a.started_at > {since!r} THEN a.started_at ELSE {since!r} END)"
    # Two questions, each with an index of its own: what ended since then, and what runs.
    parts = (
        f'SELECT j."user", a.gpu_indices, sum(a.finished_at - {start}) FROM attempts a JOIN jobs j ON j.id = a.job_id'
        f" WHERE a.finished_at >= {since!r} AND a.started_at IS NOT NULL AND a.gpu_indices <> '[]' GROUP BY 1, 2",
        f'SELECT j."user", a.gpu_indices, sum({now!r} - {start}) FROM attempts a JOIN jobs j ON j.id = a.job_id'
        " WHERE a.outcome IS NULL AND a.started_at IS NOT NULL AND a.gpu_indices <> '[]' GROUP BY 1, 2",
    )
    hours: dict[str, float] = defaultdict(float)
    for statement in parts:
        for user, indices, seconds in ctx.history.query(statement)[1]:
            hours[user] += float(seconds) * len(json.loads(indices)) / 3600
    return hours

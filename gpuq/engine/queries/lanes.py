"""Which job had, has and is expected to have which GPU, over time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

from typing_extensions import TypedDict

from gpuq.domain.states import ACTIVE, JobState
from gpuq.domain.times import iso
from gpuq.engine.context import QueryContext
from gpuq.engine.queries.job_queries import JobQueries
from gpuq.ports.records import JobFilter

# Bars of the past, and jobs of the forecast, that are told at most.
MOST = 1000


class BarView(TypedDict):
    """The JSON of a job on one GPU. Times: ISO 8601 in UTC; `end` null: nobody knows. `kind`: whether it is over, runs,
    or is expected."""

    gpu: int
    job_id: int
    name: str
    user: str
    kind: Literal["past", "running", "forecast"]
    outcome: str | None
    start: str
    end: str | None


class LanesView(TypedDict):
    """The JSON of a window of time, from `since` to `until` around `now`. `bars` of one GPU may overlap where jobs
    share it."""

    since: str
    now: str
    until: str
    gpus: list[int]
    bars: list[BarView]


def lanes(ctx: QueryContext, queries: JobQueries, *, past_s: float, ahead_s: float) -> LanesView:
    """What ended in the last `past_s` seconds, what runs, and what the plan, run forward, starts in the next `ahead_s`.
    Raises DatabaseUnavailable."""
    now = ctx.clock.now()
    bars = [*_past(ctx, now - past_s), *_running(ctx, queries), *_forecast(ctx, queries, now + ahead_s)]
    return {
        "since": _text(now - past_s),
        "now": _text(now),
        "until": _text(now + ahead_s),
        "gpus": [gpu.index for gpu in ctx.gpus.inventory()],
        "bars": bars,
    }


def _text(at: float) -> str:
    return iso(at) or ""


def _past(ctx: QueryContext, since: float) -> Iterator[BarView]:
    """The last of them, by the index of the ends."""
    _, rows = ctx.history.query(
        'SELECT a.job_id, j.name, j."user", a.gpu_indices, a.outcome, a.started_at, a.finished_at'
        " FROM attempts a JOIN jobs j ON j.id = a.job_id"
        f" WHERE a.finished_at >= {since!r} AND a.started_at IS NOT NULL AND a.gpu_indices <> '[]'"
        f" ORDER BY a.finished_at DESC LIMIT {MOST}"
    )
    for job_id, name, user, indices, outcome, start, end in rows:
        for gpu in json.loads(indices):
            yield BarView(
                gpu=gpu,
                job_id=job_id,
                name=name,
                user=user,
                kind="past",
                outcome=outcome,
                start=_text(start),
                end=_text(end),
            )


def _running(ctx: QueryContext, queries: JobQueries) -> Iterator[BarView]:
    with ctx.records.read() as tx:
        jobs = [job for job in tx.jobs(JobFilter(states=ACTIVE)) if job.gpu_indices]
    for job, seen in queries.describe(jobs):
        for gpu in job.gpu_indices or ():
            yield BarView(
                gpu=gpu,
                job_id=job.id,
                name=job.name,
                user=job.user,
                kind="running",
                outcome=None,
                start=_text(job.started_at or ctx.clock.now()),
                end=iso(seen.estimated_end),
            )


def _forecast(ctx: QueryContext, queries: JobQueries, until: float) -> Iterator[BarView]:
    start, gpus = queries.forecast_gpus()
    soon = sorted((at, job_id) for job_id, at in start.items() if at < until and job_id in gpus)[:MOST]
    with ctx.records.read() as tx:
        jobs = {job.id: job for job in tx.jobs(JobFilter(ids=tuple(job_id for _, job_id in soon)))} if soon else {}
    # Of the state of now: what has started since is told as running.
    waiting = [jobs[job_id] for _, job_id in soon if job_id in jobs and jobs[job_id].state is JobState.QUEUED]
    for job, seen in queries.describe(waiting):
        if seen.estimated_start is None:
            continue
        for gpu in gpus[job.id]:
            yield BarView(
                gpu=gpu,
                job_id=job.id,
                name=job.name,
                user=job.user,
                kind="forecast",
                outcome=None,
                start=_text(seen.estimated_start),
                end=iso(seen.estimated_end),
            )

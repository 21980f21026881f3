"""The reports of `gpuq report`, as SQL on the views that anybody may query, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from gpuq.domain.outcome import Outcome
from gpuq.domain.times import iso
from gpuq.engine.context import QueryContext
from gpuq.errors import UsageError

KINDS = ("usage", "waits", "failures", "utilization")
GROUPINGS = ("user", "group", "gpu", "day")
DAY_S = 86400.0

Table = tuple[list[str], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the two databases write one thing differently. `{0}` is a time."""

    day: str
    epoch: str


SQLITE = Dialect(
    day="substr({0}, 1, 10)",
    epoch="((julianday({0}) - 2440587.5) * 86400.0)",
)
POSTGRES = Dialect(
    day="to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    epoch="extract(epoch FROM {0})::double precision",
)

_KEYS = {"user": '"user"', "group": "coalesce(\"group\", '-')"}


def report(ctx: QueryContext, kind: str, by: str, since: float | None) -> Table:
    """Columns and rows. `since` in epoch seconds cuts by the end of a run (`waits`: by its start).

    Raises UsageError for an unknown kind or grouping.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown report {kind!r}", hint="there are: " + ", ".join(KINDS))
    if by not in GROUPINGS:
        raise UsageError(f"cannot group by {by!r}", hint="by: user, group, gpu or day")
    dialect = SQLITE if ctx.settings.database_url.startswith("sqlite") else POSTGRES
    if kind == "utilization":
        return utilization(ctx, dialect, by, since)
    if kind == "waits":
        return ctx.history.query(waits(dialect, by, since))
    statement = usage if kind == "usage" else failures
    return ctx.history.query(statement(dialect, by, since, [gpu.index for gpu in ctx.gpus.inventory()]))


def _after(column: str, since: float | None) -> str:
    return "" if since is None else f" AND {column} >= '{iso(since)}'"


def _source(dialect: Dialect, by: str, gpus: list[int]) -> tuple[str, str]:
    """The grouping expression and the FROM clause, on the attempts. By `gpu` an attempt counts once for each GPU
    that it held and that the machine still has."""
    if by != "gpu":
        return (dialect.day.format("finished_at") if by == "day" else _KEYS[by]), "attempt_history"
    there = " UNION ALL ".join(f"SELECT {index} AS gpu" for index in gpus) or "SELECT 0 AS gpu WHERE 1 = 0"
    # The list is text such as [0, 2]; neither database has a function for its elements that the other has too.
    held = "replace(replace(replace(gpu_indices, '[', ','), ']', ','), ' ', '')"
    return "gpu", f"attempt_history JOIN ({there}) cards ON {held} LIKE '%,' || gpu || ',%'"


def usage(dialect: Dialect, by: str, since: float | None, gpus: list[int]) -> str:
    """The statement for GPU hours and run hours by user, group, GPU or day."""
    key, source = _source(dialect, by, gpus)
    # Per GPU an attempt counts its own length; otherwise its length times its GPUs.
    seconds = "run_s" if by == "gpu" else "gpu_seconds"
    return f"""SELECT {key} AS "{by}", count(DISTINCT job_id) AS jobs, count(*) AS attempts,
  round(cast(coalesce(sum({seconds}), 0) / 3600.0 AS numeric), 3) AS gpu_hours,
  round(cast(coalesce(sum(run_s), 0) / 3600.0 AS numeric), 3) AS run_hours,
  max(peak_gpu_mem_mb) AS peak_gpu_mem_mb
FROM {source} WHERE run_s IS NOT NULL{_after("finished_at", since)}
GROUP BY 1 ORDER BY 4 DESC, 1"""


def waits(dialect: Dialect, by: str, since: float | None) -> str:
    """By `gpu`: by how many GPUs were asked for, since a waiting job has none. Nearest-rank percentiles."""
    key = {"gpu": "gpus", "day": dialect.day.format("submitted_at")}.get(by) or _KEYS[by]
    name = "gpus" if by == "gpu" else by
    return f"""SELECT key AS "{name}", count(*) AS jobs, round(cast(avg(wait_s) AS numeric), 1) AS mean_s,
  min(CASE WHEN place * 2 >= n THEN wait_s END) AS median_s,
  min(CASE WHEN place * 100 >= n * 95 THEN wait_s END) AS p95_s, max(wait_s) AS max_s
FROM (SELECT {key} AS key, wait_s, row_number() OVER (PARTITION BY {key} ORDER BY wait_s) AS place,
  count(*) OVER (PARTITION BY {key}) AS n
  FROM job_history WHERE wait_s IS NOT NULL{_after("started_at", since)}) ranked
GROUP BY key ORDER BY key"""


def failures(dialect: Dialect, by: str, since: float | None, gpus: list[int]) -> str:
    """The statement for how attempts ended. Cancelled and preempted ones are counted, but not as failed."""
    key, source = _source(dialect, by, gpus)
    bad = [str(outcome) for outcome in Outcome if outcome is not Outcome.SUCCEEDED]
    columns = ",\n  ".join(f"sum(CASE WHEN outcome = '{name}' THEN 1 ELSE 0 END) AS {name}" for name in bad)
    counted = ", ".join(f"'{name}'" for name in bad if name not in {Outcome.CANCELLED, Outcome.PREEMPTED})
    rate = f"avg(CASE WHEN outcome IN ({counted}) THEN 1.0 ELSE 0.0 END)"
    return f"""SELECT {key} AS "{by}", count(*) AS attempts, round(cast({rate} AS numeric), 3) AS failed_share,
  {columns}
FROM {source} WHERE outcome IS NOT NULL{_after("finished_at", since)}
GROUP BY 1 ORDER BY 3 DESC, 1"""


def utilization(ctx: QueryContext, dialect: Dialect, by: str, since: float | None) -> Table:
    """How much of the GPUs' time was held by jobs, running ones counted up to now. Without `since` from the
    first start on. `mean_gpu_util` is what the driver saw on average while they were held."""
    now = ctx.clock.now()
    start, end = dialect.epoch.format("started_at"), dialect.epoch.format("finished_at")
    in_window = "" if since is None else f" AND (finished_at IS NULL OR finished_at >= '{iso(since)}')"
    _, rows = ctx.history.query(
        f"""SELECT {start}, {end}, gpu_indices, "user", coalesce("group", '-'), avg_gpu_util
FROM attempt_history WHERE started_at IS NOT NULL{in_window}"""
    )
    held = [(float(row[0]), now if row[1] is None else float(row[1]), *row[2:]) for row in rows]
    begin = since if since is not None else min((row[0] for row in held), default=now)
    seconds: dict[str, float] = defaultdict(float)
    seen: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for started, ended, indices, user, group, load in held:
        gpus = [str(index) for index in json.loads(indices or "[]")]
        for key, length in _pieces(by, max(started, begin), ended, gpus, user, group):
            seconds[key] += length
            if load is not None:
                seen[key][0] += length * load
                seen[key][1] += length
    count = len(ctx.gpus.inventory())
    return [by, "gpu_hours", "share_of_capacity", "mean_gpu_util"], [
        (
            key,
            round(seconds[key] / 3600, 3),
            _share(seconds[key], _capacity(by, key, count, begin, now)),
            _share(*seen[key]),
        )
        for key in sorted(seconds)
    ]


def _pieces(by: str, start: float, end: float, gpus: list[str], user: str, group: str) -> list[tuple[str, float]]:
    """(key, GPU-seconds) of one attempt; a day ends at midnight UTC."""
    if end <= start or not gpus:
        return []
    if by == "gpu":
        return [(gpu, end - start) for gpu in gpus]
    if by != "day":
        return [(user if by == "user" else group, (end - start) * len(gpus))]
    pieces = []
    while start < end:
        stop = min(end, (start // DAY_S + 1) * DAY_S)
        pieces.append((str(iso(start))[:10], (stop - start) * len(gpus)))
        start = stop
    return pieces


def _capacity(by: str, key: str, gpus: int, begin: float, now: float) -> float:
    """GPU-seconds there were for this row."""
    if by == "gpu":
        return now - begin
    if by != "day":
        return (now - begin) * gpus
    first = begin // DAY_S * DAY_S
    while str(iso(first))[:10] < key:
        first += DAY_S
    return (min(now, first + DAY_S) - max(begin, first)) * gpus


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 3) if whole > 0 else None

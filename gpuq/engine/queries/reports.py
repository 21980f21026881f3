"""The reports of `gpuq report`, as SQL on the tables, the same on SQLite and PostgreSQL.

The views that anybody may query tell times as text and add up every attempt of a job; a report reads what ended within
its window, by the index of the ends, and nothing else. What it tells is what the views would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuq.domain.outcome import Outcome
from gpuq.engine.context import QueryContext
from gpuq.engine.queries.utilization import FROM, utilization
from gpuq.errors import UsageError

KINDS = ("usage", "waits", "failures", "utilization")
GROUPINGS = ("user", "group", "gpu", "day")

Table = tuple[list[str], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the two databases write one thing differently. `{0}`: a time in epoch seconds; a number to round; a list
    whose length is asked for; a number to cut."""

    day: str
    seconds: str
    cards: str
    whole: str


SQLITE = Dialect(
    day="strftime('%Y-%m-%d', {0}, 'unixepoch')",
    seconds="round({0}, 3)",
    cards="json_array_length({0})",
    whole="CAST({0} AS integer)",
)
POSTGRES = Dialect(
    day="to_char(to_timestamp({0}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    seconds="round(({0})::numeric, 3)::double precision",
    cards="json_array_length({0}::json)",
    whole="floor({0})",
)

_KEYS = {"user": 'j."user"', "group": "coalesce(j.\"group\", '-')"}
# An attempt that started before this one of the same job.
_EARLIER = "SELECT 1 FROM attempts e WHERE e.job_id = a.job_id AND e.number < a.number AND e.started_at IS NOT NULL"


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
        return utilization(ctx, dialect.cards, dialect.whole, by, since)
    if kind == "waits":
        return ctx.history.query(waits(dialect, by, since))
    statement = usage if kind == "usage" else failures
    return ctx.history.query(statement(dialect, by, since, [gpu.index for gpu in ctx.gpus.inventory()]))


def _since(since: float | None) -> str:
    """An attempt that has ended, since then."""
    return "a.finished_at IS NOT NULL" if since is None else f"a.finished_at >= {since!r}"


def _source(dialect: Dialect, by: str, gpus: list[int]) -> tuple[str, str]:
    """The grouping expression and the FROM clause, on the attempts. By `gpu` an attempt counts once for each GPU
    that it held and that the machine still has."""
    source = FROM
    if by != "gpu":
        return (dialect.day.format("a.finished_at") if by == "day" else _KEYS[by]), source
    there = " UNION ALL ".join(f"SELECT {index} AS gpu" for index in gpus) or "SELECT 0 AS gpu WHERE 1 = 0"
    # The list is text such as [0, 2]; neither database has a function for its elements that the other has too.
    held = "replace(replace(replace(a.gpu_indices, '[', ','), ']', ','), ' ', '')"
    return "gpu", f"{source} JOIN ({there}) cards ON {held} LIKE '%,' || gpu || ',%'"


def usage(dialect: Dialect, by: str, since: float | None, gpus: list[int]) -> str:
    """The statement for GPU hours and run hours by user, group, GPU or day."""
    key, source = _source(dialect, by, gpus)
    ran = "a.finished_at - a.started_at"
    run_s = dialect.seconds.format(ran)
    # Per GPU an attempt counts its own length; otherwise its length times its GPUs.
    times = dialect.cards.format("a.gpu_uuids")
    seconds = run_s if by == "gpu" else dialect.seconds.format(f"({ran}) * {times}")
    return f"""SELECT {key} AS "{by}", count(DISTINCT a.job_id) AS jobs, count(*) AS attempts,
  round(cast(coalesce(sum({seconds}), 0) / 3600.0 AS numeric), 3) AS gpu_hours,
  round(cast(coalesce(sum({run_s}), 0) / 3600.0 AS numeric), 3) AS run_hours,
  max(a.peak_gpu_mem_mb) AS peak_gpu_mem_mb
FROM {source} WHERE j.id = a.job_id AND a.started_at IS NOT NULL AND {_since(since)}
GROUP BY 1 ORDER BY 4 DESC, 1"""


def waits(dialect: Dialect, by: str, since: float | None) -> str:
    """By `gpu`: by how many GPUs were asked for, since a waiting job has none. Nearest-rank percentiles."""
    key = {"gpu": "j.gpus", "day": dialect.day.format("j.submitted_at")}.get(by) or _KEYS[by]
    name = "gpus" if by == "gpu" else by
    wait = dialect.seconds.format("a.started_at - j.submitted_at")
    started = "a.started_at IS NOT NULL" if since is None else f"a.started_at >= {since!r}"
    # What started within the window has ended within it or runs: each has its index.
    first = " UNION ALL ".join(
        f"SELECT {key} AS key, {wait} AS wait_s FROM {FROM}"
        f" WHERE j.id = a.job_id AND {state} AND {started} AND (a.number = 1 OR NOT EXISTS ({_EARLIER}))"
        for state in (_since(since), "a.outcome IS NULL")
    )
    return f"""SELECT key AS "{name}", count(*) AS jobs, round(cast(avg(wait_s) AS numeric), 1) AS mean_s,
  min(CASE WHEN place * 2 >= n THEN wait_s END) AS median_s,
  min(CASE WHEN place * 100 >= n * 95 THEN wait_s END) AS p95_s, max(wait_s) AS max_s
FROM (SELECT key, wait_s, row_number() OVER (PARTITION BY key ORDER BY wait_s) AS place,
  count(*) OVER (PARTITION BY key) AS n FROM ({first}) first) ranked
GROUP BY key ORDER BY key"""


def failures(dialect: Dialect, by: str, since: float | None, gpus: list[int]) -> str:
    """The statement for how attempts ended. Cancelled and preempted ones are counted, but not as failed."""
    key, source = _source(dialect, by, gpus)
    bad = [str(outcome) for outcome in Outcome if outcome is not Outcome.SUCCEEDED]
    columns = ",\n  ".join(f"sum(CASE WHEN a.outcome = '{name}' THEN 1 ELSE 0 END) AS {name}" for name in bad)
    counted = ", ".join(f"'{name}'" for name in bad if name not in {Outcome.CANCELLED, Outcome.PREEMPTED})
    rate = f"avg(CASE WHEN a.outcome IN ({counted}) THEN 1.0 ELSE 0.0 END)"
    return f"""SELECT {key} AS "{by}", count(*) AS attempts, round(cast({rate} AS numeric), 3) AS failed_share,
  {columns}
FROM {source} WHERE j.id = a.job_id AND {_since(since)}
GROUP BY 1 ORDER BY 3 DESC, 1"""

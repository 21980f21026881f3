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


@dataclass(frozen=True, slots=True)
class Window:
    """From `since` to `until`, in epoch seconds; None: without bound. `now`: when it is asked."""

    since: float | None
    until: float | None
    now: float

    def holds(self, column: str) -> str:
        """SQL that a time lies within."""
        bounds = [f"{column} >= {self.since!r}"] if self.since is not None else [f"{column} IS NOT NULL"]
        return " AND ".join([*bounds, *([f"{column} <= {self.until!r}"] if self.until is not None else [])])

    @property
    def is_open(self) -> bool:
        """Whether now lies within."""
        return (self.since is None or self.since <= self.now) and (self.until is None or self.now <= self.until)


def report(ctx: QueryContext, kind: str, by: str, since: float | None, until: float | None = None) -> Table:
    """Columns and rows. `by`: one or several of GROUPINGS, commas between. `since` and `until` in epoch seconds cut by
    the end of a run (`waits`: by its start); a run that has not ended counts up to now.

    Raises UsageError for an unknown kind or grouping.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown report {kind!r}", hint="there are: " + ", ".join(KINDS))
    keys = list(dict.fromkeys(part.strip() for part in by.split(",")))
    for key in keys:
        if key not in GROUPINGS:
            raise UsageError(f"cannot group by {key!r}", hint="by: user, group, gpu or day, or several: user,day")
    dialect = SQLITE if ctx.settings.database_url.startswith("sqlite") else POSTGRES
    window = Window(since, until, ctx.clock.now())
    if kind == "utilization":
        if len(keys) > 1:
            raise UsageError("report utilization groups by one thing", hint="by user, group, gpu or day")
        return utilization(ctx, dialect.cards, dialect.whole, keys[0], since, until)
    if kind == "waits":
        return ctx.history.query(waits(dialect, keys, window))
    statement = usage if kind == "usage" else failures
    return ctx.history.query(statement(dialect, keys, window, [gpu.index for gpu in ctx.gpus.inventory()]))


def _source(dialect: Dialect, keys: list[str], gpus: list[int], end: str) -> tuple[list[str], str]:
    """The grouping expressions and the FROM clause, on the attempts, which end at `end`. By `gpu` an attempt counts
    once for each GPU that it held and that the machine still has."""
    known = {**_KEYS, "gpu": "gpu", "day": dialect.day.format(end)}
    expressions = [known[key] for key in keys]
    if "gpu" not in keys:
        return expressions, FROM
    there = " UNION ALL ".join(f"SELECT {index} AS gpu" for index in gpus) or "SELECT 0 AS gpu WHERE 1 = 0"
    # The list is text such as [0, 2]; neither database has a function for its elements that the other has too.
    held = "replace(replace(replace(a.gpu_indices, '[', ','), ']', ','), ' ', '')"
    return expressions, f"{FROM} JOIN ({there}) cards ON {held} LIKE '%,' || gpu || ',%'"


def _grouped(keys: list[str], most: str) -> str:
    """GROUP BY and ORDER BY: a single key by the figure in column `most`, several by themselves."""
    places = ", ".join(str(place + 1) for place in range(len(keys)))
    return f"GROUP BY {places} ORDER BY {f'{most} DESC, 1' if len(keys) == 1 else places}"


def _named(expressions: list[str], keys: list[str]) -> str:
    return ", ".join(f'{expression} AS "{key}"' for expression, key in zip(expressions, keys, strict=True))


def usage(dialect: Dialect, keys: list[str], window: Window, gpus: list[int]) -> str:
    """The statement for GPU hours and run hours by user, group, GPU or day, running attempts up to now."""
    # What has ended within the window, and what runs: each has its index.
    parts = [("a.finished_at", window.holds("a.finished_at"))]
    if window.is_open:
        parts.append((repr(window.now), "a.outcome IS NULL"))
    times = "1" if "gpu" in keys else dialect.cards.format("a.gpu_uuids")
    rows = []
    for end, within in parts:
        expressions, source = _source(dialect, keys, gpus, end)
        # Per GPU an attempt counts its own length; otherwise its length times its GPUs.
        ran = dialect.seconds.format(f"{end} - a.started_at")
        seconds = dialect.seconds.format(f"({end} - a.started_at) * {times}")
        rows.append(
            f"SELECT {_named(expressions, keys)}, a.job_id, {seconds} AS gpu_s, {ran} AS run_s, a.peak_gpu_mem_mb"
            f" FROM {source} WHERE j.id = a.job_id AND a.started_at IS NOT NULL AND {within}"
        )
    names = ", ".join(f'"{key}"' for key in keys)
    return f"""SELECT {names}, count(DISTINCT job_id) AS jobs, count(*) AS attempts,
  round(cast(coalesce(sum(gpu_s), 0) / 3600.0 AS numeric), 3) AS gpu_hours,
  round(cast(coalesce(sum(run_s), 0) / 3600.0 AS numeric), 3) AS run_hours,
  max(peak_gpu_mem_mb) AS peak_gpu_mem_mb
FROM ({" UNION ALL ".join(rows)}) held {_grouped(keys, "4")}"""


def waits(dialect: Dialect, keys: list[str], window: Window) -> str:
    """By `gpu`: by how many GPUs were asked for, since a waiting job has none. Nearest-rank percentiles."""
    known = {**_KEYS, "gpu": "j.gpus", "day": dialect.day.format("j.submitted_at")}
    named = ["gpus" if key == "gpu" else key for key in keys]
    wait = dialect.seconds.format("a.started_at - j.submitted_at")
    ended = "a.finished_at IS NOT NULL" if window.since is None else f"a.finished_at >= {window.since!r}"
    # What started within the window has ended since it began or runs: each has its index.
    first = " UNION ALL ".join(
        f"SELECT {_named([known[key] for key in keys], named)}, {wait} AS wait_s FROM {FROM} WHERE j.id = a.job_id"
        f" AND {state} AND {window.holds('a.started_at')} AND (a.number = 1 OR NOT EXISTS ({_EARLIER}))"
        for state in (ended, "a.outcome IS NULL")
    )
    names = ", ".join(f'"{name}"' for name in named)
    return f"""SELECT {names}, count(*) AS jobs, round(cast(avg(wait_s) AS numeric), 1) AS mean_s,
  min(CASE WHEN place * 2 >= n THEN wait_s END) AS median_s,
  min(CASE WHEN place * 100 >= n * 95 THEN wait_s END) AS p95_s, max(wait_s) AS max_s
FROM (SELECT {names}, wait_s, row_number() OVER (PARTITION BY {names} ORDER BY wait_s) AS place,
  count(*) OVER (PARTITION BY {names}) AS n FROM ({first}) first) ranked
GROUP BY {names} ORDER BY {names}"""


def failures(dialect: Dialect, keys: list[str], window: Window, gpus: list[int]) -> str:
    """The statement for how attempts ended. Cancelled and preempted ones are counted, but not as failed."""
    expressions, source = _source(dialect, keys, gpus, "a.finished_at")
    bad = [str(outcome) for outcome in Outcome if outcome is not Outcome.SUCCEEDED]
    columns = ",\n  ".join(f"sum(CASE WHEN a.outcome = '{name}' THEN 1 ELSE 0 END) AS {name}" for name in bad)
    counted = ", ".join(f"'{name}'" for name in bad if name not in {Outcome.CANCELLED, Outcome.PREEMPTED})
    rate = f"avg(CASE WHEN a.outcome IN ({counted}) THEN 1.0 ELSE 0.0 END)"
    return f"""SELECT {_named(expressions, keys)}, count(*) AS attempts,
  round(cast({rate} AS numeric), 3) AS failed_share,
  {columns}
FROM {source} WHERE j.id = a.job_id AND {window.holds("a.finished_at")}
{_grouped(keys, "3")}"""

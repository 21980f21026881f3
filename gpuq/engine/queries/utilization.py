"""`gpuq report utilization`: how much of the GPUs' time was held by jobs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpuq.domain.times import iso
from gpuq.engine.context import QueryContext

DAY_S = 86400.0
# In this order: SQLite, which has no statistics, would as soon walk through every job.
FROM = "attempts a CROSS JOIN jobs j"
# Times have three decimals: what is less is the rounding of sums, for an end at midnight sharp.
LEAST_S = 0.0005

Table = tuple[list[str], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of attempts alike, each as often as it held GPUs: how many, and their starts and ends added up, in seconds after
    the begin of the window. The time that they held GPUs in any span of it follows from these."""

    count: float
    starts: float
    ends: float

    def length(self) -> float:
        return self.ends - self.starts


def utilization(
    ctx: QueryContext, cards: str, whole: str, by: str, since: float | None, until: float | None = None
) -> Table:
    """Running jobs are counted up to now, and everything up to `until`. `cards`: SQL for the length of a list `{0}`;
    `whole`: for a number without its fraction. Without `since` from the first start on. `mean_gpu_util` is what the
    driver saw on average while they were held."""
    now = ctx.clock.now() if until is None else min(until, ctx.clock.now())
    begin = since if since is not None else _first_start(ctx, now)
    seconds: dict[str, float] = defaultdict(float)
    looked: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in ctx.history.query(_statement(cards, whole, by, since, begin, now))[1]:
        key, last, *numbers = row
        held, seen, weighed = (_Sums(*(float(each or 0) for each in numbers[at : at + 3])) for at in (0, 3, 6))
        for (name, length), (_, of_seen), (_, of_weighed) in zip(
            *(_pieces(by, key, last, sums, begin) for sums in (held, seen, weighed)), strict=True
        ):
            if length < LEAST_S:
                continue
            seconds[name] += length
            if seen.count:
                looked[name][0] += of_weighed
                looked[name][1] += of_seen
    count = len(ctx.gpus.inventory())
    return [by, "gpu_hours", "share_of_capacity", "mean_gpu_util"], [
        (
            key,
            round(seconds[key] / 3600, 3),
            _share(seconds[key], _capacity(by, key, count, begin, now)),
            _share(*looked[key]),
        )
        for key in sorted(seconds)
    ]


def _first_start(ctx: QueryContext, now: float) -> float:
    first = ctx.history.query("SELECT min(started_at) FROM attempts")[1][0][0]
    return now if first is None else float(first)


def _statement(cards: str, whole: str, by: str, since: float | None, begin: float, now: float) -> str:
    """What is added up by the database: attempts alike in user, group, GPUs, or days of start and end."""
    start = f"(CASE WHEN a.started_at > {begin!r} THEN a.started_at ELSE {begin!r} END)"
    end = f"(CASE WHEN a.finished_at < {now!r} THEN a.finished_at ELSE {now!r} END)"
    keys = {
        "user": ('j."user"', "0"),
        "group": ("coalesce(j.\"group\", '-')", "0"),
        "gpu": ("a.gpu_indices", "0"),
        "day": (whole.format(f"{start} / {DAY_S!r}"), whole.format(f"{end} / {DAY_S!r}")),
    }
    key, last = keys[by]
    times = "1" if by == "gpu" else cards.format("a.gpu_indices")
    ended = "a.finished_at IS NOT NULL" if since is None else f"a.finished_at >= {since!r}"
    rows = " UNION ALL ".join(
        f"SELECT {key} AS key, {last} AS last, {times} AS n, {start} - {begin!r} AS s, {end} - {begin!r} AS e,"
        f" a.avg_gpu_util AS u FROM {FROM}"
        f" WHERE j.id = a.job_id AND {state} AND a.started_at IS NOT NULL AND a.gpu_indices <> '[]' AND {end} > {start}"
        for state in (ended, "a.outcome IS NULL")
    )
    seen = "CASE WHEN u IS NULL THEN 0 ELSE n END"
    sums = ", ".join(f"sum({weight}), sum({weight} * s), sum({weight} * e)" for weight in ("n", seen, "n * u"))
    return f"SELECT key, last, {sums} FROM ({rows}) held GROUP BY key, last"


def _pieces(by: str, key: Any, last: Any, sums: _Sums, begin: float) -> Iterator[tuple[str, float]]:
    """(name, GPU-seconds) of attempts alike; a day ends at midnight UTC."""
    if by == "gpu":
        yield from ((str(index), sums.length()) for index in json.loads(key))
    elif by != "day":
        yield str(key), sums.length()
    else:
        first_day, last_day = int(key), int(last)
        for day in range(first_day, last_day + 1):
            starts = sums.starts if day == first_day else sums.count * (day * DAY_S - begin)
            ends = sums.ends if day == last_day else sums.count * ((day + 1) * DAY_S - begin)
            yield _day(day), ends - starts


def _day(number: int) -> str:
    return str(iso(number * DAY_S))[:10]


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

"""A report on the tables tells what the views, which anybody may query, would tell: on a year of random jobs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.times import iso
from gpuq.engine.queries.reports import GROUPINGS, report
from gpuq.stores.sql import SqlHistory, open_history

NOW = 1_800_000_000.0
DAY = 86400.0
GPUS = (0, 1, 2)
WINDOWS = [None, NOW - 30 * DAY, NOW - 200.123 * DAY, NOW + DAY]
KEYS = {"user": '"user"', "group": "coalesce(\"group\", '-')", "day": "substr({0}, 1, 10)"}
CARDS = " UNION ALL ".join(f"SELECT {index} AS gpu" for index in GPUS)
HELD = "replace(replace(gpu_indices, '[', ','), ']', ',')"


@pytest.fixture
def history(grown_url: str) -> Iterator[SqlHistory]:
    opened = open_history(grown_url)
    yield opened
    opened.database.close()


def context(history: SqlHistory) -> Any:
    return SimpleNamespace(
        settings=SimpleNamespace(database_url="sqlite:///x"),
        history=history,
        clock=SimpleNamespace(now=lambda: NOW),
        gpus=SimpleNamespace(inventory=lambda: [SimpleNamespace(index=index) for index in GPUS]),
    )


def after(column: str, since: float | None) -> str:
    return "" if since is None else f" AND {column} >= '{iso(since)}'"


def attempts(by: str) -> tuple[str, str]:
    if by == "gpu":
        return "gpu", f"attempt_history JOIN ({CARDS}) c ON {HELD} LIKE '%,' || gpu || ',%'"
    return KEYS[by].format("finished_at"), "attempt_history"


def same(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    """In whatever order rows alike stand."""
    assert len(found) == len(expected)
    for mine, theirs in zip(
        sorted(found, key=lambda row: str(row[0])), sorted(expected, key=lambda r: str(r[0])), strict=True
    ):
        assert mine == pytest.approx(theirs, abs=0.0011), (mine, theirs)


@pytest.mark.parametrize("since", WINDOWS)
@pytest.mark.parametrize("by", GROUPINGS)
def test_usage_and_failures(history: SqlHistory, by: str, since: float | None) -> None:
    key, source = attempts(by)
    seconds = "run_s" if by == "gpu" else "gpu_seconds"
    usage = f"""SELECT {key}, count(DISTINCT job_id), count(*), sum({seconds}) / 3600.0, sum(run_s) / 3600.0,
      max(peak_gpu_mem_mb) FROM {source} WHERE run_s IS NOT NULL{after("finished_at", since)} GROUP BY 1"""
    # The views know no length of what still runs; up to just before now, neither does the report.
    columns, found = report(context(history), "usage", by, since, NOW - 0.001)
    assert columns == [by, "jobs", "attempts", "gpu_hours", "run_hours", "peak_gpu_mem_mb"]
    same(found, history.query(usage)[1])
    bad = [str(outcome) for outcome in Outcome if outcome is not Outcome.SUCCEEDED]
    of_each = ", ".join(f"sum(outcome = '{name}')" for name in bad)
    share = f"avg(outcome NOT IN ('{Outcome.SUCCEEDED}', '{Outcome.CANCELLED}', '{Outcome.PREEMPTED}') + 0.0)"
    failures = f"""SELECT {key}, count(*), {share}, {of_each} FROM {source}
      WHERE outcome IS NOT NULL{after("finished_at", since)} GROUP BY 1"""
    same(report(context(history), "failures", by, since)[1], history.query(failures)[1])


@pytest.mark.parametrize("since", WINDOWS)
@pytest.mark.parametrize("by", GROUPINGS)
def test_waits(history: SqlHistory, by: str, since: float | None) -> None:
    key = "gpus" if by == "gpu" else KEYS[by].format("submitted_at")
    waits: dict[Any, list[float]] = defaultdict(list)
    question = f"SELECT {key}, wait_s FROM job_history WHERE wait_s IS NOT NULL{after('started_at', since)}"
    for name, wait_s in history.query(question)[1]:
        waits[name].append(wait_s)
    expected = []
    for name, each in waits.items():
        each.sort()
        ranks = [each[-(-len(each) * part // 100) - 1] for part in (50, 95)]
        expected.append((name, len(each), round(sum(each) / len(each), 1), *ranks, each[-1]))
    found = report(context(history), "waits", by, since)[1]
    same([(*row[:2], *row[3:]) for row in found], [(*row[:2], *row[3:]) for row in expected])
    means = {row[0]: row[2] for row in expected}
    assert all(row[2] == pytest.approx(means[row[0]], abs=0.11) for row in found)


@pytest.mark.parametrize("since", WINDOWS)
@pytest.mark.parametrize("by", GROUPINGS)
def test_utilization(history: SqlHistory, by: str, since: float | None) -> None:
    epoch = "((julianday({0}) - 2440587.5) * 86400.0)"
    window = "" if since is None else f" AND (finished_at IS NULL OR finished_at >= '{iso(since)}')"
    rows = history.query(
        f"""SELECT {epoch.format("started_at")}, {epoch.format("finished_at")}, gpu_indices, "user",
          coalesce("group", '-'), avg_gpu_util FROM attempt_history WHERE started_at IS NOT NULL{window}"""
    )[1]
    begin = since if since is not None else min(row[0] for row in rows)
    held: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for began, ended, indices, user, group, load in rows:
        end = NOW if ended is None else ended
        for index in json.loads(indices):
            at = max(began, begin)
            while at < end:
                stop = min(end, (at // DAY + 1) * DAY) if by == "day" else end
                sums = held[{"user": user, "group": group, "gpu": str(index), "day": str(iso(at))[:10]}[by]]
                sums[0] += stop - at
                if load is not None:
                    sums[1] += (stop - at) * load
                    sums[2] += stop - at
                at = stop
    found = report(context(history), "utilization", by, since)[1]
    assert len(found) == len(held)
    for name, hours, _, load in found:
        assert hours == pytest.approx(held[name][0] / 3600, abs=0.002)
        assert load == pytest.approx(held[name][1] / held[name][2], abs=0.002)

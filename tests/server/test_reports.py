from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.engine.queries import reports, utilization
from gpuq.engine.queries.utilization import DAY_S
from gpuq.settings import Settings
from gpuq.stores.sql.schema.totals import count_statements


def submit(caller: Any, **fields: Any) -> int:
    return int(caller.post("/jobs", json={"command": ["true"], "cwd": "/", **fields}).json()["id"])


def table(api: Any, kind: str, query: str = "") -> list[dict[str, Any]]:
    answer = api.daemon.get(f"/report/{kind}?{query}")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return [dict(zip(body["columns"], row, strict=True)) for row in body["rows"]]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def settings(request: pytest.FixtureRequest, home: Path) -> Settings:
    database = {}
    if request.param == "postgresql":
        database = {"database_url": str(request.getfixturevalue("postgres_url"))}
    return Settings(home=home, gpus="sim:4", node="testbox", **database)


@pytest.fixture
def past(api: Any, start: Callable[..., Any]) -> None:
    start(submit(api.daemon, gpus=2), gpus=(0, 1)).end(Outcome.SUCCEEDED, JobState.COMPLETED)
    start(submit(api.bin, group="g"), gpus=(1,)).end(Outcome.EXIT_NONZERO, JobState.DELAYED, exit_code=1)
    start(submit(api.daemon, gpus=0), gpus=()).end(Outcome.SUCCEEDED, JobState.COMPLETED)
    _lengthen(api, {1: 3600.0, 2: 1800.0, 3: 60.0})


def _lengthen(api: Any, seconds: dict[int, float]) -> None:
    """Moves the starts back, as if the attempts had run so long."""
    engine = create_engine(api.ctx.settings.database_url)
    with engine.begin() as database:
        for job_id, length in seconds.items():
            values = {"length": length, "wait": length / 10, "job": job_id}
            database.execute(text("UPDATE attempts SET started_at = finished_at - :length WHERE job_id = :job"), values)
            started = "(SELECT started_at FROM attempts WHERE job_id = jobs.id)"
            database.execute(text(f"UPDATE jobs SET submitted_at = {started} - :wait WHERE id = :job"), values)
        # What is kept of an attempt's wait is kept when it starts.
        for statement in count_statements():
            database.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.usefixtures("past")
def test_usage_adds_up_gpu_hours(api: Any) -> None:
    rows = {row["user"]: row for row in table(api, "usage")}
    assert rows["daemon"]["gpu_hours"] == pytest.approx(2.0, abs=0.001)
    assert rows["daemon"]["jobs"] == 2
    assert rows["bin"]["gpu_hours"] == pytest.approx(0.5, abs=0.001)
    by_gpu = {row["gpu"]: row["gpu_hours"] for row in table(api, "usage", "by=gpu")}
    assert by_gpu == pytest.approx({0: 1.0, 1: 1.5}, abs=0.001)
    assert {row["group"] for row in table(api, "usage", "by=group")} == {"-", "g"}
    assert table(api, "usage", "since=2099-01-01") == []


@pytest.mark.usefixtures("past")
def test_waits_give_mean_median_and_tail(api: Any) -> None:
    rows = {row["user"]: row for row in table(api, "waits")}
    assert rows["daemon"]["jobs"] == 2
    assert rows["daemon"]["mean_s"] == pytest.approx((360 + 6) / 2, abs=0.1)
    assert rows["daemon"]["median_s"] == pytest.approx(6, abs=0.1)
    assert rows["daemon"]["p95_s"] == pytest.approx(360, abs=0.1)
    assert {row["gpus"] for row in table(api, "waits", "by=gpu")} == {0, 1, 2}


@pytest.mark.usefixtures("past")
def test_failures_are_counted_by_outcome(api: Any) -> None:
    rows = {row["user"]: row for row in table(api, "failures")}
    assert rows["bin"]["failed_share"] == 1.0
    assert rows["bin"]["exit_nonzero"] == 1
    assert rows["daemon"]["failed_share"] == 0.0


@pytest.mark.usefixtures("past")
def test_utilization_is_the_held_share_of_what_there_was(api: Any) -> None:
    now = api.ctx.clock.now()
    rows = {row["gpu"]: row for row in table(api, "utilization", f"by=gpu&since={now - 7200}")}
    assert rows["0"]["share_of_capacity"] == pytest.approx(0.5, abs=0.01)
    assert rows["1"]["share_of_capacity"] == pytest.approx(0.75, abs=0.01)
    users = {row["user"]: row for row in table(api, "utilization", f"since={now - 7200}")}
    assert users["daemon"]["share_of_capacity"] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("kind", reports.KINDS)
@pytest.mark.parametrize("by", ["user", "group", "gpu", "day"])
def test_every_report_is_a_table_with_and_without_a_past(
    api: Any, start: Callable[..., Any], kind: str, by: str
) -> None:
    assert table(api, kind, f"by={by}") == []
    start(submit(api.daemon), gpus=(0,)).end(Outcome.SUCCEEDED, JobState.COMPLETED)
    _lengthen(api, {1: 90000.0})
    start(submit(api.daemon), gpus=(1,))
    assert table(api, kind, f"by={by}")
    assert isinstance(table(api, kind, f"by={by}&since=1000"), list)
    assert table(api, kind, f"by={by}&until=1000") == []
    if kind != "utilization":
        assert table(api, kind, f"by={by},user,day")


def test_a_day_that_an_attempt_spans_gets_its_own_part(api: Any, start: Callable[..., Any]) -> None:
    midnight = 20_000 * DAY_S
    start(submit(api.daemon, gpus=2), gpus=(0, 1)).end(Outcome.SUCCEEDED, JobState.COMPLETED)
    change = text("UPDATE attempts SET started_at = :start, finished_at = :end")
    engine = create_engine(api.ctx.settings.database_url)
    with engine.begin() as database:
        database.execute(change, {"start": midnight - 600, "end": midnight + 300})
    engine.dispose()
    pieces = [(row["day"], row["gpu_hours"]) for row in table(api, "utilization", "by=day")]
    assert pieces == [("2024-10-03", 0.333), ("2024-10-04", 0.167)]
    assert utilization._capacity("day", pieces[1][0], 2, midnight - 600, midnight + 300) == 600


@pytest.mark.parametrize(
    "query",
    ["/report/everything", "/report/usage?by=moon", "/report/usage?by=user,", "/report/utilization?by=user,day"],
)
def test_a_report_that_there_is_not_is_refused(api: Any, query: str) -> None:
    assert api.daemon.get(query).status_code == 422


@pytest.mark.usefixtures("past")
def test_metrics_read_the_same_from_both_databases(api: Any) -> None:
    lines = api.daemon.get("/metrics").text.splitlines()
    assert 'gpuq_attempts_finished_total{outcome="succeeded"} 2.0' in lines
    assert 'gpuq_queue_wait_seconds_bucket{le="15.0"} 1.0' in lines
    assert "gpuq_queue_wait_seconds_count 3.0" in lines


@pytest.mark.parametrize("since", ["1e306", "-1e306", "-1", "0001-01-01", "9999-12-31T23:59:59.999-12:00"])
def test_a_time_beyond_the_calendar_is_its_first_or_its_last(api: Any, since: str) -> None:
    for path in ("/report/usage", "/report/waits", "/history"):
        assert api.root.get(path, params={"since": since}).status_code == 200

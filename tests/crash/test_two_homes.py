"""Two agents of one node, one of which slept longer than its leases: it gives nothing before it has proved its
standing again, and no GPU is ever given twice. Both share database, Redis and node name, each has a home of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

NODE = {"GPUQ_NODE": "shared", "GPUQ_LEASE_TTL": "1"}


@pytest.fixture
def pair(
    database: str, request: pytest.FixtureRequest, make_site: Callable[..., Any], redis_url: str, tmp_path: Path
) -> Iterator[tuple[Any, Any]]:
    """Two sites on the same stores; the first is up. Jobs keep its diary."""
    url = f"sqlite:///{tmp_path}/shared.db" if database == "sqlite" else request.getfixturevalue("postgres_url")
    first, second = (make_site(GPUQ_REDIS_URL=redis_url, GPUQ_DATABASE_URL=url, **NODE) for _ in range(2))
    first.database = second.database = tmp_path / "shared.db" if database == "sqlite" else url
    second.diary = first.diary
    first.box.up()
    # The first notes of maintenance are written: a process that is suspended in a transaction holds up everybody.
    noted = "select task from maintenance_runs where last_ok is not null"
    first.box.until(lambda: len(first.rows(noted)) >= 4, "maintenance has come to rest")
    yield first, second
    if (pid := first.daemon_pid()) is not None:
        # A test that failed may leave it asleep.
        psutil.Process(pid).send_signal(signal.SIGCONT)


def suspended(site: Any, point: str) -> psutil.Process:
    """The daemon sleeps: at that point, or wherever it is."""
    daemon = psutil.Process(site.daemon_pid())
    if point:
        site.arm(point, "stop")
    else:
        daemon.send_signal(signal.SIGSTOP)
    return daemon


on_postgres = pytest.mark.postgres


@pytest.mark.parametrize(
    ("database", "point"),
    [
        ("sqlite", ""),
        ("sqlite", "lease.taken"),
        pytest.param("postgres", "claim.committed", marks=on_postgres),
        pytest.param("postgres", "launch.folder_made", marks=on_postgres),
    ],
)
def test_an_agent_that_slept_gives_nothing_that_the_other_has_given(pair: tuple[Any, Any], point: str) -> None:
    first, second = pair
    diary = first.diary
    held = first.submit(diary.gated(), "-g", "1")
    short = first.submit(diary.gated(gate="gate-short"), "-g", "1")
    for job_id in (held, short):
        first.until_started(job_id)
        first.until_state(job_id, "running")
    daemon = suspended(first, point)
    # What the sleeper is about to give, unless it sleeps already; handed in past its daemon.
    wanted = second.submit(diary.script("sleep 0.1"), "-g", "2")
    diary.open_gate("gate-short")
    first.box.until(lambda: daemon.status() == psutil.STATUS_STOPPED, "the first daemon sleeps")
    second.box.gpuq("pause")
    second.box.until(lambda: second.box.gpuq("up", "-d", code=None).returncode == 0, "the second one takes the node")
    second.until_state(wanted, "queued", "delayed")
    second.box.gpuq("hold", str(wanted))
    second.box.gpuq("resume")
    second.until_state(short, "completed")
    # Every GPU has a job when the sleeper goes on with what it wanted to give.
    full = [second.submit(diary.gated(), "-g", "1") for _ in range(3)]
    for job_id in full:
        second.until_started(job_id)
        second.until_state(job_id, "running")
    second.box.gpuq("release", str(wanted))
    daemon.send_signal(signal.SIGCONT)
    log = Path(first.box.home) / "daemon.log"
    first.box.until(lambda: "another agent took the node 'shared'" in log.read_text(), "the sleeper stands down")
    assert second.job(wanted)["state"] in {"queued", "delayed"}
    # The other one goes and its jobs run on: the first has the node again, with all that the other has given.
    second.box.down()
    first.box.until(lambda: "adopted" in log.read_text().rpartition("another agent took")[2], "it has the node again")
    assert second.job(wanted)["state"] in {"queued", "delayed"}
    diary.open_gate()
    diary.answered += second.diary.answered
    first.settle()
    assert {first.job(job_id)["state"] for job_id in (held, short, wanted, *full)} == {"completed"}
    assert {*map(tuple, map(first.outcomes, (held, *full)))} == {("succeeded",)}

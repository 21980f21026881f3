"""Lists longer than a page: the same answer, made a page at a time."""

from __future__ import annotations

import errno
import tempfile
import threading
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import FINAL, JobState
from gpuq.ports.records import JobFilter, Move, NewJob
from gpuq.server.routes.long_lists import PAGE
from gpuq.stores.sql.core import engine

MANY = 2 * PAGE + 100


@pytest.fixture
def many(api: Any) -> list[int]:
    """Waiting jobs in line order, of two users; their names have what JSON has to escape."""
    now = api.ctx.clock.now()
    new = [
        NewJob(
            JobSpec(command=["x", "ü\n\u2028"]), "daemon" if n % 3 else "bin", 1 if n % 3 else 2, 1, f"n-{n}", "/",
            JobState.QUEUED, float(-n), 0, now,
        )
        for n in range(MANY)
    ]  # fmt: skip
    with api.ctx.records.write() as tx:
        return list(reversed(tx.add_jobs(new, actor="x")))


@pytest.fixture
def sizes(api: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each question gave."""
    found: list[int] = []
    reader = type(api.ctx.records.read().__enter__())
    for name in ("jobs", "line"):
        plain = getattr(reader, name)

        def noted(self: Any, *args: Any, plain: Any = plain, **kwargs: Any) -> Any:
            rows = plain(self, *args, **kwargs)
            found.append(len(rows))
            return rows

        monkeypatch.setattr(reader, name, noted)
    return found


def test_the_whole_line_comes_in_pages_and_in_order(api: Any, many: list[int], sizes: list[int]) -> None:
    answer = api.root.get("/queue")
    assert answer.headers["content-type"] == "application/json"
    view = answer.json()
    assert [job["id"] for job in view["jobs"]] == many
    assert [job["position"] for job in view["jobs"]] == list(range(1, MANY + 1))
    assert (view["running"], view["queued"], view["waiting"], view["total"], view["paused"]) == (
        0,
        MANY,
        MANY,
        MANY,
        None,
    )
    assert max(sizes) == PAGE
    short = api.root.get("/queue?limit=3").json()
    assert short == {**view, "jobs": view["jobs"][:3]}
    theirs = api.root.get("/queue?user=daemon").json()["jobs"]
    assert [job["id"] for job in theirs] == [job["id"] for job in view["jobs"] if job["user"] == "daemon"]


def test_a_page_goes_on_after_a_job(api: Any, many: list[int]) -> None:
    page = api.root.get(f"/queue?limit=2&after_id={many[1500]}").json()["jobs"]
    assert [(job["id"], job["position"]) for job in page] == [(many[1501], 1502), (many[1502], 1503)]
    # It begins after the job that is named, not so many further on.
    assert api.root.get(f"/queue?limit=2&after_id={many[1500]}&offset=1").json()["jobs"] == page
    assert api.root.get("/queue?after_id=999999").status_code == 404


def test_jobs_and_history_come_in_pages_too(api: Any, many: list[int], sizes: list[int]) -> None:
    jobs = api.root.get("/jobs?limit=100000").json()
    assert [job["id"] for job in jobs] == sorted(many)
    assert [job["id"] for job in api.root.get("/jobs?limit=1500&newest_first=true").json()] == sorted(many)[::-1][:1500]
    assert jobs[0]["command"] == ["x", "ü\n\u2028"]
    with api.ctx.records.write() as tx:
        for place, job_id in enumerate(many):
            fields = {"outcome": Outcome.CANCELLED, "finished_at": 5.0 + place // 2}
            tx.move(Move(job_id, JobState.CANCELLED, frozenset({JobState.QUEUED}), "x", 5.0, set=fields))
    ended = api.root.get("/history?limit=100000").json()
    order = sorted(ended, key=lambda job: (job["finished_at"], job["id"]), reverse=True)
    assert [job["id"] for job in ended] == [job["id"] for job in order]
    assert len(ended) == MANY
    after = api.root.get(f"/history?limit=7&after_id={ended[1200]['id']}").json()
    assert after == ended[1201:1208]
    assert max(sizes) == PAGE


def test_a_disk_without_room_is_told(api: Any, many: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda **_: Full())
    answer = api.root.get("/queue")
    assert answer.status_code == 503
    assert "No space left" in answer.json()["error"]["message"]
    assert api.root.get("/queue?limit=5").status_code == 200


def test_what_a_long_list_leaves_in_memory_is_given_back(
    api: Any, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    spared: list[str] = []
    monkeypatch.setattr(type(api.ctx.records), "spare_memory", lambda self: spared.append("memory"))
    api.root.get("/queue?limit=10")
    assert spared == []
    for path in ("/queue", "/jobs?limit=5000", "/report/usage"):
        api.root.get(path)
    assert spared == ["memory"] * 3


def test_idle_connections_keep_no_pages_and_answer_as_before(api: Any, many: list[int]) -> None:
    with api.ctx.records.read(), api.ctx.records.read() as tx:
        before = tx.jobs(JobFilter(limit=3))
    api.ctx.records.spare_memory()
    with api.ctx.records.read() as tx:
        api.ctx.records.spare_memory()
        assert tx.jobs(JobFilter(limit=3)) == before
        assert tx.jobs(JobFilter(states=FINAL)) == []


def test_the_pages_of_every_connection_that_nobody_uses_are_freed(api: Any, many: list[int]) -> None:
    database = api.ctx.records.database
    freed: list[str] = []
    with database.write_on_driver() as writing, database.read_on_driver() as one, database.read_on_driver() as other:
        for name, driver in (("writing", writing), ("one", one), ("other", other)):
            driver.set_trace_callback(lambda text, name=name: freed.append(name) if "shrink_memory" in text else None)
    api.ctx.records.spare_memory()
    assert sorted(freed) == ["one", "other", "writing"]


def test_memory_is_not_freed_in_the_midst_of_a_write_and_nobody_minds(
    api: Any, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SPARE_WAIT_S", 0.01)
    database = api.ctx.records.database
    freed: list[str] = []
    with database.write_on_driver() as driver:
        driver.set_trace_callback(freed.append)
        sparing = threading.Thread(target=api.ctx.records.spare_memory)
        sparing.start()
        sparing.join(30)
        assert not sparing.is_alive()
        assert not [text for text in freed if "shrink_memory" in text]

"""Cleaning up by hand, over HTTP: who may remove what, and how much it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.engine.actions import clean
from gpuq.ports.records import DeadLetter


class Site:
    """Jobs with output and checkpoints, by owner."""

    def __init__(self, api: Any, start: Callable[..., Any]) -> None:
        self.api = api
        self.start = start

    def job(self, caller: Any, *, end: JobState | None = JobState.COMPLETED, **fields: Any) -> int:
        answer = caller.post("/jobs", json={"command": ["true"], "cwd": "/", **fields})
        assert answer.status_code == 201, answer.text
        job_id: int = answer.json()["id"]
        run = self.start(job_id)
        run.log.write_bytes(b"o" * 10_000)
        checkpoints = run.log.parent.with_name("checkpoint")
        checkpoints.mkdir()
        (checkpoints / "state").write_bytes(b"c" * 10_000)
        if end is not None:
            run.end(Outcome.SUCCEEDED if end is JobState.COMPLETED else Outcome.EXIT_NONZERO, end)
        return job_id

    def left(self, job_id: int) -> list[str]:
        folder = Path(self.api.ctx.run_dir(job_id, 1)).parent
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def clean(self, caller: Any, **body: Any) -> dict[str, Any]:
        answer = caller.post("/clean", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def site(api: Any, start: Callable[..., Any], as_root: None) -> Site:
    return Site(api, start)


ALL = ["1", "checkpoint"]


def refused(caller: Any, **body: Any) -> tuple[int, str]:
    answer = caller.post("/clean", json=body)
    return answer.status_code, answer.json()["error"]["code"]


def test_a_dry_run_says_how_much_and_removes_nothing(site: Site) -> None:
    jobs = [site.job(site.api.daemon) for _ in range(2)]
    found = site.clean(site.api.daemon, dry_run=True, checkpoints=True)
    assert (found["jobs"], found["not_measured"], found["failed"]) == (2, 0, [])
    assert 20_000 <= found["output_bytes"] <= 100_000
    assert 20_000 <= found["checkpoint_bytes"] <= 100_000
    assert [site.left(job_id) for job_id in jobs] == [ALL, ALL]
    done = site.clean(site.api.daemon, checkpoints=True)
    assert {**done, "dry_run": True} == found
    assert [site.left(job_id) for job_id in jobs] == [[], []]
    assert site.clean(site.api.daemon, dry_run=True, checkpoints=True)["jobs"] == 0


def test_owners_clean_their_own_and_administrators_everybodys(site: Site) -> None:
    mine, theirs = site.job(site.api.daemon), site.job(site.api.bin)
    assert refused(site.api.bin, user="daemon") == (403, "forbidden")
    assert refused(site.api.bin, user="daemon", dry_run=True) == (403, "forbidden")
    assert refused(site.api.bin, ids=[mine]) == (403, "forbidden")
    assert refused(site.api.bin, ids=[theirs, mine]) == (403, "forbidden")
    assert site.clean(site.api.bin, dry_run=True)["jobs"] == 1
    site.clean(site.api.bin)
    assert (site.left(theirs), site.left(mine)) == (["checkpoint"], ALL)
    other = site.job(site.api.bin)
    site.clean(site.api.root, user="bin")
    assert (site.left(other), site.left(mine)) == (["checkpoint"], ALL)
    site.clean(site.api.root, checkpoints=True)
    assert [site.left(job_id) for job_id in (mine, theirs, other)] == [[], [], []]
    said = site.api.daemon.get(f"/jobs/{mine}/log")
    assert (said.status_code, said.json()["error"]["message"].endswith(": cleaned by root")) == (404, True)


def test_a_name_that_was_given_to_somebody_else_cleans_nothing_of_the_former_owner(site: Site) -> None:
    job_id = site.job(site.api.daemon)
    with site.api.ctx.files.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET uid = 3 WHERE id = {job_id}")
    site.clean(site.api.daemon)
    assert site.left(job_id) == ALL


def test_what_may_run_again_is_refused_by_name_and_left_out_otherwise(site: Site) -> None:
    running, dead = site.job(site.api.daemon, end=None), site.job(site.api.daemon, end=JobState.FAILED)
    with site.api.ctx.records.write() as tx:
        tx.add_dead_letter(DeadLetter(dead, 1.0, "exit_nonzero", None, 1, None))
    assert refused(site.api.daemon, ids=[running]) == (409, "wrong_state")
    assert refused(site.api.daemon, ids=[dead]) == (409, "refused")
    assert refused(site.api.daemon, ids=[999]) == (404, "not_found")
    assert refused(site.api.daemon, states=["running"]) == (422, "usage")
    found = site.clean(site.api.daemon, dry_run=True)
    assert (found["jobs"], found["dead_letters"]) == (0, 1)
    site.clean(site.api.daemon, checkpoints=True)
    assert (site.left(running), site.left(dead)) == (ALL, ALL)


def test_filters_choose_by_group_state_and_age(site: Site) -> None:
    grouped = site.job(site.api.daemon, group="nightly")
    failed = site.job(site.api.daemon, end=JobState.FAILED)
    assert site.clean(site.api.daemon, dry_run=True, older_than_s=3600)["jobs"] == 0
    assert site.clean(site.api.daemon, dry_run=True, older_than_s=0)["jobs"] == 2
    site.clean(site.api.daemon, group="nightly")
    assert (site.left(grouped), site.left(failed)) == (["checkpoint"], ALL)
    site.clean(site.api.daemon, states=["failed"])
    assert site.left(failed) == ["checkpoint"]


@pytest.mark.parametrize("limit", ["JOBS", "NAMES"])
def test_many_jobs_take_several_calls_and_none_is_left_out(
    site: Site, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(clean, limit, 3)
    jobs = [site.job(site.api.daemon) for _ in range(7)]
    calls, freed, after = 0, 0, 0
    while after is not None:
        done = site.clean(site.api.daemon, after_id=after)
        calls, freed, after = calls + 1, freed + done["output_bytes"], done["next_after_id"]
        assert calls < 50
    assert calls >= 3
    assert freed >= 70_000
    assert [site.left(job_id) for job_id in jobs] == [["checkpoint"]] * 7


def test_everybody_is_told_how_much_room_there_is_and_who_has_the_rest(site: Site) -> None:
    site.job(site.api.bin)
    site.clean(site.api.bin, dry_run=True)
    seen = site.api.daemon.get("/disk").json()
    assert 0 < seen["free_bytes"] < seen["total_bytes"]
    assert seen["full_in_s"] is None
    assert [share["user"] for share in seen["largest"]] == ["bin"]
    assert seen["largest"][0]["bytes"] >= 20_000

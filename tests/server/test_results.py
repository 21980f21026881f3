"""Results over HTTP: to whom they are given, and that no browser takes them for a page of ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.states import JobState
from gpuq.ports.records import Move
from tests.server.conftest import DAEMON

PAGE = b"<script>alert(document.cookie)</script>"


@pytest.fixture
def finished(api: Any, start: Callable[..., Any]) -> Callable[..., Any]:
    """A job of the user `daemon` that has ended and left this."""

    def finished(data: bytes | None, media_type: str | None = None, short: str | None = None) -> Any:
        job = api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()
        run = start(job["id"])
        run_dir = run.log.parent
        size = None
        if data is not None:
            (run_dir / "result").write_bytes(data)
            os.chown(run_dir / "result", DAEMON, -1)
            size = len(data)
        os.chown(run_dir, DAEMON, -1)
        at = api.ctx.clock.now()
        values = {"outcome": Outcome.SUCCEEDED, "exit_code": 0, "finished_at": at}
        left = {"result_bytes": size, "result_type": media_type, "short_result": short}
        with api.ctx.records.write() as tx:
            tx.end_attempt(run.job_id, 1, run.token, Result(Outcome.SUCCEEDED, exit_code=0, finished_at=at))
            came_from = frozenset({JobState.RUNNING})
            move = Move(run.job_id, JobState.COMPLETED, came_from, "gpuq", at, token=run.token, set={**values, **left})
            tx.move(move)
        return run

    return finished


def test_a_result_is_given_as_it_was_written(api: Any, finished: Callable[..., Any]) -> None:
    data = bytes(range(256)) * 2000
    job = finished(data, "image/png", "loss 0.1\nü").job_id
    answer = api.daemon.get(f"/jobs/{job}/result")
    assert (answer.status_code, answer.content) == (200, data)
    assert (answer.headers["Content-Type"], answer.headers["Content-Disposition"]) == ("image/png", "inline")
    assert api.daemon.get(f"/jobs/{job}/short_result").text == "loss 0.1\nü"
    shown = api.daemon.get(f"/jobs/{job}").json()
    assert shown["result_bytes"] == len(data)
    assert (shown["result_type"], shown["short_result"]) == ("image/png", "loss 0.1\nü")
    (listed,) = api.daemon.get("/jobs").json()
    assert listed["short_result"] == "loss 0.1\nü"


@pytest.mark.parametrize(
    ("media_type", "extension", "served", "how"),
    [
        ("text/html", "", "text/html", "attachment"),
        (None, "", "application/octet-stream", "attachment"),
        ("image/svg+xml", "", "image/svg+xml", "attachment"),
        ("IMAGE/SVG+XML; charset=utf-8", "", "IMAGE/SVG+XML; charset=utf-8", "attachment"),
        ("image/png", ".html", "text/html", "attachment"),
        ("image/png", ".svg", "image/svg+xml", "attachment"),
        ("text/html", ".jpg", "image/jpeg", "inline"),
        (None, ".JPG", "image/jpeg", "inline"),
        (None, ".txt", "text/plain", "inline"),
        ("text/html", ".nonsense", "application/octet-stream", "attachment"),
    ],
)
def test_no_result_becomes_a_page_of_ours(
    api: Any, finished: Callable[..., Any], media_type: str | None, extension: str, served: str, how: str
) -> None:
    job = finished(PAGE, media_type).job_id
    answer = api.daemon.get(f"/jobs/{job}/result{extension}")
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert answer.headers["Content-Type"].removesuffix("; charset=utf-8") == served.removesuffix("; charset=utf-8")
    assert answer.headers["Content-Disposition"] == how
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


@pytest.mark.usefixtures("as_root")
def test_who_may_not_read_the_output_may_not_read_the_result(api: Any, finished: Callable[..., Any]) -> None:
    job = finished(b"private", "text/plain", "private too").job_id
    for path in ("result", "result.txt", "short_result"):
        refused = api.bin.get(f"/jobs/{job}/{path}")
        assert (refused.status_code, "private" in refused.text) == (403, False)
        assert api.root.get(f"/jobs/{job}/{path}").status_code == 200
    # Everybody sees that a job exists and how it fares; what it left is nobody else's.
    for shown in (api.bin.get(f"/jobs/{job}").json(), *api.bin.get("/jobs").json(), *api.bin.get("/history").json()):
        assert (shown["short_result"], shown["result_bytes"]) == (None, 7)


def test_what_is_not_there_is_said(api: Any, finished: Callable[..., Any]) -> None:
    waiting = api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["id"]
    for path in ("result", "short_result"):
        answer = api.daemon.get(f"/jobs/{waiting}/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "wrong_state")
    nothing = finished(None).job_id
    for path in ("result", "result.png", "short_result"):
        answer = api.daemon.get(f"/jobs/{nothing}/{path}")
        assert (answer.status_code, "left no" in answer.json()["error"]["message"]) == (404, True)
    assert api.daemon.get(f"/jobs/{nothing}/result.a-b").status_code == 422
    assert api.daemon.get("/jobs/77/result").status_code == 404


def test_a_result_that_was_changed_or_exchanged_after_the_end_is_not_given(
    api: Any, finished: Callable[..., Any], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    run = finished(b"result")
    path = run.log.parent / "result"
    path.write_bytes(b"result and more")
    answer = api.daemon.get(f"/jobs/{run.job_id}/result")
    assert (answer.status_code, "changed after its end" in answer.json()["error"]["message"]) == (404, True)
    path.unlink()
    path.symlink_to(secret)
    answer = api.daemon.get(f"/jobs/{run.job_id}/result")
    assert (answer.status_code, "was removed" in answer.json()["error"]["message"]) == (404, True)

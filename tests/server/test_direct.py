from __future__ import annotations

import io
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.server import in_process
from gpuq.settings import Settings

ME = pwd.getpwuid(os.geteuid()).pw_name


def ask(settings: Settings, *requests: dict[str, Any] | bytes) -> list[dict[str, Any]]:
    lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in requests]
    answers = io.BytesIO()
    in_process.serve(settings, io.BytesIO(b"".join(line + b"\n" for line in lines)), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_requests_are_answered_line_by_line_as_this_user(settings: Settings) -> None:
    body = json.dumps({"command": ["true"], "cwd": "/"})
    answers = ask(
        settings,
        {"method": "POST", "path": "/jobs", "query": "", "headers": {"Idempotency-Key": "k"}, "body": body},
        {"method": "post", "path": "/jobs", "query": "", "headers": {"idempotency-key": "k"}, "body": body},
        {"method": "GET", "path": "/queue", "query": "limit=5"},
        {"method": "GET", "path": "/jobs/99", "query": None, "headers": None, "body": None},
    )
    assert [answer["status"] for answer in answers] == [201, 201, 200, 404]
    first, again, queue, _ = (json.loads(answer["body"]) for answer in answers)
    assert first["user"] == ME
    assert again["id"] == first["id"]
    assert [job["id"] for job in queue["jobs"]] == [first["id"]]
    assert queue["jobs"][0]["reason"]["code"] == "NoAgent"
    assert answers[0]["headers"]["content-type"] == "application/json"


def test_a_log_of_any_bytes_comes_through(settings: Settings, api: Any, start: Callable[..., Any]) -> None:
    job_id = api.root.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["id"]
    data = bytes(range(256))
    start(job_id).log.write_bytes(data)
    [answer] = ask(settings, {"method": "GET", "path": f"/jobs/{job_id}/log", "query": ""})
    assert answer["body"].encode("utf-8", "surrogateescape") == data
    assert answer["headers"]["x-next-offset"] == "256"


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b"{}", b'{"method": "GET"}', b"\xff", b"null"])
def test_a_line_that_is_no_request_is_answered_and_the_next_one_too(settings: Settings, line: bytes) -> None:
    bad, good = ask(settings, line, {"method": "GET", "path": "/healthz"})
    assert bad["status"] == 400
    assert json.loads(bad["body"])["error"]["code"] == "malformed"
    assert good["status"] == 200


def test_streams_and_shutdown_need_a_daemon(settings: Settings) -> None:
    answers = ask(
        settings,
        {"method": "GET", "path": "/events"},
        {"method": "GET", "path": "/jobs/1/log/stream"},
        {"method": "POST", "path": "/shutdown"},
    )
    assert [answer["status"] for answer in answers] == [409, 409, 409]
    assert "daemon" in answers[0]["body"]


def run(home: Path, requests: bytes) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "GPUQ_HOME": str(home), "GPUQ_GPUS": "sim:2"}
    return subprocess.run(
        [sys.executable, "-m", "gpuq.server", "direct"],
        input=requests,
        capture_output=True,
        env=environment,
        check=False,
        timeout=60,
    )


def test_the_process_serves_until_its_input_ends(home: Path) -> None:
    done = run(home, b'{"method": "GET", "path": "/whoami"}\n' * 2)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [json.loads(answer["body"])["user"] for answer in answers] == [ME, ME]
    assert done.stderr == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's home is closed to others without a word")
@pytest.mark.parametrize(("mode", "group"), [(0o757, 0), (0o1777, 0), (0o775, 1)])
def test_a_home_of_roots_in_which_others_may_write_is_refused_with_a_hint(home: Path, mode: int, group: int) -> None:
    os.chown(home, 0, group)
    home.chmod(mode)
    done = run(home, b'{"method": "GET", "path": "/whoami"}\n')
    assert done.returncode == 4
    assert f"hint: chmod go-w {home}" in done.stderr.decode()
    home.chmod(0o755)
    assert run(home, b'{"method": "GET", "path": "/whoami"}\n').returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's folder")
def test_a_home_of_another_user_is_refused_with_a_hint(home: Path) -> None:
    os.chown(home, 1, 1)
    done = run(home, b'{"method": "GET", "path": "/whoami"}\n')
    assert done.returncode == 4
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("gpuq: ")
    assert lines[1].startswith("hint: ")

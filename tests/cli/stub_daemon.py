"""A stand-in for the daemon on a Unix socket, and the command line run against it as a real process."""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


@dataclass
class Asked:
    """One request as the stand-in saw it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class StubDaemon:
    """Answers from `routes`; `drop` closes that many connections after the request was read, unanswered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Asked] = []
        self.routes: dict[tuple[str, str], Callable[[Asked], Answer]] = {}
        self.drop = 0
        self._server = _Server(str(path), _Handler)
        self._server.stub = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def on(self, method: str, path: str, answer: Answer | Callable[[Asked], Answer]) -> None:
        self.routes[method, path] = answer if callable(answer) else lambda asked: answer

    def seen(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    stub: StubDaemon


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, parts.path, query, headers, json.loads(raw) if raw else None)
        stub = self.server.stub
        # Whether an id is an array's: nothing here is one, unless a test says so.
        listed = ("GET", parts.path) in stub.routes or (parts.path == "/jobs/ids" and ("GET", "/jobs") in stub.routes)
        elements = bool({"array_id", "array_ids"} & query.keys()) and not listed
        # A daemon of the release before, unless a test says so: it is asked for `/jobs` then.
        unknown = parts.path == "/jobs/ids" and ("GET", parts.path) not in stub.routes
        if not elements and not unknown:
            stub.asked.append(asked)
        if stub.drop > 0 and not elements and not unknown:
            stub.drop -= 1
            self.close_connection = True
            return
        route = stub.routes.get((self.command, parts.path))
        if elements:
            answer = Answer(200, [])
        elif route is None:
            missing = {"error": {"code": "not_found", "message": f"no such path: {parts.path}", "hint": None}}
            answer = Answer(404, missing)
        else:
            answer = route(asked)
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_PATCH = _serve


def job(job_id: int, **changes: Any) -> dict[str, Any]:
    """A job's JSON, queued unless it says otherwise."""
    return {
        "id": job_id, "name": "train", "user": "alice", "group": None, "state": "queued", "reason": None,
        "outcome": None, "command": ["python", "train.py"], "cwd": "/home/alice", "priority": "normal", "gpus": 1,
        "gpu_mem_mb": None, "time_limit_s": None, "max_retries": 3, "retries_used": 0, "attempt": 0,
        "array_id": None, "array_index": None, "key": None, "after": [], "after_any": [], "preemptible": False,
        "submitted_at": "2026-11-22T10:00:00.123Z", "started_at": None, "finished_at": None, "stop_deadline": None,
        "position": None, "estimated_start": None, "estimated_end": None, "progress": None, "node": None,
        "gpu_indices": None, "gpu_uuids": None, "pid": None, "exit_code": None, "signal": None, "error": None,
        "log_path": None, **changes,
    }  # fmt: skip


def failure(code: str, message: str, hint: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "hint": hint, **more}}


@dataclass
class Ran:
    code: int
    out: str
    err: str


class Gpuq:
    """The command line in one home, as a user with a clean environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.work = home / "work"
        self.work.mkdir()
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(home), "GPUQ_HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC",
            "GPUQ_CONFIG": str(home / "config.toml"),
        }  # fmt: skip
        (home / "config.toml").write_text("")

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "gpuq.cli", *words], env=self.env, cwd=self.work, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, stdin=options.pop("stdin", subprocess.DEVNULL), **options,
        )  # fmt: skip

    def __call__(self, *words: str, stdin: str | None = None, **env: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "gpuq.cli", *words], env={**self.env, **env}, cwd=self.work, capture_output=True,
            input="" if stdin is None else stdin, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, because a Unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="gq", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def gpuq(home: Path) -> Gpuq:
    return Gpuq(home)


@pytest.fixture
def daemon(home: Path) -> Iterator[StubDaemon]:
    stub = StubDaemon(home / "gpuq.sock")
    yield stub
    stub.close()

"""Real daemons: `python -m gpuq.server up` with simulated GPUs and a private redis-server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.redis


@pytest.fixture
def home(redis_server_path: object) -> Iterator[Path]:
    # Short, because a Unix socket's path is.
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="gpuq-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "GPUQ_HOME": str(home),
        "GPUQ_GPUS": "sim:2",
        "GPUQ_KILL_GRACE": "2",
        "GPUQ_NODE": "testbox",
        **more,
    }


class Daemon:
    def __init__(self, home: Path, *arguments: str, **variables: str) -> None:
        self.home = home
        self.serves_all = arguments[0] == "up"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpuq.server", *arguments],
            env=environment(home, **variables),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []

    def until_up(self) -> Daemon:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("  home"):
                return self
        raise AssertionError("".join(self.said))

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=str(self.home / "gpuq.sock"))
        return httpx.Client(transport=transport, base_url="http://gpuq", timeout=20)

    def rest(self) -> str:
        assert self.process.stderr is not None
        if not self.process.stderr.closed:
            with self.process.stderr:
                self.said.extend(self.process.stderr)
        self.process.wait(20)
        return "".join(self.said)


@pytest.fixture
def daemon(home: Path) -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def start(*arguments: str, **variables: str) -> Daemon:
        started.append(Daemon(home, *(arguments or ("up",)), **variables))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None and each.serves_all:
            with each.client() as client, contextlib.suppress(httpx.TransportError):
                client.post("/shutdown", json={"stop_jobs": True})
        elif each.process.poll() is None:
            each.process.send_signal(signal.SIGTERM)
        each.rest()


def submit(client: httpx.Client, *command: str, **fields: Any) -> int:
    answer = client.post("/jobs", json={"command": list(command), "cwd": "/", **fields})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def until(client: httpx.Client, job_id: int, *states: str) -> dict[str, Any]:
    with client.stream("GET", f"/events?after_id=0&job_id={job_id}") as events:
        for line in events.iter_lines():
            if line.startswith("data: ") and json.loads(line[6:])["to_state"] in states:
                job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
                return job
    raise AssertionError(f"job {job_id} never came to {states}")


def test_a_job_runs_from_submission_to_its_true_end(daemon: Callable[..., Daemon]) -> None:
    up = daemon().until_up()
    assert any(line.startswith("gpuq is up: unix://") for line in up.said)
    with up.client() as client:
        assert client.get("/readyz").status_code == 200
        job = until(client, submit(client, "sh", "-c", "echo hello; exit 3", max_retries=0), "failed")
        assert (job["exit_code"], job["attempts"][0]["outcome"]) == (3, "exit_nonzero")
        assert client.get(f"/jobs/{job['id']}/log").text == "hello\n"
        assert client.get("/metrics").status_code == 200


def test_systemd_is_told_when_jobs_can_be_submitted_and_no_process_inherits_its_socket(
    daemon: Callable[..., Daemon], home: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(home / "notify"))
        manager.settimeout(60)
        up = daemon("up", NOTIFY_SOCKET=str(home / "notify"))
        assert manager.recv(100) == b"READY=1"
        with up.client() as client:
            job = until(client, submit(client, "sh", "-c", "tr '\\0' '\\n' < /proc/$PPID/environ; env"), "completed")
            seen = client.get(f"/jobs/{job['id']}/log").text
        assert "GPUQ_JOB_ID" in seen
        assert "NOTIFY_SOCKET" not in seen
        up.process.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        up.rest()


def test_a_second_daemon_on_one_home_is_refused(daemon: Callable[..., Daemon]) -> None:
    first = daemon().until_up()
    second = daemon()
    said = second.rest()
    assert second.process.returncode == 4
    assert f"pid {first.process.pid}" in said
    assert "Traceback" not in said
    with first.client() as client:
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quickly_with_open_streams_and_leaves_jobs_running(
    daemon: Callable[..., Daemon], home: Path, number: signal.Signals
) -> None:
    up = daemon().until_up()
    with up.client() as client:
        job = until(client, submit(client, "sleep", "3"), "running")
        with (
            client.stream("GET", "/events") as events,
            client.stream("GET", f"/jobs/{job['id']}/log/stream") as log,
        ):
            next(events.iter_lines())
            next(log.iter_lines())
            begun = time.monotonic()
            up.process.send_signal(number)
            assert up.process.wait(10) == 0
            assert time.monotonic() - begun < 3
    os.kill(job["pid"], 0)
    assert not (home / "gpuq.sock").exists()
    with daemon().until_up().client() as client:
        done = until(client, job["id"], "completed")
        assert (done["exit_code"], done["attempt"], done["pid"]) == (0, 1, job["pid"])


def test_a_question_that_takes_long_does_not_hold_up_the_end(daemon: Callable[..., Daemon]) -> None:
    up = daemon().until_up()
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    body = json.dumps({"query": endless}).encode()
    with socket.socket(socket.AF_UNIX) as asking, up.client() as client:
        asking.connect(str(up.home / "gpuq.sock"))
        asking.sendall(b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        # Answered after the question has been read, since one loop reads both.
        assert client.get("/healthz").status_code == 200
        begun = time.monotonic()
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(20) == 0
        assert time.monotonic() - begun < 5


def test_a_signal_while_it_starts_ends_it_without_a_word_and_without_children(
    daemon: Callable[..., Daemon], home: Path
) -> None:
    for delay in (0.3, 0.6, 0.9):
        starting = daemon()
        # No signal tells how far it has come; wherever it is, the end must be the same.
        time.sleep(delay)
        starting.process.send_signal(signal.SIGTERM)
        said = starting.rest()
        assert "Traceback" not in said
        assert starting.process.returncode in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
        assert not _processes_of(home)


def _processes_of(home: Path) -> list[str]:
    """Command lines that name the home: its redis-server would be one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if str(home) in line:
                found.append(line)
    return found


def test_shutdown_over_http_ends_it(daemon: Callable[..., Daemon]) -> None:
    up = daemon().until_up()
    with up.client() as client:
        assert client.post("/shutdown").status_code == 202
    assert up.process.wait(10) == 0


def test_shutdown_with_stop_jobs_ends_them_and_puts_them_back_in_line(daemon: Callable[..., Daemon]) -> None:
    up = daemon().until_up()
    with up.client() as client:
        job = until(client, submit(client, "sleep", "600"), "running")
        client.post("/shutdown", json={"stop_jobs": True})
    assert up.process.wait(15) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(job["pid"], 0)
    with daemon().until_up().client() as client:
        again = until(client, job["id"], "queued")
        assert again["attempts"][0]["outcome"] == "preempted"
        assert again["retries_used"] == 0
        client.delete(f"/jobs/{job['id']}?force=true")
        until(client, job["id"], "cancelled")


def test_a_daemon_killed_outright_is_replaced_by_the_next(daemon: Callable[..., Daemon], home: Path) -> None:
    up = daemon().until_up()
    with up.client() as client:
        job = until(client, submit(client, "sh", "-c", "sleep 2; exit 5", max_retries=0), "running")
    up.process.kill()
    up.process.wait()
    assert (home / "gpuq.sock").is_socket()
    with daemon().until_up().client() as client:
        done = until(client, job["id"], "failed")
        assert (done["exit_code"], done["attempt"]) == (5, 1)


def detached(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpuq.server", "up", "--detach", *arguments],
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_detached_it_returns_when_it_is_up(home: Path, redis_server_path: object) -> None:
    done = detached(home)
    try:
        assert done.returncode == 0, done.stderr
        assert "gpuq is up" in done.stderr
        transport = httpx.HTTPTransport(uds=str(home / "gpuq.sock"))
        with httpx.Client(transport=transport, base_url="http://gpuq") as client:
            assert client.get("/readyz").status_code == 200
            again = detached(home)
            assert again.returncode == 4
            assert again.stderr.startswith("gpuq: ")
            client.post("/shutdown")
    finally:
        pid = int((home / "daemon.lock").read_text())
        _until_gone(home, pid)
    assert (home / "daemon.log").stat().st_mode & 0o777 == 0o600


def _until_gone(home: Path, pid: int) -> None:
    """Until the daemon's lock is free; it is held for as long as the daemon lives."""
    import fcntl

    with (home / "daemon.lock").open() as lock:
        deadline = time.monotonic() + 10
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                assert time.monotonic() < deadline, f"daemon {pid} still runs"
                time.sleep(0.02)


@pytest.mark.parametrize(
    ("variables", "arguments", "code", "says"),
    [
        ({"GPUQ_DATABASE_URL": "sqlite:////proc/nope/gpuq.db"}, (), None, "gpuq: "),
        ({"GPUQ_ORDER": "sideways"}, (), 2, "order"),
        ({}, ("--listen", "nonsense"), 2, "HOST:PORT"),
    ],
)
def test_detached_it_tells_why_it_did_not_start(
    home: Path, variables: dict[str, str], arguments: tuple[str, ...], code: int | None, says: str
) -> None:
    done = detached(home, *arguments, **variables)
    assert done.returncode == code if code is not None else done.returncode in {1, 2, 4, 5}
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_told_and_leaves_nothing_behind(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = detached(home, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 4
    assert "cannot listen" in done.stderr
    assert not (home / "gpuq.sock").exists()


def test_the_parts_run_as_processes_of_their_own(
    daemon: Callable[..., Daemon], start_redis: Callable[..., Any]
) -> None:
    variables = {"GPUQ_REDIS_URL": start_redis("--maxmemory-policy", "noeviction").url}
    parts = [daemon(name, **variables) for name in ("maintain", "agent", "server")]
    for part in parts[:2]:
        assert part.process.stderr is not None
        assert any(line.startswith("gpuq ") for line in part.process.stderr)
    server = parts[2].until_up()
    with server.client() as client:
        job = until(client, submit(client, "true"), "completed")
        assert job["exit_code"] == 0
    second = daemon("agent", **variables)
    assert "already" in second.rest()
    assert second.process.returncode == 4

"""Real redis-servers for tests: each on a Unix socket in a folder of its own, ended through its own process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


class RedisServer:
    """Keeps nothing on disk unless told to; `options` are words of redis-server's command line."""

    def __init__(self, program: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gpuq-redis-", dir="/tmp"))
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None
        self._program = program

    def start(self, *options: str) -> None:
        words = [
            self._program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder),
            "--save", "", "--appendonly", "no", "--logfile", str(self.folder / "log"), *options,
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.005)
        raise AssertionError(f"redis-server did not start: {(self.folder / 'log').read_text()}")

    def _answers(self) -> bool:
        with self.session() as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                return False

    def client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket), decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=5
        )

    @contextlib.contextmanager
    def session(self) -> Iterator[redis.Redis]:
        client = self.client()
        try:
            yield client
        finally:
            client.close()
            client.connection_pool.disconnect()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server_path() -> str:
    """The redis-server program; without one the test is skipped, or fails where services are required."""
    found = shutil.which("redis-server")
    if found is None:
        if os.environ.get("GPUQ_REQUIRE_SERVICES") == "1":
            pytest.fail("no redis-server on PATH, and GPUQ_REQUIRE_SERVICES=1")
        pytest.skip("no redis-server on PATH")
    return found


@pytest.fixture(scope="session")
def shared_redis(redis_server_path: str) -> Iterator[RedisServer]:
    """One server for all tests that only need a Redis; see `redis_url`."""
    server = RedisServer(redis_server_path)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """The shared server, empty."""
    with shared_redis.session() as client:
        client.flushall()
    return shared_redis.url


@pytest.fixture
def start_redis(redis_server_path: str) -> Iterator[Callable[..., RedisServer]]:
    """Starts a server for this test alone, for a test that breaks it or needs options."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(redis_server_path)
        servers.append(server)
        server.start(*options)
        return server

    yield start
    for server in servers:
        server.close()

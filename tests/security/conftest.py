"""A daemon of root's among users who do not trust each other: throwaway accounts, and calls in their names."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from accounts import Account, Accounts, connect_as, in_thread_as, throwaway_accounts, unusable
from box import GPUQ, Box
from postgres import PostgresServer


@pytest.fixture(scope="session")
def accounts() -> Iterator[Accounts]:
    why_not = unusable()
    if why_not is not None:
        pytest.skip(why_not)
    with throwaway_accounts() as made:
        yield made


@dataclass
class Answer:
    """What the daemon said. `json` is None where the body is none."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class _Connected(http.client.HTTPConnection):
    def __init__(self, connection: socket.socket) -> None:
        super().__init__("localhost", timeout=60)
        self.sock = connection


class RootBox(Box):
    """A daemon of root's that everybody on the machine may talk to."""

    def __init__(self, home: Path, **settings: str) -> None:
        super().__init__(home, **settings)
        home.chmod(0o755)

    @property
    def socket_path(self) -> str:
        return str(self.home / "gpuq.sock")

    def listen(self) -> int:
        """Starts the daemon, which answers over TCP too; the port."""
        said = self.gpuq("up", "-d", "--listen", "127.0.0.1:0").stderr
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found is not None, said
        return int(found[1])

    def call(
        self,
        account: Account | None,
        method: str,
        path: str,
        body: Any = None,
        **headers: str,
    ) -> Answer:
        """One request over the Unix socket as `account`, or as root for None. A `body` of bytes is sent as it is."""
        if account is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(60)
            connection.connect(self.socket_path)
        else:
            connection = connect_as(account, self.socket_path)
        return _exchange(_Connected(connection), method, path, body, headers)

    def call_tcp(
        self, port: int, token: str | None, method: str, path: str, body: Any = None, **headers: str
    ) -> Answer:
        """One request over TCP on loopback with a bearer token, or without any for None."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return _exchange(http.client.HTTPConnection("127.0.0.1", port, timeout=60), method, path, body, headers)

    def submit_as(self, account: Account, script: str, **fields: Any) -> int:
        """Queues `sh -c script` without a GPU as `account`; its id."""
        spec = {"command": ["/bin/sh", "-c", script], "cwd": "/", "gpus": 0, "max_retries": 0, **fields}
        answer = self.call(account, "POST", "/jobs", spec)
        assert answer.status == 201, answer.body
        return int(answer.json["id"])

    def gpuq_as(self, account: Account, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """The command line as `account`; the test is skipped where that account cannot reach this Python."""
        if not in_thread_as(account, lambda: _readable(GPUQ)):
            pytest.skip(f"{account.name} cannot reach {GPUQ}")
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GPUQ_HOME": str(self.home)}
        env["GPUQ_SERVER"] = f"unix://{self.socket_path}"
        done = subprocess.run(
            [GPUQ, *words],
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **account.identity,
        )
        if code is not None:
            assert done.returncode == code, f"gpuq {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def _readable(path: str) -> bool:
    try:
        with open(path) as script:
            interpreter = script.readline().removeprefix("#!").strip()
        with open(Path(interpreter).resolve(), "rb"):
            return True
    except OSError:
        return False


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any, headers: dict[str, str]
) -> Answer:
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """None for SQLite, which lies in the home of the daemon; else the URL of an empty database."""
    if request.param == "sqlite":
        yield None
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.borrow()
    yield server.url(name)
    server.give_back(name)


@pytest.fixture
def make_root_box(accounts: Accounts) -> Iterator[Callable[..., RootBox]]:
    """Makes homes of root's with `accounts.admin` in GPUQ_ADMINS; `up()` starts their daemons."""
    yield from _root_boxes(accounts)


@pytest.fixture(scope="module")
def make_module_box(accounts: Accounts) -> Iterator[Callable[..., RootBox]]:
    """Like `make_root_box`, for a daemon that the tests of a module share."""
    yield from _root_boxes(accounts)


def _root_boxes(accounts: Accounts) -> Iterator[Callable[..., RootBox]]:
    boxes: list[RootBox] = []

    def make(**settings: str) -> RootBox:
        # Short, because a Unix socket's path is.
        made = RootBox(Path(tempfile.mkdtemp(prefix="gpuq-")), GPUQ_ADMINS=accounts.admin.name, **settings)
        boxes.append(made)
        return made

    yield make
    for made in boxes:
        made.down("--stop-jobs")
        made.remove()


@pytest.fixture
def root_box(database_url: str | None, make_root_box: Callable[..., RootBox]) -> RootBox:
    """A running daemon of root's; the test is run on SQLite and on PostgreSQL, which outlives it."""
    made = make_root_box(**({} if database_url is None else {"GPUQ_DATABASE_URL": database_url}))
    made.up()
    return made

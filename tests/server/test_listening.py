"""The application behind uvicorn's protocol, on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpuq.errors import Refused, UsageError
from gpuq.server import listen

ME = pwd.getpwuid(os.geteuid()).pw_name


def over(served: Any, **options: Any) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(served.socket)), base_url="http://gpuq", **options)


def test_the_caller_on_the_socket_is_this_process(served: Any) -> None:
    with over(served, headers={"Authorization": "Bearer whatever", "X-Forwarded-For": "1.2.3.4"}) as client:
        assert client.get("/whoami").json()["user"] == ME
        assert client.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["user"] == ME


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_the_caller_on_the_socket_is_the_other_user_that_connects(served: Any) -> None:
    # Another user's process from its first byte on the socket; started as root, because this Python may be out of
    # that user's reach.
    program = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "os.chdir(os.path.dirname(sys.argv[1]))\n"
        "os.setgroups([]); os.setgid(1); os.setuid(1)\n"
        "s.connect('./' + os.path.basename(sys.argv[1]))\n"
        "s.sendall(b'GET /whoami HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "data = b''\n"
        "while part := s.recv(65536): data += part\n"
        "print(data.partition(b'\\r\\n\\r\\n')[2].decode())\n"
    )
    served.socket.parent.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(served.socket)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"user": "daemon", "uid": 1, "admin": False}


def test_tcp_wants_a_token_on_loopback_too(served: Any, api: Any) -> None:
    token_id, secret = api.ctx.tokens.create(ME, "test", api.ctx.clock.now(), uid=os.geteuid())
    with httpx.Client(base_url=served.url) as client:
        asked = client.get("/whoami")
        assert asked.status_code == 401
        assert "GPUQ_TOKEN" in asked.json()["error"]["hint"]
        assert client.post("/jobs", json={"command": ["true"]}).status_code == 401
        good = {"Authorization": f"Bearer {secret}"}
        assert client.get("/whoami", headers=good).json()["user"] == ME
        assert client.get("/whoami", headers={"Authorization": f"Bearer {secret}x"}).status_code == 401
        api.ctx.tokens.revoke(token_id, api.ctx.clock.now())
        assert client.get("/whoami", headers=good).status_code == 401


def test_one_connection_carries_many_submissions(served: Any) -> None:
    with over(served) as client:
        ids = [client.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["id"] for _ in range(20)]
        assert ids == sorted(set(ids))


def test_submissions_from_many_threads_are_all_stored_once(served: Any) -> None:
    ids: list[int] = []

    def work() -> None:
        with over(served) as client:
            ids.extend(client.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["id"] for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 80


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /jobs HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_do_not_hurt(served: Any, request_bytes: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5)
        raw.connect(str(served.socket))
        raw.sendall(request_bytes)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(65536):
            pass
    with over(served) as client:
        assert client.get("/healthz").status_code == 200


def test_a_connection_that_breaks_in_the_middle_of_a_body_queues_nothing(served: Any) -> None:
    body = json.dumps({"command": ["true"], "cwd": "/"}).encode()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served.socket))
        raw.sendall(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + body)
    with over(served) as client:
        assert client.get("/jobs").json() == []


def test_the_socket_is_for_its_owner_alone_unless_it_is_roots(served: Any) -> None:
    assert served.socket.stat().st_mode & 0o777 == (0o666 if os.geteuid() == 0 else 0o600)


def test_a_socket_file_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen.unix_socket(path).close()
    assert path.is_socket()
    second = listen.unix_socket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second.close()


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="longer than 107 bytes"):
        listen.unix_socket(tmp_path / ("x" * 100) / "gpuq.sock")


@pytest.mark.parametrize("text", ["8000", "host:", ":x", "h:99999", "::1:80", "", "h:-1", "h:１"])
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        listen.parse_address(text)


def test_addresses_to_listen_on() -> None:
    assert listen.parse_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert listen.parse_address("[::1]:80") == ("::1", 80)
    assert listen.parse_address(":0") == ("", 0)


def test_a_port_that_is_taken_is_refused() -> None:
    [first] = listen.tcp_sockets("127.0.0.1:0")
    with first, pytest.raises(Refused, match="cannot listen"):
        listen.tcp_sockets(f"127.0.0.1:{first.getsockname()[1]}")


def test_serving_ends_at_once_with_idle_connections(served: Any) -> None:
    with socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_UNIX) as used:
        for connection in (idle, used):
            connection.settimeout(5)
            connection.connect(str(served.socket))
        used.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert used.recv(65536).startswith(b"HTTP/1.1 200")
        served.stop()
        assert used.recv(65536) == b""
        assert idle.recv(65536) == b""


def test_a_socket_file_is_made_again_only_in_the_home_that_it_was_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def watch() -> None:
        path = tmp_path / "gpuq.sock"
        file = await listen.SocketFile.open(listen.unix_socket(path), asyncio.Protocol)  # type: ignore[arg-type]
        keeping = asyncio.ensure_future(file.keep())
        try:
            path.unlink()
            await asyncio.sleep(0.05)
            assert not path.exists(), "a folder that a disk has left behind"
            (tmp_path / listen.HOME_MARK).touch()
            path.mkdir()
            while "cannot be made again" not in caplog.text:
                await asyncio.sleep(0.01)
            path.rmdir()
            while not path.is_socket():
                await asyncio.sleep(0.01)
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.close()
            made = path.stat().st_ino
            await asyncio.sleep(0.05)
            assert path.stat().st_ino == made
        finally:
            keeping.cancel()
            file.server.close()

    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(listen, "SOCKET_LOOK_S", 0.005)
        asyncio.run(asyncio.wait_for(watch(), 20))
    assert caplog.text.count("cannot be made again") == 1

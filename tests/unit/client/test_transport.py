"""The hand-written HTTP against raw bytes from a socket."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuq.client.calls import Calls
from gpuq.client.transport import ConnectionLost, UnixTransport
from gpuq.errors import DaemonUnreachable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Raw:
    """Plays `scripts`: a list of answers for each connection; closes the connection after its last."""

    def __init__(self, path: Path, scripts: list[list[bytes]]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._scripts = scripts
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answers in self._scripts:
            connection, _ = self._listener.accept()
            self.connections += 1
            with connection:
                for answer in answers:
                    request = connection.recv(1 << 20)
                    if not request:
                        break
                    self.requests.append(request)
                    # In small pieces, as a network may deliver them.
                    for start in range(0, len(answer), 7):
                        connection.sendall(answer[start : start + 7])

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gq", dir="/tmp"))
    yield folder / "s"
    shutil.rmtree(folder)


def test_connection_is_kept_for_the_next_request(path: Path) -> None:
    raw = Raw(path, [[OK, OK]])
    transport = UnixTransport(str(path))
    for _ in range(2):
        assert transport.request("GET", "/x", {"A": "b"}, b"").body == b"{}"
    transport.close()
    raw.close()
    assert raw.connections == 1
    assert raw.requests[0] == b"GET /x HTTP/1.1\r\nHost: gpuq\r\nContent-Length: 0\r\nA: b\r\n\r\n"


def test_chunked_answer_is_put_together(path: Path) -> None:
    raw = Raw(
        path, [[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\n wo\r\n0\r\n\r\n", OK]]
    )
    transport = UnixTransport(str(path))
    assert transport.request("GET", "/", {}, b"").body == b"hello wo"
    assert transport.request("GET", "/", {}, b"").body == b"{}"
    transport.close()
    raw.close()


def test_answer_without_a_length_ends_with_the_connection(path: Path) -> None:
    raw = Raw(path, [[b"HTTP/1.1 200 OK\r\nX-Name: v\r\n\r\nto the end"]])
    transport = UnixTransport(str(path))
    reply = transport.request("GET", "/", {}, b"")
    assert (reply.body, reply.headers["x-name"]) == (b"to the end", "v")
    transport.close()
    raw.close()


def test_answer_without_a_body_needs_no_length(path: Path) -> None:
    raw = Raw(path, [[b"HTTP/1.1 204 No Content\r\n\r\n", OK]])
    transport = UnixTransport(str(path))
    assert transport.request("DELETE", "/", {}, b"").status == 204
    assert transport.request("GET", "/", {}, b"").body == b"{}"
    transport.close()
    raw.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"garbage\r\n\r\n",
    ],
)
def test_answer_that_breaks_off_is_a_lost_connection(path: Path, answer: bytes) -> None:
    raw = Raw(path, [[answer]])
    transport = UnixTransport(str(path))
    with pytest.raises(ConnectionLost):
        transport.request("POST", "/", {}, b"{}")
    raw.close()


def test_nobody_there_is_not_a_lost_connection(path: Path) -> None:
    transport = UnixTransport(str(path))
    with pytest.raises(DaemonUnreachable):
        transport.request("GET", "/", {}, b"")
    assert transport.absent


@pytest.mark.parametrize(("others", "hint"), [(0, "gpuq up -d"), (1, "ask whoever looks after that daemon")])
def test_who_is_to_start_the_daemon_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, others: int, hint: str
) -> None:
    """The owner of the folder starts it; a daemon that somebody else started would be another one."""
    uid = path.parent.stat().st_uid + others
    monkeypatch.setattr("os.geteuid", lambda: uid)
    with pytest.raises(DaemonUnreachable) as caught:
        UnixTransport(str(path)).request("GET", "/", {}, b"")
    assert hint in str(caught.value.hint)


def test_daemon_that_does_not_answer_is_unreachable(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    transport = UnixTransport(str(path), timeout_s=0.05)
    with pytest.raises(DaemonUnreachable, match="did not answer"):
        transport.request("GET", "/", {}, b"")
    assert not transport.absent
    listener.close()


def test_idle_connection_that_was_closed_is_made_again_for_a_reader(path: Path) -> None:
    raw = Raw(path, [[OK], [OK]])
    with Calls(f"unix://{path}") as client:
        assert client.call("GET", "/a") == {}
        assert client.call("GET", "/b") == {}
    raw.close()
    assert raw.connections == 2


def test_what_must_not_happen_twice_goes_out_on_a_fresh_connection(path: Path) -> None:
    raw = Raw(path, [[OK, OK], [OK]])
    with Calls(f"unix://{path}") as client:
        client.call("GET", "/a")
        client.call("DELETE", "/b")
    raw.close()
    assert raw.connections == 2


def test_submission_survives_a_daemon_that_is_restarted(path: Path) -> None:
    raw = Raw(path, [[b""], [b""], [b'HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{"id": 7}']])
    with Calls(f"unix://{path}") as client:
        assert client.submit(["true"], env={}, cwd="/")["id"] == 7
    raw.close()
    keys = {line for request in raw.requests for line in request.split(b"\r\n") if b"Idempotency-Key" in line}
    assert (len(raw.requests), len(keys)) == (3, 1)


def test_threads_have_connections_of_their_own(path: Path) -> None:
    raw = Raw(path, [[OK], [OK]])
    with Calls(f"unix://{path}") as client:
        client.call("GET", "/a")
        thread = threading.Thread(target=lambda: (client.call("GET", "/b"), client.close()))
        thread.start()
        thread.join()
    raw.close()
    assert raw.connections == 2


def test_query_is_percent_encoded(path: Path) -> None:
    raw = Raw(path, [[OK]])
    with Calls(f"unix://{path}") as client:
        client.call("GET", "/jobs", query={"name": "a b&c=ü/%", "user": None, "ids": "7,9"})
    raw.close()
    assert raw.requests[0].startswith(b"GET /jobs?name=a%20b%26c%3D%C3%BC%2F%25&ids=7,9 HTTP/1.1\r\n")

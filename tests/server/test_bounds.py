"""What a connection may send and how long it may take, before anybody knows who it is."""

from __future__ import annotations

import http.client
import json
import logging
import resource
import select
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest

from gpuq import linux
from gpuq.server.http import connections, protocol
from gpuq.server.http.connections import Connections, source_of
from gpuq.server.http.peer import Peer

KIB = 1024


def connect(served: Any) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(served.socket))
    return connection


def answer_of(connection: socket.socket) -> tuple[int, Any]:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    with answer:
        body = answer.read()
    return answer.status, json.loads(body)


def assert_refused(connection: socket.socket, status: int, code: str) -> None:
    """In the shape of every error, and then nothing more."""
    got, body = answer_of(connection)
    assert (got, body["error"]["code"]) == (status, code)
    assert body["error"].keys() == {"code", "message", "hint"}
    assert connection.recv(1) == b""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks that are over at once; what is to be seen is that they run and what they do."""
    monkeypatch.setattr(protocol, "HEADER_S", 0.2)
    monkeypatch.setattr(protocol, "BODY_S", 0.2)
    monkeypatch.setattr(protocol, "LINGER_S", 0.1)


HEADERS = {
    "many": b"".join(b"X-%d: %s\r\n" % (number, b"a" * KIB) for number in range(65)),
    "one that is long": b"X: " + b"a" * (66 * KIB) + b"\r\n",
    "one that does not end": b"X: " + b"a" * (400 * KIB),
    "a name that does not end": b"a" * (400 * KIB),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_beyond_64_kib_is_a_431(served: Any, header: bytes) -> None:
    with connect(served) as connection:
        with suppress(BrokenPipeError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + header)
            connection.sendall(b"\r\n")
        assert_refused(connection, 431, "header_too_large")


def test_a_target_beyond_64_kib_is_a_431_too(served: Any) -> None:
    with connect(served) as connection:
        connection.sendall(b"GET /jobs?name=" + b"a" * (66 * KIB) + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert_refused(connection, 431, "header_too_large")


def test_a_header_of_60_kib_in_small_pieces_is_fine(served: Any) -> None:
    with connect(served) as connection:
        whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (60 * KIB) + b"\r\n\r\n"
        for start in range(0, len(whole), 7000):
            connection.sendall(whole[start : start + 7000])
        assert answer_of(connection)[0] == 200


@pytest.mark.parametrize("tail", [b"1;" + b"e" * (600 * KIB), b"0\r\nX: " + b"a" * (600 * KIB)])
def test_what_stands_between_and_behind_the_chunks_is_bounded_too(served: Any, tail: bytes) -> None:
    with connect(served) as connection:
        head = b"POST /jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head)
        with suppress(BrokenPipeError):
            connection.sendall(tail)
        got, body = answer_of(connection)
        assert (got, body["error"]["code"]) in {(431, "header_too_large"), (400, "malformed")}
        assert connection.recv(1) == b""


def test_a_field_behind_the_body_is_no_header(served: Any) -> None:
    with connect(served) as connection:
        body = b'{"command": ["true"], "cwd": "/", "gpus": 0}'
        connection.sendall(
            b"POST /jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\nIdempotency-Key: \x80\r\n\r\n" % (len(body), body)
        )
        assert answer_of(connection)[0] == 201


def test_what_is_not_http_is_told_in_the_shape_of_every_error(served: Any) -> None:
    with connect(served) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert_refused(connection, 400, "malformed")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("begin", [b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-a: "])
def test_a_header_that_does_not_come_to_its_end_is_a_408(served: Any, begin: bytes) -> None:
    with connect(served) as connection:
        connection.sendall(begin)
        assert_refused(connection, 408, "timeout")


@pytest.mark.usefixtures("hasty")
def test_the_second_header_of_a_connection_has_a_limit_too(served: Any) -> None:
    with connect(served) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(connection)[0] == 200
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-a: ")
        assert_refused(connection, 408, "timeout")


@pytest.mark.usefixtures("hasty")
def test_a_connection_on_which_nothing_comes_is_closed(served: Any) -> None:
    with connect(served) as connection:
        assert connection.recv(1) == b""


@pytest.mark.usefixtures("hasty")
def test_a_body_that_does_not_come_is_a_408_and_queues_nothing(served: Any, api: Any) -> None:
    with connect(served) as connection:
        connection.sendall(b'POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"command": ["true"]')
        assert_refused(connection, 408, "timeout")
    assert api.root.get("/jobs").json() == []


@pytest.mark.usefixtures("hasty")
def test_a_body_that_nobody_asked_for_does_not_hold_a_connection(served: Any) -> None:
    with connect(served) as connection:
        connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1000\r\n\r\n{")
        assert answer_of(connection)[0] == 421
        assert connection.recv(1) == b""


def test_a_body_may_take_as_long_as_its_size_allows(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_S", 0.01)
    monkeypatch.setattr(protocol, "BODY_RATE", 1)
    with connect(served) as connection:
        body = b'{"command": ["true"], "cwd": "/", "gpus": 0}'
        connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:-1])
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(served.socket)), base_url="http://gpuq") as client:
            assert client.get("/healthz").status_code == 200
        connection.sendall(body[-1:])
        assert answer_of(connection)[0] == 201


def test_requests_of_a_pipeline_that_is_cut_off_leave_no_traceback(
    served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with connect(served) as connection:
                connection.sendall(b"GET /queue HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
                connection.recv(1)
        served.stop()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_the_answers_of_a_pipeline_come_in_its_order(served: Any) -> None:
    with connect(served) as connection:
        connection.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(50)))
        file = connection.makefile("rb")
        for number in range(50):
            while (line := file.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert f"no such path: /{number}" == json.loads(file.read(length))["error"]["message"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many connections one user may have, where there are few descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr("gpuq.server.listen.resource.getrlimit", lambda _: (256, before[1]))
    return Connections(256).of_one


def test_one_user_has_a_share_of_the_connections_and_gets_it_back(few: int, served: Any) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connect(served)) for _ in range(few)]
        for connection in held:
            connection.sendall(b"GET /jobs HTTP/1.1\r\nX-a: ")
        with connect(served) as one_more:
            assert_refused(one_more, 503, "unavailable")
        # Over TCP it is another source.
        assert httpx.get(f"{served.url}/healthz").status_code == 401
        held[0].sendall(b"a\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer_of(held[0])[0] == 200
        assert held[0].recv(1) == b""
        with connect(served) as again:
            again.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_of(again)[0] == 200


def test_many_sources_together_leave_descriptors_and_tcp_leaves_some_to_the_socket() -> None:
    counted = Connections(1024, owners=frozenset({0}))
    over_tcp = [f"10.0.0.{number % 100}" for number in range(2000)]
    assert sum(map(counted.admit, over_tcp)) == counted.most // 2
    users = [1000 + number % 50 for number in range(2000)]
    assert sum(map(counted.admit, users)) == counted.most - counted.most // 2
    assert counted.most < 1024 // 2
    assert not counted.admit(7)
    # Root can always look what is going on.
    assert sum(counted.admit(0) for _ in range(1000)) == 64
    counted.leave("10.0.0.1")
    assert not counted.admit(7), "root's are counted too"


def test_a_source_is_a_user_or_an_address_or_a_network_of_version_6() -> None:
    assert source_of(Peer(1, 1000, 1000), None) == 1000
    assert source_of(None, ("10.0.0.7", 5)) == "10.0.0.7"
    assert source_of(None, ("2001:db8::1", 5)) == source_of(None, ("2001:db8::ffff:1", 6)) == "2001:db8::/64"
    assert source_of(None, ("::ffff:10.0.0.7", 5)) == "10.0.0.7"
    assert source_of(None, ("fe80::1%eth0", 5)) == "fe80::/64"


def test_the_daemon_has_what_descriptors_there_are_and_remembers_what_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linux, "_descriptor_limit_before", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    given = min(soft, hard - 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    try:
        assert linux.descriptor_limit_before() is None
        assert linux.raise_descriptor_limit() == given
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert linux.raise_descriptor_limit() == given, "the first one counts"
        assert linux.descriptor_limit_before() == given
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def large(served: Any) -> bytes:
    """A request whose answer, of several MiB, fits into no buffer of a socket."""
    spec = {"command": ["true", "a" * 2_000_000], "cwd": "/", "gpus": 0, "hold": True}
    for _ in range(4):
        _post(served, spec)
    return b"GET /jobs HTTP/1.1\r\nHost: x\r\n\r\n"


def _post(served: Any, spec: Any) -> None:
    body = json.dumps(spec).encode()
    with connect(served) as connection:
        connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert answer_of(connection)[0] == 201


def bytes_left(connection: socket.socket) -> int:
    """How many come until the end, however that is."""
    size = 0
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            size += len(piece)
    return size


def test_an_answer_that_nobody_reads_is_dropped(served: Any, large: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READ_S", 0.2)
    with connect(served) as connection:
        connection.sendall(large)
        poll = select.poll()
        poll.register(connection, 0)
        assert poll.poll(20_000), "the daemon goes on holding it"
        assert bytes_left(connection) < 8_000_000


def test_whoever_reads_slowly_but_reads_gets_it_all(served: Any, large: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READ_S", 0.2)
    monkeypatch.setattr(protocol, "READ_BYTES", 1)
    with connect(served) as connection:
        connection.sendall(large)
        size = 0
        for _ in range(10):
            size += len(connection.recv(1 << 19, socket.MSG_WAITALL))
            time.sleep(0.1)
        monkeypatch.setattr(protocol, "READ_S", 20.0)
        connection.settimeout(1)
        with suppress(TimeoutError):
            while piece := connection.recv(1 << 20):
                size += len(piece)
        assert size > 8_000_000


def test_answers_that_one_user_does_not_read_are_bounded_together(
    served: Any, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "UNREAD", 10_000_000)
    with connect(served) as first, connect(served) as second:
        first.sendall(large)
        assert first.recv(1, socket.MSG_PEEK)
        second.sendall(large)
        assert bytes_left(second) < 8_000_000
        first.settimeout(1)
        size = 0
        with suppress(TimeoutError):
            while piece := first.recv(1 << 20):
                size += len(piece)
        assert size > 8_000_000
    # What is gone waits for nobody.
    with connect(served) as third:
        third.sendall(large)
        assert answer_of(third)[0] == 200

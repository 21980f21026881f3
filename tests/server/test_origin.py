"""What a web page can make its visitor's browser ask of the daemon, on the Unix socket and over TCP."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import socket
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from gpuq.domain.caller import Scope
from gpuq.server.http.origin import Hosts
from gpuq.settings import Settings

ME = pwd.getpwuid(os.geteuid()).pw_name
JOB = json.dumps({"command": ["true"], "cwd": "/", "gpus": 0}).encode()
# A page's Origin, as far as it depends on the Host that the browser sends.
ORIGINS = {
    "absent": None,
    "same": "http://{host}",
    "other port": "http://localhost:1",
    "other scheme's port": "https://localhost",
    "other": "https://evil.example",
    "begins alike": "http://{host}.evil.example",
    "null": "null",
}
FETCH_SITES = (None, "same-origin", "same-site", "cross-site", "none")
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


@pytest.fixture
def settings(home: Any) -> Settings:
    return Settings(home=home, gpus="sim:4", node="testbox", web_hosts="gpus.example.org, 203.0.113.7")


class Caller:
    """One kept-alive connection; requests with exactly the headers that are given."""

    def __init__(self, connection: socket.socket, host: str, token: str | None) -> None:
        self._connection = connection
        self.host = host
        self._token = token

    def ask(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        if self._token is not None:
            lines.append(f"Authorization: Bearer {self._token}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self._connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = http.client.HTTPResponse(self._connection, method=method)
        answer.begin()
        with answer:
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def status(self, method: str, path: str, **headers: str | None) -> int:
        """With the caller's own Host unless one is given."""
        sent = {"host": self.host, **headers}
        return self.ask(method, path, [(n.replace("_", "-"), v) for n, v in sent.items() if v is not None])[0]


@pytest.fixture(params=["socket", "tcp"])
def caller(request: pytest.FixtureRequest, served: Any, api: Any) -> Iterator[Caller]:
    if request.param == "socket":
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(served.socket))
            yield Caller(connection, "localhost:8888", None)
        return
    _, secret = api.ctx.tokens.create(ME, "test", api.ctx.clock.now(), uid=os.geteuid(), scope=Scope.ADMIN)
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        yield Caller(connection, f"127.0.0.1:{port}", secret)


def allowed(method: str, origin: str, fetch_site: str | None) -> bool:
    """The order of Go's net/http CrossOriginProtection, and no opaque origin."""
    if method in {"GET", "HEAD", "OPTIONS"}:
        return True
    if origin == "null":
        return False
    if fetch_site is not None:
        return fetch_site in {"same-origin", "none"}
    return origin in {"absent", "same"}


def test_only_a_page_of_ours_may_change_something(caller: Caller) -> None:
    for method, origin, site in product(METHODS, ORIGINS, FETCH_SITES):
        sent = ORIGINS[origin]
        headers = [("Host", caller.host), ("Content-Type", "application/json")]
        headers += [] if sent is None else [("Origin", sent.format(host=caller.host))]
        headers += [] if site is None else [("Sec-Fetch-Site", site)]
        status, answered, body = caller.ask(method, "/jobs/999", headers)
        case = (method, origin, site, status)
        assert not [name for name in answered if name.startswith("access-control-")], case
        if allowed(method, origin, site):
            assert status == (404 if method in {"GET", "DELETE"} else 422 if method == "PATCH" else 405), case
        else:
            assert status == 403, case
            assert json.loads(body)["error"]["code"] == "cross_origin"


def test_a_form_of_another_page_queues_nothing(caller: Caller, api: Any) -> None:
    for kind, (origin, site) in product(
        ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json", None),
        (
            ("https://evil.example", "cross-site"),
            ("null", "cross-site"),
            ("https://evil.example", None),
            (None, "same-site"),
        ),
    ):
        for path in ("/jobs", "/tokens", "/queue/pause"):
            headers = [("Host", caller.host)]
            for name, value in (("Content-Type", kind), ("Origin", origin), ("Sec-Fetch-Site", site)):
                headers += [] if value is None else [(name, value)]
            assert caller.ask("POST", path, headers, JOB)[0] == 403, (kind, origin, site)
    assert api.root.get("/jobs").json() == []
    assert {row["name"] for row in api.root.get("/tokens").json()} <= {"test"}
    assert api.root.get("/queue").json()["paused"] is None


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "text/json, application/json", None]
)
def test_what_a_browser_sends_is_json_only_when_it_says_so(caller: Caller, kind: str | None) -> None:
    named = [("Host", caller.host), *([] if kind is None else [("Content-Type", kind)])]
    for browser in ([("Origin", f"http://{caller.host}")], [("Sec-Fetch-Site", "same-origin")]):
        for path in ("/jobs", "/jobs/check"):
            status, _, body = caller.ask("POST", path, [*named, *browser], JOB)
            assert (status, json.loads(body)["error"]["code"]) == (415, "unsupported_media_type")
        right = [("Host", caller.host), ("Content-Type", "Application/JSON; charset=utf-8"), *browser]
        assert caller.ask("POST", "/jobs", right, JOB)[0] == 201
        # There is nothing that could be taken for something else.
        assert caller.ask("POST", "/queue/resume", [*named, *browser])[0] == 200
    # A program like `curl -d` is believed.
    assert caller.ask("POST", "/jobs", named, JOB)[0] == 201


def test_a_page_whose_name_came_to_mean_this_machine_reads_nothing(caller: Caller) -> None:
    for host in ("evil.example", "evil.example:8888", "localhost.evil.example", "127.0.0.1.evil.example", "10.1.2.3",
                 "0.0.0.0", "[::2]", "localhost:8888@evil.example", "evil.example/localhost", "2130706433.example",
                 "127.0.0.1:x", "testbox.evil.example"):  # fmt: skip
        for method, path in (("GET", "/queue"), ("GET", "/healthz"), ("POST", "/jobs"), ("OPTIONS", "/jobs")):
            status, _, body = caller.ask(method, path, [("Host", host)], JOB if method == "POST" else b"")
            assert (status, json.loads(body)["error"]["code"]) == (421, "misdirected"), host
    # Before anybody asks who it is.
    status, _, body = caller.ask("GET", "/queue", [("Host", "evil.example"), ("Authorization", "Bearer no")])
    assert status == 421
    assert "GPUQ_WEB_HOSTS" in json.loads(body)["error"]["hint"]


def test_the_servers_own_names_are_known_with_any_port(caller: Caller) -> None:
    for host in ("localhost", "LOCALHOST", "localhost.", "127.0.0.1", "[::1]", "[0:0::1]", "testbox", "TestBox",
                 socket.gethostname(), "gpus.example.org", "203.0.113.7"):  # fmt: skip
        for port in ("", ":80", ":8888"):
            assert caller.status("GET", "/whoami", host=host + port) == 200, host


def test_a_request_names_one_host(caller: Caller) -> None:
    own = ("Host", caller.host)
    for headers in ([], [own, own], [own, ("Host", "evil.example")], [("Host", "evil.example"), own]):
        status, _, body = caller.ask("GET", "/whoami", headers)
        assert (status, json.loads(body)["error"]["code"]) == (400, "malformed"), headers
    # A target with a host in it, as for a proxy, is meant for that one.
    assert caller.ask("GET", f"http://{caller.host}/whoami", [own])[0] == 200
    assert caller.ask("GET", "http://evil.example/whoami", [own])[0] == 400
    assert caller.ask("GET", "http://evil.example/whoami", [("Host", "evil.example")])[0] == 421


def test_several_origins_are_none_of_ours(caller: Caller) -> None:
    own, origin = ("Host", caller.host), ("Origin", f"http://{caller.host}")
    site = ("Sec-Fetch-Site", "same-origin")
    assert caller.ask("POST", "/queue/resume", [own, origin])[0] == 200
    assert caller.ask("POST", "/queue/resume", [own, origin, ("Origin", "https://evil.example")])[0] == 403
    assert caller.ask("POST", "/queue/resume", [own, site, site])[0] == 403


@pytest.mark.parametrize("host", ["gpuq", "x", "", "unix"])
def test_on_the_unix_socket_a_program_may_call_the_daemon_by_any_one_word(served: Any, host: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(served.socket))
        program = Caller(connection, host, None)
        assert program.status("GET", "/whoami") == 200
        assert program.status("POST", "/queue/resume") == 200
        # Who sends a browser's headers came through a forwarded port, whose name it knows.
        assert program.status("GET", "/whoami", Sec_Fetch_Site="none") == 421
        assert program.status("POST", "/queue/resume", Origin=f"http://{host}") == 421


def test_over_tcp_one_word_is_as_good_as_any_name(served: Any, api: Any) -> None:
    _, secret = api.ctx.tokens.create(ME, "test", api.ctx.clock.now(), uid=os.geteuid(), scope=Scope.ADMIN)
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        caller = Caller(connection, "x", secret)
        assert [caller.status("GET", "/whoami", host=host) for host in ("x", "gpuq", "")] == [421, 421, 421]


def test_the_oldest_http_needs_no_host(served: Any) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(served.socket))
        connection.sendall(b"GET /whoami HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200")


def test_the_address_that_was_connected_to_is_a_name_of_the_server() -> None:
    hosts = Hosts(["testbox", "2001:DB8::7"])
    assert hosts.include(b"10.0.0.7:8470", "10.0.0.7", on_socket=False, browser=True)
    assert not hosts.include(b"10.0.0.8:8470", "10.0.0.7", on_socket=False, browser=True)
    assert hosts.include(b"[2001:db8:0::7]", None, on_socket=False, browser=False)
    assert not hosts.include(b"", "10.0.0.7", on_socket=False, browser=False)

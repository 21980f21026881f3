"""Tokens over TCP on a daemon of root's: who may make which, what each is good for, and when it ends."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from accounts import Account, Accounts

SPEC = {"command": ["id", "-u"], "gpus": 0, "cwd": "/"}
WRITES = (
    ("POST", "/jobs", SPEC),
    ("POST", "/jobs/check", SPEC),
    ("DELETE", "/jobs/1", None),
    ("PATCH", "/jobs/1", {"name": "x"}),
    ("POST", "/jobs/1/hold", None),
    ("POST", "/jobs/top", {"ids": [1]}),
    ("POST", "/jobs/cancel", {"ids": [1]}),
    ("POST", "/jobs/update", {"ids": [1], "changes": {"name": "x"}}),
    ("POST", "/sql", {"query": "select 1"}),
    ("POST", "/queue/pause", None),
    ("DELETE", "/tokens/1", None),
    ("POST", "/shutdown", None),
)


@pytest.fixture(scope="module")
def box(make_module_box: Any) -> Any:
    made = make_module_box()
    made.port = made.listen()
    return made


def token(box: Any, by: Account | None, **wanted: Any) -> str:
    made = box.call(by, "POST", "/tokens", {"name": "t", **wanted})
    assert made.status == 201, made.body
    secret: str = made.json["token"]
    return secret


def test_only_root_makes_tokens_for_root_and_for_others(box: Any, accounts: Accounts) -> None:
    for by in (accounts.admin, accounts.alice):
        for user in ("root", accounts.bob.name, "no-such-user"):
            refused = box.call(by, "POST", "/tokens", {"name": "t", "user": user})
            assert refused.status == 403, (by, user)
            assert "only root" in refused.json["error"]["message"]
        assert box.call(by, "POST", "/tokens", {"name": "t", "expires_in_s": "never"}).status == 403
    for user, uid in (("root", 0), (accounts.bob.name, accounts.bob.uid)):
        who = box.call_tcp(box.port, token(box, None, user=user, expires_in_s="never"), "GET", "/whoami").json
        assert (who["user"], who["uid"]) == (user, uid)


def test_no_token_makes_a_token(box: Any, accounts: Accounts) -> None:
    before = len(box.call(None, "GET", "/tokens").json)
    for secret in (token(box, None, scope="admin"), token(box, accounts.admin, scope="admin")):
        refused = box.call_tcp(box.port, secret, "POST", "/tokens", {"name": "t"})
        assert (refused.status, refused.json["error"]["message"]) == (403, "a token cannot make tokens")
    assert len(box.call(None, "GET", "/tokens").json) == before + 2


def test_a_token_to_read_changes_nothing(box: Any, accounts: Accounts) -> None:
    for by in (None, accounts.admin, accounts.alice):
        secret = token(box, by, scope="read")
        for path in ("/jobs", "/queue", "/whoami", "/tokens", "/openapi.json"):
            assert box.call_tcp(box.port, secret, "GET", path).status == 200, path
        for method, path, body in WRITES:
            refused = box.call_tcp(box.port, secret, method, path, body)
            assert refused.status == 403, path
            assert "has the scope `read`" in refused.json["error"]["message"]
            assert "`submit`" in refused.json["error"]["message"]


def test_a_token_to_submit_leaves_an_administrator_no_rights_of_one(box: Any, accounts: Accounts) -> None:
    alices = box.submit_as(accounts.alice, "sleep 600", hold=True)
    for by in (None, accounts.admin):
        plain, full = token(box, by), token(box, by, scope="admin")
        assert box.call_tcp(box.port, plain, "GET", "/whoami").json["admin"] is False
        for method, path, body in (
            ("POST", "/queue/pause", None),
            ("POST", f"/jobs/{alices}/release", None),
            ("PATCH", f"/jobs/{alices}", {"name": "mine"}),
            ("POST", "/gpus/0/drain", None),
            ("POST", "/jobs", {**SPEC, "priority": "critical"}),
        ):
            refused = box.call_tcp(box.port, plain, method, path, body)
            assert refused.status == 403, path
            assert "`admin`" in refused.json["error"]["message"] + refused.json["error"]["hint"], path
        assert box.call_tcp(box.port, full, "PATCH", f"/jobs/{alices}", {"name": "x"}).status == 200
    # The scope makes nobody an administrator.
    bobs = token(box, accounts.bob, scope="admin")
    assert box.call_tcp(box.port, bobs, "GET", "/whoami").json["admin"] is False
    assert box.call_tcp(box.port, bobs, "POST", "/queue/pause").status == 403
    job = box.call_tcp(box.port, bobs, "POST", "/jobs", SPEC).json["id"]
    box.until_state(job, "completed")
    assert box.call(accounts.bob, "GET", f"/jobs/{job}/log").body.split() == [str(accounts.bob.uid).encode()]


def test_a_token_ends_when_it_was_said_that_it_would(box: Any, accounts: Accounts) -> None:
    secret = token(box, accounts.alice, expires_in_s=0.2)
    box.until(lambda: box.call_tcp(box.port, secret, "GET", "/whoami").status == 401, "the token expires")
    for method, path, body in (("GET", "/jobs", None), *WRITES):
        refused = box.call_tcp(box.port, secret, method, path, body)
        assert refused.status == 401, path
        assert "expired at" in refused.json["error"]["message"]
        assert "gpuq token create" in refused.json["error"]["hint"]
    for wrong in (0, -1, 1e99, "soon", True, None):
        assert box.call(accounts.alice, "POST", "/tokens", {"name": "t", "expires_in_s": wrong}).status == 422, wrong
    assert box.call(accounts.alice, "POST", "/tokens", {"name": "t", "scope": "root"}).status == 422


def test_a_token_of_an_earlier_release_that_is_bound_to_nobody_opens_nothing(box: Any, accounts: Accounts) -> None:
    secrets = [token(box, None, scope="admin"), token(box, accounts.alice)]
    with closing(sqlite3.connect(box.home / "gpuq.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE tokens SET uid = NULL, scope = NULL")
    for secret in secrets:
        refused = box.call_tcp(box.port, secret, "POST", "/jobs", SPEC)
        assert refused.status == 403
        assert "bound to no uid" in refused.json["error"]["message"]


def test_the_command_line_makes_and_lists_them(box: Any, accounts: Accounts) -> None:
    made = box.gpuq_as(accounts.alice, "token", "create", "dash", "--scope", "read", "--expires", "90d")
    assert "scope read, until 20" in made.stderr
    [listed] = [line for line in box.gpuq_as(accounts.alice, "token", "list").stdout.splitlines() if "dash" in line]
    assert accounts.alice.name in listed
    assert " read " in listed
    for words in (("--expires", "never"), ("--user", "root")):
        assert "only root" in box.gpuq_as(accounts.alice, "token", "create", *words, code=4).stderr


def test_the_command_line_refuses_what_is_no_scope_and_no_time(box: Any) -> None:
    for words in (("--expires", "soon"), ("--expires", "0"), ("--expires", "11000d"), ("--scope", "all")):
        box.gpuq("token", "create", *words, code=2)
    assert "for ever" in box.gpuq("token", "create", "x", "--expires", "never").stderr
    assert "scope read, until 20" in box.gpuq("token", "create", "y", "--scope", "read", "--expires", "90d").stderr
    [listed] = [line for line in box.gpuq("token", "list").stdout.splitlines() if line.split()[1] == "y"]
    assert " read " in listed

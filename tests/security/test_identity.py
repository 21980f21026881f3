"""Nothing runs and nobody reads without an account, on a daemon of root's, whoever tries it and by whatever way."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from accounts import Account, Accounts, spare_account

# As a user namespace lends them: a uid that no account has.
NOBODYS = Account("x", 165540, 165540)


@pytest.fixture
def spare() -> Iterator[Account]:
    with spare_account() as made:
        yield made


def reason(box: Any, job: int) -> Any:
    return box.call(None, "GET", f"/jobs/{job}").json["reason"]


def change(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def test_a_uid_without_an_account_is_told_that_the_process_lives_and_nothing_else(
    root_box: Any, accounts: Accounts
) -> None:
    job = root_box.submit_as(accounts.alice, "true")
    paths = (
        "/whoami",
        "/jobs",
        f"/jobs/{job}",
        f"/jobs/{job}/log",
        "/queue",
        "/history",
        "/gpus",
        "/stats",
        "/metrics",
    )
    for path in (*paths, "/readyz", "/tokens", "/dlq", "/events", "/openapi.json", "/groups", "/report/usage"):
        answer = root_box.call(NOBODYS, "GET", path)
        assert answer.status == 403, path
        assert "has no account on this machine" in answer.json["error"]["message"], path
    spec = {"command": ["id"], "gpus": 0, "cwd": "/"}
    for path, body in (("/jobs", spec), ("/jobs", [spec]), ("/jobs/check", spec), ("/tokens", {"name": "t"}),
                       ("/sql", {"query": "select 1"}), (f"/jobs/{job}/hold", None)):  # fmt: skip
        assert root_box.call(NOBODYS, "POST", path, body).status == 403, path
    assert root_box.call(NOBODYS, "POST", "/healthz").status in {403, 405}
    assert root_box.call(NOBODYS, "GET", "/healthz").status == 200
    assert len(root_box.call(None, "GET", "/jobs").json) == 1


def test_jobs_of_an_account_that_goes_or_changes_wait_and_start_when_it_is_back(
    make_root_box: Any, accounts: Accounts, spare: Account
) -> None:
    box = make_root_box()
    port = box.listen()
    secret = box.call(spare, "POST", "/tokens", {"name": "t"}).json["token"]
    for_root = box.call(None, "POST", "/tokens", {"name": "t", "user": spare.name}).json["token"]
    done = box.submit_as(spare, "id -u")
    box.until_state(done, "completed")
    held = box.submit_as(spare, "id -u; id -g", hold=True)
    other = spare.uid + 1000
    change("usermod", "-u", str(other), spare.name)

    # Whoever has the name now is not who made the token or the job.
    box.until(lambda: box.call_tcp(port, secret, "GET", "/whoami").status == 403, "the daemon sees it")
    for token in (secret, for_root):
        refused = box.call_tcp(port, token, "POST", "/jobs", {"command": ["id"], "gpus": 0})
        assert refused.status == 403
        assert f"has uid {other} now, and had {spare.uid}" in refused.json["error"]["message"]
    assert box.call(None, "POST", f"/jobs/{held}/release").status == 200
    box.until(lambda: (reason(box, held) or {}).get("code") == "NoAccount", "the daemon sees it")
    assert f"has uid {other} now" in reason(box, held)["text"]
    changed = Account(spare.name, other, spare.gid)
    box.until(lambda: box.call(changed, "GET", "/whoami").status == 200, "the daemon sees it")
    assert box.call(changed, "GET", f"/jobs/{done}/log").status == 403
    assert box.call(changed, "DELETE", f"/jobs/{held}").status == 403
    # The old uid is nobody's, so it may not look either; a new job of the same name passes the one that waits.
    box.until(lambda: box.call(spare, "GET", "/jobs").status == 403, "the daemon sees it")
    new = box.submit_as(changed, "id -u")
    box.until_state(new, "completed")
    assert box.gpuq("logs", str(new)).stdout.split() == [str(other)]
    assert box.gpuq("why", str(held), "--json").returncode == 0
    assert json.loads(box.gpuq("show", str(held), "--json").stdout)["state"] == "queued"

    change("usermod", "-u", str(spare.uid), spare.name)
    change("usermod", "-g", "daemon", spare.name)
    box.until_state(held, "completed")
    uid, gid = box.gpuq("logs", str(held)).stdout.split()
    # The primary group of now, not that of the submission.
    assert (int(uid), gid != str(spare.gid)) == (spare.uid, True)
    box.until(lambda: box.call_tcp(port, secret, "GET", "/whoami").status == 200, "the daemon sees it")


def test_who_has_gone_is_refused_and_waits(make_root_box: Any, accounts: Accounts, spare: Account) -> None:
    box = make_root_box()
    port = box.listen()
    secret = box.call(spare, "POST", "/tokens", {"name": "t"}).json["token"]
    held = box.submit_as(spare, "id -u", hold=True)
    change("userdel", spare.name)
    box.until(lambda: box.call_tcp(port, secret, "GET", "/whoami").status == 403, "the daemon sees it")
    refused = box.call_tcp(port, secret, "POST", "/jobs", {"command": ["id"], "gpus": 0})
    assert refused.status == 403
    assert f"{spare.name} has no account on this machine" in refused.json["error"]["message"]
    assert box.call(None, "POST", "/tokens", {"name": "t", "user": spare.name}).status == 403
    assert box.call(None, "POST", f"/jobs/{held}/release").status == 200
    box.until(
        lambda: (box.call(None, "GET", f"/jobs/{held}/why").json["reason"] or {}).get("code") == "NoAccount",
        "the daemon sees it",
    )
    later = box.submit_as(accounts.alice, "true")
    box.until_state(later, "completed")
    assert box.call(None, "GET", f"/jobs/{held}").json["attempts"] == []

"""Secrets of jobs are in no file, table, answer or process but the job's own, from the submission to the end."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
import redis
from accounts import Account, Accounts, in_thread_as

CANARY = "canary-5f1c0d-of-alice"
DIGEST = hashlib.sha256(CANARY.encode()).hexdigest()
SECRETS = {"HF_TOKEN": CANARY, "WANDB_API_KEY": f"{CANARY}-too"}
# Its output proves that it has the secret, and does not tell it.
SCRIPT = 'printf %s "$HF_TOKEN" | sha256sum; echo up > "$0"; read go < "$0"; exit 3'


@pytest.fixture(scope="module")
def box(make_module_box: Any) -> Any:
    made = make_module_box()
    made.port = made.listen()
    return made


def answers(box: Any, account: Account | None, job_id: int) -> bytes:
    """All that the API says of it."""
    found = [
        box.call(account, "GET", path.format(job_id)).body
        for path in (
            "/jobs", "/jobs/{}", "/jobs/{}/why", "/jobs/{}/log", "/queue", "/history", "/dlq", "/stats", "/gpus",
            "/metrics", "/openapi.json", "/report/failures", "/readyz", "/jobs?ids={}",
        )
    ]  # fmt: skip
    return b"\n".join(found)


def everything(box: Any) -> bytes:
    """Each file of the home, each row of the database and each value in Redis."""
    found = [path.read_bytes() for path in box.home.rglob("*") if path.is_file() and not path.is_symlink()]
    with sqlite3.connect(box.home / "gpuq.db") as connection:
        found.append("\n".join(connection.iterdump()).encode())
    [socket] = [path for path in (box.home / "redis").iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
    with redis.Redis(unix_socket_path=str(socket)) as link:
        found += [link.dump(key) or b"" for key in link.scan_iter()]
    return b"\n".join(found)


def command_lines() -> bytes:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                found.append((process / "cmdline").read_bytes())
            except OSError:
                continue
    return b"\n".join(found)


def unseen(box: Any, accounts: Accounts, job_id: int) -> None:
    for account in (accounts.alice, accounts.bob, None):
        assert CANARY.encode() not in answers(box, account, job_id)
    assert CANARY.encode() not in everything(box)
    assert CANARY.encode() not in command_lines()


def _fifo(box: Any, name: str) -> Path:
    path = box.home / name
    os.mkfifo(path)
    path.chmod(0o666)
    return Path(path)


def test_a_secret_is_seen_by_the_job_alone_while_it_waits_runs_and_after_its_end(box: Any, accounts: Accounts) -> None:
    bell = _fifo(box, "bell")
    spec = {"command": ["/bin/sh", "-c", SCRIPT, str(bell)], "cwd": "/", "gpus": 0, "max_retries": 0, "hold": True}
    job_id = box.call(accounts.alice, "POST", "/jobs", {**spec, "secrets": SECRETS}).json["id"]
    unseen(box, accounts, job_id)
    key = box.home / "secrets.key"
    assert (stat.S_IMODE(key.stat().st_mode), key.stat().st_uid) == (0o600, 0)
    for stranger in (accounts.bob, accounts.alice):
        with pytest.raises(PermissionError):
            in_thread_as(stranger, key.read_bytes)
    assert box.call(accounts.alice, "POST", f"/jobs/{job_id}/release").status == 200
    with open(bell) as ring:
        assert ring.readline() == "up\n"
    # It runs, and has said so; nothing but its own memory has it.
    unseen(box, accounts, job_id)
    for table in ("job_history", "secrets"):
        asked = box.call(accounts.alice, "POST", "/sql", {"query": f"SELECT * FROM {table}"})
        assert (asked.status == 200) is (table != "secrets")
        assert CANARY.encode() not in asked.body
    pid = box.until_state(job_id, "running")["pid"]
    with pytest.raises(PermissionError):
        in_thread_as(accounts.bob, Path(f"/proc/{pid}/environ").read_bytes)
    assert CANARY.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    assert box.call(accounts.alice, "GET", f"/jobs/{job_id}/log").body.startswith(DIGEST.encode())
    with open(bell, "w") as ring:
        ring.write("go\n")
    box.until_state(job_id, "failed")
    unseen(box, accounts, job_id)
    with sqlite3.connect(box.home / "gpuq.db") as connection:
        assert connection.execute("SELECT count(*) FROM secrets").fetchone() == (0,)
    gone = box.call(accounts.alice, "POST", f"/dlq/{job_id}/retry")
    assert gone.status == 409
    assert "were deleted with its end" in gone.json["error"]["message"]
    assert f"--like {job_id}" in gone.json["error"]["hint"]
    # Nobody but the owner queues it anew, and the names of what it needs are for the owner alone.
    for other in (accounts.bob, accounts.admin, None):
        refused = box.call(other, "POST", f"/jobs/{job_id}/again", {})
        assert refused.status == 403
        assert b"HF_TOKEN" not in refused.body


def test_a_copy_of_the_database_without_the_key_starts_nothing_that_has_secrets(
    box: Any, accounts: Accounts, tmp_path: Path
) -> None:
    command = ["/bin/sh", "-c", 'printf %s "$HF_TOKEN" | sha256sum']
    spec = {"command": command, "cwd": "/", "gpus": 0, "hold": True, "secrets": SECRETS}
    job_id = box.call(accounts.alice, "POST", "/jobs", spec).json["id"]
    copy = tmp_path / "copy.db"
    box.gpuq("db", "backup", str(copy))
    assert CANARY.encode() not in copy.read_bytes()
    key = (box.home / "secrets.key").read_text().split()[0]
    assert key.encode() not in copy.read_bytes()
    (box.home / "secrets.key").rename(box.home / "secrets.away")
    assert box.call(accounts.alice, "POST", f"/jobs/{job_id}/release").status == 200
    held = box.until_state(job_id, "held")
    assert held["reason"]["code"] == "SecretsUnreadable"
    assert held["attempt"] == 0
    assert "gpuq release" in box.gpuq("why", str(job_id)).stdout
    (box.home / "secrets.away").rename(box.home / "secrets.key")
    assert box.call(accounts.alice, "POST", f"/jobs/{job_id}/release").status == 200
    box.until_state(job_id, "completed")
    assert box.call(accounts.alice, "GET", f"/jobs/{job_id}/log").body.startswith(DIGEST.encode())


def test_over_tcp_the_daemon_looks_as_the_jobs_user_and_takes_what_is_named(box: Any, accounts: Accounts) -> None:
    token = box.call(accounts.alice, "POST", "/tokens", {"name": "laptop"}).json["token"]

    def complaint(**place: Any) -> Any:
        return box.call_tcp(box.port, token, "POST", "/jobs/place", {"cwd": "/", "program": "sh", **place})

    assert complaint().json == {"complaint": None}
    assert complaint(program="/bin/sh").json == {"complaint": None}
    assert "there is no directory /nowhere" in complaint(cwd="/nowhere").json["complaint"]
    assert "no program 'no-such'" in complaint(program="no-such").json["complaint"]
    assert "/etc/passwd is not executable" in complaint(program="/etc/passwd").json["complaint"]
    for odd in ("-x", "$(id)", "a'b", '"', "*", "a b", "!", "("):
        assert "there is no" in complaint(program=odd).json["complaint"], odd
        assert "there is no" in complaint(cwd=f"/{odd}").json["complaint"], odd
    # Root could enter it, alice may not.
    private = box.home / "redis"
    assert "may not enter" in complaint(cwd=str(private)).json["complaint"]
    for nonsense in ({"cwd": "relative"}, {"cwd": "/\0"}, {"program": ""}, {"path": 7}):
        assert complaint(**nonsense).status == 422
    assert box.call_tcp(box.port, None, "POST", "/jobs/place", {"cwd": "/", "program": "sh"}).status == 401
    remote = {"GPUQ_SERVER": f"http://127.0.0.1:{box.port}", "GPUQ_TOKEN": token, "MINE": "m", "A_TOKEN": CANARY}
    before, box.env = box.env, {**box.env, **remote}
    try:
        assert "there is no directory" in box.gpuq("submit", "-g0", "-C", "/nowhere", "true", code=2).stderr
        assert "there is no program" in box.gpuq("submit", "-g0", "-C", "/", "no-such", code=2).stderr
        odd = box.submit("-g0", "-C", "/nowhere", "--no-check", "--hold", "--", "no-such")
        box.gpuq("cancel", str(odd))
        job_id = box.submit("-g0", "-C", "/", "--env-keep", "MINE", "--env", "B_TOKEN=b", "env")
        box.until_state(job_id, "completed")
        said = dict(line.split("=", 1) for line in box.gpuq("logs", str(job_id)).stdout.splitlines() if "=" in line)
    finally:
        box.env = before
    assert (said["MINE"], said["B_TOKEN"], said["USER"]) == ("m", "b", accounts.alice.name)
    ours = {name for name in said if name.startswith(("GPUQ_", "CUDA_"))}
    assert set(said) - ours == {
        "MINE", "B_TOKEN", "USER", "LOGNAME", "HOME", "PATH", "PWD", "PYTHONUNBUFFERED",
    } | ({"_"} & set(said))  # fmt: skip

"""Results on a root daemon: whose they are, and that root reads nothing else in their place."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accounts import Account, Accounts, in_thread_as

SUBMIT = """if True:
    import gpuq
    with gpuq.Executor(gpus=0, time_limit=60) as executor:
        future = executor.submit(lambda: __import__("os").geteuid())
        print(future.result(timeout=60), future.job.id, future.job.command[-1])
"""
TAKE = """if True:
    import gpuq
    try:
        print(gpuq.attach(JOB).result(timeout=60))
    except gpuq.Forbidden as error:
        print("refused:", error)
"""


def test_results_are_their_users_and_root_follows_nothing_that_stands_in_their_place(
    make_root_box: Callable[..., Any], accounts: Accounts
) -> None:
    alice, bob = accounts.alice, accounts.bob
    box = make_root_box()
    box.up()
    secret = box.home / "secret"
    secret.write_text("SECRET")
    secret.chmod(0o600)
    wrote = box.submit_as(bob, "printf bobs >$GPUQ_RESULT_FILE; echo short >$GPUQ_SHORT_RESULT_FILE")
    trap = box.submit_as(bob, f"ln -s {secret} $GPUQ_RESULT_FILE; ln -s {secret} $GPUQ_SHORT_RESULT_FILE")
    for job in (wrote, trap):
        box.until_state(job, "completed")
    assert box.call(bob, "GET", f"/jobs/{wrote}/result").body == b"bobs"
    assert box.call(bob, "GET", f"/jobs/{wrote}").json["short_result"] == "short"
    for path in ("result", "result.txt", "short_result"):
        assert box.call(alice, "GET", f"/jobs/{wrote}/{path}").status == 403
    for path in (f"/jobs/{wrote}", "/jobs", "/history"):
        assert b'"short_result":"short"' not in box.call(alice, "GET", path).body.replace(b" ", b"")
    shown = box.show(trap)
    assert (shown["result_bytes"], shown["short_result"]) == (None, None)
    # Exchanged after its end: the daemon would read it now.
    own = box.home / "jobs" / str(wrote) / "1" / "result"
    own.unlink()
    own.symlink_to(secret)
    answer = box.call(bob, "GET", f"/jobs/{wrote}/result")
    assert (answer.status, b"SECRET" in answer.body) == (404, False)


def test_a_call_runs_as_its_user_and_nobody_else_unpickles_what_it_returns(
    make_root_box: Callable[..., Any], accounts: Accounts
) -> None:
    alice, bob = accounts.alice, accounts.bob
    try:
        in_thread_as(bob, lambda: open(sys.executable, "rb").close())
    except PermissionError:
        pytest.skip(f"{bob.name} cannot reach {sys.executable}")
    box = make_root_box()
    box.up()
    uid, job, path = _python_as(box, bob, SUBMIT).split()
    assert int(uid) == bob.uid
    assert not Path(path).is_relative_to(box.home)
    assert _python_as(box, bob, TAKE.replace("JOB", job)).strip() == uid
    for other in (alice, None):
        assert _python_as(box, other, TAKE.replace("JOB", job)).startswith("refused: ")


def _python_as(box: Any, account: Account | None, program: str) -> str:
    """What a program of that user prints, None: of root."""
    with tempfile.TemporaryDirectory(prefix="gpuq-user-") as own:
        identity: dict[str, Any] = {}
        if account is not None:
            os.chown(own, account.uid, account.gid)
            identity = account.identity
        env = {"PATH": "/usr/bin:/bin", "HOME": own, "GPUQ_HOME": own, "GPUQ_SERVER": f"unix://{box.socket_path}"}
        words = [sys.executable, "-c", program]
        done = subprocess.run(
            words, env=env, cwd="/", capture_output=True, text=True, timeout=90, check=False, **identity
        )
    assert done.returncode == 0, done.stderr
    return done.stdout

"""The fixture itself: who the daemon takes a caller for, and that no account outlives the tests."""

from __future__ import annotations

import os
import pwd
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accounts import PREFIX, Accounts, unusable

_KEEPER = Path(__file__).parents[1] / "services" / "accounts.py"


def test_each_caller_is_the_account_that_the_kernel_names(root_box: Any, accounts: Accounts) -> None:
    for account in (accounts.alice, accounts.bob, accounts.carol, accounts.admin):
        who = root_box.call(account, "GET", "/whoami").json
        assert (who["user"], who["admin"]) == (account.name, account is accounts.admin)
    assert root_box.call(None, "GET", "/whoami").json["user"] == "root"


def test_a_job_runs_as_its_submitter(root_box: Any, accounts: Accounts) -> None:
    job = root_box.submit_as(accounts.bob, "id -u; id -g")
    root_box.until_state(job, "completed")
    assert root_box.gpuq("logs", str(job)).stdout.split() == [str(accounts.bob.uid), str(accounts.bob.gid)]


def test_accounts_go_when_the_tests_are_killed() -> None:
    if (why_not := unusable()) is not None:
        pytest.skip(why_not)
    name = f"{PREFIX}{os.getpid()}z"
    # What stands for the tests here: it starts the keeper and is killed.
    code = (
        "import subprocess, sys, signal\n"
        "k = subprocess.Popen([sys.executable, sys.argv[1], sys.argv[2] + '='], stdin=subprocess.PIPE,"
        " stdout=subprocess.PIPE, start_new_session=True)\n"
        "print(k.stdout.readline().decode().strip(), k.pid, flush=True)\n"
        "signal.pause()\n"
    )
    tests = subprocess.Popen([sys.executable, "-c", code, str(_KEEPER), name], stdout=subprocess.PIPE, text=True)
    assert tests.stdout is not None
    said, keeper = tests.stdout.readline().split()
    assert said == "ready"
    assert pwd.getpwnam(name)
    watched = os.pidfd_open(int(keeper))
    tests.send_signal(signal.SIGKILL)
    tests.wait(10)
    tests.stdout.close()
    with os.fdopen(watched):
        assert select.select([watched], [], [], 60)[0], "the keeper is still there"
    with pytest.raises(KeyError):
        pwd.getpwnam(name)
